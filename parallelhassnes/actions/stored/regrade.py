"""``regrade``: the trials of a batch judged by other tests, without running an agent again.

    the old batch's counting attempts ──▶ launch table (``tables.formats.regrade_table``) ──▶ a new batch, submitted as any other

Of each trial that attempt is judged that counts. What of it is judged is, in this order: the artifacts that Harbor has collected, by Harbor's own regrade, where every
verifier of the task has an environment of its own and the attempt has a record of artifacts; else the workspace that was kept (``keep_workspace``), which is put into
a fresh environment of the task. A trial with neither is left out, and named. Nothing of the old batch changes but a line in its ledger, so both rewards stay; the new
batch names each attempt that it judges, with the hash of its seal.

The table names the attempts by their seals and the tests by their task's hash, so the same regrade is the same bytes: one that was killed half-way and is made again
comes to one batch, as any submission does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import formatting
from parallelhassnes.actions.stored import artifact_record
from parallelhassnes.actions.submit import submit
from parallelhassnes.errors import UserError
from parallelhassnes.plan import PassRule, Regraded, StepSpec
from parallelhassnes.refs import resolve
from parallelhassnes.results import collect
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial import workspace
from parallelhassnes.steps.trial.trial_paths import TRIAL_DIR
from parallelhassnes.store import atomic, attempts, batches, decider
from parallelhassnes.store.evidence import ledger, removals, seal
from parallelhassnes.tables.expanders.tasks import FoundTask, tasks_in
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.views.scoreboard_models import View

_MOST_NAMED = 20
_JUDGED = frozenset({"verifier", "agent_timeout", "capped"})
"""Failure classes of trials without a reward whose agents came to an end that tests can judge; not so one that broke, or was refused by its provider."""
_RESTORING_SEC = 900.0
RESTORED = "parallelhassnes.steps.trial.restored_agent:RestoredAgent"


class RegradeMade(View):
    """What came of it."""

    ok: bool = True
    regrade_of: str
    batch_id: str
    """The new batch."""
    trials: int
    """Judged again."""
    left_out: int = 0
    """Trials of the old batch that are not."""
    notes: list[str] = []
    """Why, a line each."""
    duplicate: bool = False
    """The same tests have judged the same attempts before, as that batch; nothing was made."""


class _Trial(NamedTuple):
    row: TrialRow
    step: StepSpec
    folder: Path
    """Of its attempt."""


def regrade(
    ctx: Context, text: str, verifier: Sequence[Path], *, experiment: str | None = None, again: bool = False
) -> RegradeMade:
    """Make the new batch.

    Args:
        text: the batch.
        verifier: task folders, or folders of tasks, whose tests judge; a trial is judged by the task of its task's name.
        experiment: of the new batch; None for that of the old one.
        again: make a new batch even if the same tests have judged the same attempts before.

    Raises:
        UnknownId, UserError: it is no batch, or none of its trials can be judged again: in one line, why.
        InvalidInput: a task cannot be read.
    """
    found = resolve(ctx.layout, text)
    if found.job_id is not None:
        raise UserError(f"{text} is a {found.what}, not a batch", fix=f"name {found.batch_id}")
    old = found.batch_id
    tasks = _tasks(verifier)
    rows = collect.read(ctx.layout, collect.choose(ctx.layout, old))
    notes, told = _Notes(), ledger.seals(ctx.layout.batch(old))
    made: list[dict[str, Any]] = []
    for trial in _trials(ctx, rows, notes):
        task = tasks.get(trial.row.task) or tasks.get(trial.row.task.rpartition("/")[2])
        if task is None:
            notes.add("their task is not among those of --verifier", trial.row)
            continue
        entry = _entry(trial, task, told.get(f"{trial.row.job_id}/{trial.row.facts.attempt}"))
        if isinstance(entry, str):
            notes.add(entry, trial.row)
        else:
            made.append(entry)
    if not made:
        why = "; ".join(notes.lines()) or "it has no trials"
        raise UserError(
            f"nothing of {old} can be judged again: {why}",
            fix="run with --keep-workspace what is to be judged again later",
        )
    meta = batches.read_batch(ctx.layout.batch(old))
    document = {
        "regrade": {"batch": old, "verifier": [str(path) for path in verifier], "left_out": notes.count},
        "experiment": meta.experiment if experiment is None else experiment,
        "trials": made,
    }
    done = submit(ctx, atomic.dumps(document).encode(), name=f"regrade-{old}.json", folders=[Path.cwd()], again=again)
    with decider.deciding(ctx.layout):
        if not (done.duplicate and _is_told(ctx.layout.batch(old), done.batch_id)):
            ledger.append(
                ctx.layout.batch(old), "regraded", by=ledger.person(), batch_id=done.batch_id, trials=len(made)
            )
    return RegradeMade(
        regrade_of=old,
        batch_id=done.batch_id,
        trials=len(made),
        left_out=notes.count,
        notes=[*notes.lines(), *done.warnings],
        duplicate=done.duplicate,
    )


def _is_told(batch_dir: Path, batch_id: str) -> bool:
    """Tell whether the ledger says already that a batch judges this one."""
    said = (event for _, event in ledger.read(batch_dir))
    return any(event.get("event") == "regraded" and event.get("batch_id") == batch_id for event in said)


class _Notes:
    """Why trials are left out."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, why: str, row: TrialRow) -> None:
        self._found.setdefault(why, []).append(row.step)

    @property
    def count(self) -> int:
        return sum(map(len, self._found.values()))

    def lines(self) -> list[str]:
        return [
            f"{formatting.counted(len(steps), 'trial')} left out, {why}: {', '.join(steps[:_MOST_NAMED])}"
            f"{f' and {len(steps) - _MOST_NAMED} more' if len(steps) > _MOST_NAMED else ''}"
            for why, steps in self._found.items()
        ]


def _tasks(verifier: Sequence[Path]) -> dict[str, FoundTask]:
    """Return name → task; under the name of its folder, too."""
    if not verifier:
        raise UserError("no tests are named", fix="give --verifier with a task folder, or a folder of tasks")
    problems = Problems("--verifier")
    found: dict[str, FoundTask] = {}
    for path in verifier:
        for task in tasks_in(path.resolve(), "", problems):
            found[task.name] = task
            found.setdefault(Path(task.config["path"]).name, task)
    problems.raise_any()
    return found


def _trials(ctx: Context, rows: Sequence[TrialRow], notes: _Notes) -> list[_Trial]:
    found = []
    for row in rows:
        if row.facts.attempt is None or not (row.scored or row.facts.failure_class in _JUDGED):
            notes.add("their agents came to no end that tests could judge", row)
            continue
        job_dir = ctx.layout.job(row.batch_id, row.job_id)
        folder = job_dir / row.facts.attempt
        step = batches.read_job(job_dir).step(row.facts.step_id)
        if step.spec.get("regrade"):
            notes.add("they are regrades themselves: name the batch that they judge", row)
        elif not attempts.is_sealed(folder):
            notes.add("their attempts are not sealed", row)
        else:
            found.append(_Trial(row, step, folder))
    return found


def _entry(trial: _Trial, task: FoundTask, told: str | None) -> dict[str, Any] | str:
    """Return the entry of the table; a text that says why there is none.

    Args:
        told: SHA-256 of the attempt's seal, by the ledger.
    """
    row, step, folder = trial
    facts, config = row.facts, dict(safe_read.mapping(step.spec.get("config")))
    if told is None or seal.recorded(folder)["seal_sha256"] != told:
        return "their seals are not what the ledger names"
    if (gone := removals.of_attempt(folder)) is not None:
        return gone.line
    why = artifact_record.why_not(Path(task.config["path"]), folder / TRIAL_DIR, config.get("artifacts") or [])
    by_artifacts = not why
    if by_artifacts and not folder.is_dir():
        return "Harbor cannot read artifacts of a packed batch: unpack it"
    if not by_artifacts and not workspace.read(folder)[0]:
        return f"{why}, and there is no workspace: {workspace.read(folder)[1]}"
    config.pop("task", None)
    again = Regraded(
        attempt=f"{row.batch_id}/{row.job_id}/{facts.step_id}/{folder.name}",
        seal_sha256=told,
        by="artifacts" if by_artifacts else "workspace",
        agent=facts.agent,
        agent_version=facts.agent_version,
        model=facts.model,
        task_checksum=facts.task_checksum or str(step.spec.get("task_checksum") or ""),
        reward=facts.reward,
        passed=facts.passed,
        result=facts.result,
    )
    if by_artifacts:
        config["source_trial"] = {"action": "regrade", "type": "local", "path": str(folder / TRIAL_DIR)}
    else:
        kwargs = {
            "attempt": str(folder),
            "seal_sha256": told,
            "as_agent": facts.agent or "",
            "as_version": facts.agent_version or "",
        }
        config["agent"] = {"import_path": RESTORED, "kwargs": kwargs, "override_timeout_sec": _RESTORING_SEC}
        if facts.model:
            config["agent"]["model_name"] = facts.model
    config.pop("user_agent", None)
    return {
        "job_id": row.job_id,
        "step_id": facts.step_id,
        "label": step.label,
        "task": task.config["path"],
        "task_checksum": task.checksum,
        "config": config,
        "pass_rule": _rule(step),
        "regrade": again.model_dump(mode="json", exclude_defaults=True),
    }


def _rule(step: StepSpec) -> dict[str, Any] | None:
    """Return what the table said of passing; what the task said is for the other task to say."""
    said = step.spec.get("pass_rule")
    rule = PassRule.model_validate(said) if said else None
    return rule.model_dump(mode="json") if rule and rule.source in ("table", "sweep", "step") else None
