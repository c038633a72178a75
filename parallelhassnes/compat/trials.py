"""What the earlier programs show of a batch: its trials in order, each with its newest attempt."""

from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.attempt_data.follow_logs import Logs
from parallelhassnes.plan import BatchMeta, StepSpec
from parallelhassnes.refs import Found
from parallelhassnes.results import collect
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.trial_data.facts import TrialFacts
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import StepStatus


class Trial(NamedTuple):
    """One trial step of a batch."""

    number: int
    """From 0, in the table's order."""
    status: StepStatus
    spec: StepSpec
    facts: TrialFacts
    folder: Path | None
    """Of its newest attempt; None before there was one."""

    @property
    def started_at(self) -> str | None:
        return self._state().get("started_at")

    @property
    def ended_at(self) -> str | None:
        return self._state().get("ended_at")

    @property
    def phase(self) -> str | None:
        return self._state().get("phase")

    @property
    def agent(self) -> dict[str, Any]:
        return dict((self.spec.spec.get("config") or {}).get("agent") or {})

    def _state(self) -> dict[str, Any]:
        if self.folder is None:
            return {}
        return dict(atomic.read_json_or_none(self.folder / attempts.STATE) or {})


class BatchTrials(NamedTuple):
    """A batch as its trials."""

    meta: BatchMeta
    trials: list[Trial]
    verdict: StepStatus | None
    """The first job's verdict step."""


def trials_of(layout: Layout, batch_id: str) -> BatchTrials:
    """Return the batch as of now.

    Raises:
        FileNotFoundError: there is no such batch.
    """
    status = batch_status.read_told(layout, batch_id)
    jobs = {job_id: batches.read_job(layout.job(batch_id, job_id)) for job_id in status.jobs}
    found: list[Trial] = []
    verdict = None
    for step in status:
        if step.step.kind == "verdict" and verdict is None:
            verdict = step
        if step.step.kind != "trial":
            continue
        spec = jobs[step.job_id].step(step.step.step_id)
        folder = layout.step(batch_id, step.job_id, step.step.step_id) / "attempts"
        found.append(
            Trial(
                len(found),
                step,
                spec,
                collect.of_step(status, step, facts.plan_of(spec)),
                folder / step.row.attempt if step.row else None,
            )
        )
    return BatchTrials(batches.read_batch(layout.batch(batch_id)), found, verdict)


def log_texts(layout: Layout, batch_id: str, trial: Trial, most: int) -> dict[str, str]:
    """Return the ends of the trial's logs by name; none before it has begun."""
    if trial.folder is None:
        return {}
    found = Found(batch_id, trial.status.job_id, trial.status.step.step_id, trial.folder.name)
    return Logs(layout, trial.folder, found).tails(None, most)[0]


def log_text(layout: Layout, batch_id: str, trial: Trial, most: int) -> str:
    """Return the ends of the trial's logs as one text."""
    texts = log_texts(layout, batch_id, trial, most)
    return "\n".join(f"=== {name} ===\n{text}" for name, text in texts.items())
