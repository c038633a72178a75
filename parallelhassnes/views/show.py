"""``show``: everything that the store has on one batch, job, step or attempt, in one document."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from parallelhassnes import formatting, walk
from parallelhassnes.attempt_data.safe_open import FileName
from parallelhassnes.plan import StepSpec
from parallelhassnes.refs import Found, resolve
from parallelhassnes.states import TERMINAL
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, attempts, batches, rooted
from parallelhassnes.store.evidence import removals
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status, batch_summary
from parallelhassnes.views.batch_status import StepStatus
from parallelhassnes.views.outcome import StepOutcome, count_trials, outcome
from parallelhassnes.views.running import attempt_path
from parallelhassnes.views.scoreboard_models import Counts, TrialCounts, View

MOST_FILES = 500


class FileLine(View):
    """One file below what is shown."""

    path: FileName
    """Relative to the folder shown."""
    size: int
    """Bytes."""


class StepLine(View):
    """One step of what is shown."""

    step: str
    """``job_id/step_id``."""
    kind: str
    label: str
    queue_key: str
    depends_on: list[str]
    state: str
    outcome: str = ""
    """In words: ``passed``, ``scored 0.4``, ``no score: rate_limit``; of what is not over and of other kinds its state."""
    standing: str = ""
    """``passed``, ``scored`` or ``no_score``; of what is not over and of other kinds its state."""
    reason: str = ""
    """Why it is blocked."""
    gated: bool = False
    """A person's word is all that it waits for: approve or reject it."""
    attempts: int = 0
    failure: str = ""
    """Class and line."""
    failure_class: str | None = None
    guessed: bool = False
    """Nobody named the cause: the class is a guess."""
    retry_at: str | None = None
    attempt: str | None = None
    """The newest attempt's folder, relative to the root."""


class AttemptLine(View):
    """One attempt of the step shown."""

    attempt: str
    """Its folder, relative to the root."""
    number: int
    status: str
    outcome: str = ""
    """As of a step, of this attempt alone."""
    standing: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    failure: str = ""
    guessed: bool = False
    """Nobody named the cause of the failure: its class is a guess."""
    sealed: bool
    """Nothing in its folder changes any more."""
    taken_from: str = ""
    """``batch_id/job_id/step_id`` of the step that has made it, where that is another: it was reused, or a rerun took it over."""
    imported: str = ""
    """The trial of another program that it was; then the times are those that its files say, and what they do not say is missing."""
    removed: str = ""
    """When and by which rule of ``[retention]`` its files were removed; empty if all are there."""


class ShowDocument(View):
    """What ``show`` prints with ``--json``."""

    schema_version: Literal[1] = 1
    what: Literal["batch", "job", "step", "attempt"]
    id: str
    """``BATCH/JOB/STEP/ATTEMPT``, as far down as it goes."""
    path: str
    """Its folder, relative to the root."""
    state: str
    """Of a step or attempt its own; of a batch or job ``running``, ``waiting``, ``blocked``, ``attention``, ``canceled`` or ``done``."""
    outcome: str = ""
    """Of a step or attempt what it has come to, in words."""
    standing: str = ""
    summary: str = ""
    """The newest report's summary."""
    failure: str = ""
    counts: Counts | None = None
    """Steps by state, of a batch or job."""
    trials: TrialCounts | None = None
    """Of the steps those that are trials, of a batch or job."""
    other_steps: Counts | None = None
    """Of a batch or job the states of its steps that are no trials."""
    steps: list[StepLine] = []
    attempts: list[AttemptLine] = []
    """Of a step or attempt: oldest first."""
    record: dict[str, Any] = {}
    """``batch_meta.json``, ``job.json`` without its steps, the step's plan or ``meta.json``."""
    report: dict[str, Any] | None = None
    """``final.json`` of the (newest) attempt."""
    verdict: dict[str, Any] | None = None
    """``verdict.json`` of the job."""
    files: list[FileLine] = []
    more_files: int = 0
    """Files left out of the list."""


def show(layout: Layout, text: str, *, with_steps: bool = True) -> ShowDocument:
    """Tell what the store has on ``text``, any id that ``refs.resolve`` takes.

    Args:
        with_steps: list the steps below it.

    Raises:
        UnknownId: it names nothing, or more than one thing.
    """
    found = resolve(layout, text)
    status = batch_status.read_told(layout, found.batch_id)
    own = status.below(found.job_id, found.step_id)
    document = ShowDocument(
        what=found.what,  # type: ignore[arg-type]
        id=str(found),
        state="",
        path=str(found.folder(layout).relative_to(layout.root)),
        steps=[_step_line(status, step) for step in own if with_steps],
    )
    document.files, document.more_files = _files(found.folder(layout), deep=found.attempt is not None)
    if found.job_id is not None:
        job_dir = layout.job(found.batch_id, found.job_id)
        document.verdict = _document(job_dir / "verdict.json")
    if found.step_id is None:
        _fill_group(layout, found, document, own)
    else:
        _fill_step(layout, found, document, own[0])
    return document


def _step_line(status: batch_status.BatchStatus, found: StepStatus) -> StepLine:
    row, step = found.row, found.step
    said = _outcome(found)
    return StepLine(
        step=found.key,
        kind=step.kind,
        label=step.label,
        queue_key=step.queue_key,
        depends_on=list(step.depends_on),
        state=found.state,
        outcome=said.text,
        standing=said.standing,
        reason=found.reason,
        gated=found.gated,
        attempts=row.number if row else 0,
        failure=row.failure if row else "",
        failure_class=row.failure_class if row else None,
        guessed=row is not None and row.guessed,
        retry_at=row.retry_at if row and found.state == "ready" else None,
        attempt=attempt_path(status.batch_dir.name, found.key, row.attempt) if row else None,
    )


def _outcome(found: StepStatus) -> StepOutcome:
    row = found.row
    if row is None:
        return outcome(found.step.kind, found.state)
    return outcome(found.step.kind, found.state, row.said, row.failure_class, guessed=row.guessed)


def _fill_group(layout: Layout, found: Found, document: ShowDocument, own: list[StepStatus]) -> None:
    found_group = batch_status.group(own)
    document.counts, document.state = found_group.counts, found_group.state
    document.trials = count_trials(batch_summary.standing_of(step) for step in own if step.step.kind == "trial")
    document.other_steps = batch_status.group(step for step in own if step.step.kind != "trial").counts
    if found.job_id is None:
        record = rooted.unfold(atomic.read_json(layout.batch(found.batch_id) / batches.META), layout.root)
        record.pop("job_ids", None)
    else:
        record = rooted.unfold(atomic.read_json(found.folder(layout) / batches.JOB), layout.root)
        record.pop("steps", None)
        record.pop("dependents", None)
    document.record = record


def _fill_step(layout: Layout, found: Found, document: ShowDocument, step: StepStatus) -> None:
    step_dir = layout.step(found.batch_id, found.job_id or "", found.step_id or "")
    every = attempts.names(step_dir)
    plan = _spec(layout, found)
    document.attempts = [
        line
        for number, name in enumerate(every, 1)
        if found.attempt in (None, name)
        and (line := _attempt_line(layout, step_dir / "attempts" / name, number, plan)) is not None
    ]
    document.state = step.state
    document.standing, document.outcome = _outcome(step)
    newest = found.attempt or (every[-1] if every else None)
    if newest is None:
        document.record = _dumped(plan)
        return
    folder = step_dir / "attempts" / newest
    document.report = _document(folder / attempts.FINAL)
    document.summary = str((document.report or {}).get("summary", ""))
    document.failure = next((line.failure for line in reversed(document.attempts)), "")
    if found.attempt is not None:
        document.state = document.attempts[0].status if document.attempts else "lost"
        document.outcome = document.attempts[0].outcome if document.attempts else "lost"
        document.standing = document.attempts[0].standing if document.attempts else "lost"
        document.record = _document(folder / attempts.META) or {}
    else:
        document.record = _dumped(plan)


def _spec(layout: Layout, found: Found) -> StepSpec:
    return batches.read_job(layout.job(found.batch_id, found.job_id or "")).step(found.step_id or "")


def _dumped(step: StepSpec) -> dict[str, Any]:
    return step.model_dump(mode="json", exclude_defaults=True)


def _attempt_line(layout: Layout, folder: Path, number: int, step: StepSpec) -> AttemptLine | None:
    state = _document(folder / attempts.STATE)
    if state is None:
        return None
    failure = state.get("failure")
    sealed = attempts.is_sealed(folder)
    over = state["status"] in TERMINAL
    meta = _document(folder / attempts.META) or {}
    imported = meta.get("imported") or {}
    made_by = "/".join(str(meta.get(name)) for name in ("batch_id", "job_id", "step_id"))
    own = f"{folder.parents[4].name}/{folder.parents[3].name}/{folder.parents[1].name}"
    status = state["status"] if sealed or not over else "running"
    said = ended_line.line(step, status, _document(folder / attempts.FINAL) or {}) if sealed else {}
    known = said.get(step.kind) if step.kind in ("trial", "verdict") else None
    came_to = outcome(
        step.kind,
        status,
        known,
        failure["failure_class"] if failure else None,
        guessed=bool(failure and failure.get("guessed")),
    )
    gone = removals.of_attempt(folder) if sealed else None
    return AttemptLine(
        attempt=str(folder.relative_to(layout.root)),
        number=number,
        status=status,
        outcome=came_to.text,
        standing=came_to.standing,
        started_at=state.get("started_at"),
        ended_at=imported.get("ended") if imported else state.get("ended_at"),
        imported=f"{imported['source']} {imported['job_id']}/{imported['trial']}" if imported else "",
        taken_from=made_by if made_by != own and not imported else "",
        sealed=sealed,
        removed=gone.line if gone else "",
        guessed=bool(failure and failure.get("guessed")),
        failure=formatting.failure(failure["failure_class"], failure["line"], failure.get("guessed"))
        if failure
        else "",
    )


def _document(path: Path) -> dict[str, Any] | None:
    """Return a JSON object of the store; None where it is not there, or is not one."""
    try:
        document = atomic.read_json_or_none(path)
    except (atomic.CorruptFile, OSError):
        return None
    return document if isinstance(document, dict) else None


def _files(folder: Path, *, deep: bool) -> tuple[list[FileLine], int]:
    """Return the files of the folder, of an attempt those below it, too; and how many were left out."""
    everything = walk.files(folder) if deep else _plain_files(folder)
    found = [
        FileLine(path=path, size=size) for path, size in everything if not path.rpartition("/")[2].startswith(".tmp-")
    ]
    found.sort(key=lambda line: line.path)
    return found[:MOST_FILES], max(0, len(found) - MOST_FILES)


def _plain_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and size of what is no folder in it; nothing where it is not there yet."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        yield from ((path, size) for path, size in walk.files(folder) if "/" not in path)
