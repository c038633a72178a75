"""Harbor's job plugins, each around one trial: to a plugin here, every trial is a job of one.

    plugins made ─▶ on_job_start(job) ─▶ the trial, with the hooks that they have added ─▶ on_job_end(result of one trial)

All of it runs in the trial's own process, so nothing that a plugin remembers is there for the next trial. ``job.job_dir`` is
``plugins/`` in the attempt's folder, sealed with it; while the trial runs, a link in it leads from the trial's name to Harbor's folder of
it. A plugin that asks its job for more than a trial has fails its trial, in one line.
"""

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial.trial_paths import TRIAL_DIR

if TYPE_CHECKING:
    from harbor.trial.hooks import HookCallback, TrialEvent
    from harbor.trial.trial import Trial

FOLDER = "plugins"


class PluginError(ValueError):
    """A plugin cannot be made, or asks for what is not there."""


class TrialJob:
    """What a plugin is given for its job: what ``harbor.job.Job`` says of itself and of its hooks, of one trial."""

    def __init__(self, trial: "Trial", attempt: StepAttempt) -> None:
        from harbor.models.job.config import JobConfig

        self._trial = trial
        config = trial.config
        self.id = uuid.uuid5(uuid.NAMESPACE_OID, f"{attempt.batch_id}/{attempt.run_id}")
        """Another for each attempt."""
        self.job_dir: Path = attempt.dir / FOLDER
        self.config: JobConfig = JobConfig(
            job_name=attempt.batch_id,
            jobs_dir=attempt.dir,
            agents=[config.agent],
            tasks=[config.task],
            environment=config.environment,
            verifier=config.verifier,
            n_concurrent_trials=1,
        )

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"it asks for job.{name}, which one trial does not have; harbor run has it")

    def add_hook(self, event: "TrialEvent", callback: "HookCallback") -> "TrialJob":
        self._trial.add_hook(event, callback)
        return self

    def on_trial_started(self, callback: "HookCallback") -> "TrialJob":
        return self._on("START", callback)

    def on_environment_started(self, callback: "HookCallback") -> "TrialJob":
        return self._on("ENVIRONMENT_START", callback)

    def on_agent_started(self, callback: "HookCallback") -> "TrialJob":
        return self._on("AGENT_START", callback)

    def on_agent_ended(self, callback: "HookCallback") -> "TrialJob":
        return self._on("AGENT_END", callback)

    def on_verification_started(self, callback: "HookCallback") -> "TrialJob":
        return self._on("VERIFICATION_START", callback)

    def on_trial_ended(self, callback: "HookCallback") -> "TrialJob":
        return self._on("END", callback)

    def on_trial_cancelled(self, callback: "HookCallback") -> "TrialJob":
        return self._on("CANCEL", callback)

    def _on(self, name: str, callback: "HookCallback") -> "TrialJob":
        from harbor.trial.hooks import TrialEvent

        return self.add_hook(TrialEvent[name], callback)


class Plugins:
    """The plugins of one attempt."""

    def __init__(self, trial: "Trial", attempt: StepAttempt) -> None:
        self._trial, self._attempt = trial, attempt
        self._made: list[Any] = []
        self._began = datetime.now(UTC)

    async def start(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        """Make them, and tell each that its job starts.

        Raises:
            PluginError: in one line, which of them cannot be had and why.
        """
        if not wanted:
            return
        from harbor.cli.job_plugins import (
            attach_job_plugin,
        )  # seconds of imports, which a trial without plugins is spared

        self._job = TrialJob(self._trial, self._attempt)
        self._job.job_dir.mkdir(exist_ok=True)
        (self._job.job_dir / self._trial.config.trial_name).symlink_to(Path("..") / TRIAL_DIR)
        for each in wanted:
            try:
                made = await attach_job_plugin(self._job, each["import_path"], kwargs=dict(each.get("kwargs") or {}))  # type: ignore[arg-type] # what stands in for a job
            except Exception as error:
                raise PluginError(f"the job plugin {each['import_path']} does not start: {_line(error)}") from error
            self._made.append(made)

    async def end(self) -> None:
        """Tell each that its job has ended, with what came of the trial; what goes wrong with it is in the trial's log, as there."""
        if not self._made:
            return
        from harbor.cli.job_plugins import finalize_job_plugins
        from harbor.models.job.result import JobResult, JobStats

        now = datetime.now(UTC)
        results = [self._trial.result]
        stats = JobStats.from_trial_results(results, n_total_trials=1)
        await finalize_job_plugins(
            self._made,
            JobResult(
                id=self._job.id,
                started_at=self._began,
                updated_at=now,
                finished_at=now,
                n_total_trials=1,
                stats=stats,
                trial_results=results,
            ),
        )

    def clear(self) -> None:
        """Take the link away, and the folder where nothing is in it."""
        folder = self._attempt.dir / FOLDER
        with contextlib.suppress(OSError):
            (folder / self._trial.config.trial_name).unlink(missing_ok=True)
            folder.rmdir()


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
