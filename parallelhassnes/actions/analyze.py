"""``analyze``: analyses of trials that were run before, or by another engine. Nothing that is sealed is touched.

Each becomes a step that is added to its trial's job. What has an analysis by that engine already keeps it; one that failed is
attempted again. So trials that came later are analysed, and only those. A packed batch is unpacked first, where there is anything to
analyse: what a step writes lies in its job's folder. A crash after that leaves a batch that is not packed, and the same command goes on.
"""

from collections.abc import Iterator
from pathlib import Path

from parallelhassnes.actions import packs
from parallelhassnes.errors import InvalidInput
from parallelhassnes.names import Ids
from parallelhassnes.plan import LEFT_OPEN, JobSpec, StepSpec
from parallelhassnes.refs import Found, resolve
from parallelhassnes.results import collect
from parallelhassnes.results.analysis_list import engine_of
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState, ticket_of
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.store import attempts, batches, decider
from parallelhassnes.store.queue import delayed
from parallelhassnes.tables.expanders.analyses import analysis_steps, checked, spec
from parallelhassnes.tables.expanders.expansion import Expansion as TableContext
from parallelhassnes.tables.model import AnalysisPart
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.table_paths import Bases
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus
from parallelhassnes.views.scoreboard_models import View


class Analyzed(View):
    """What came of it."""

    ok: bool = True
    batch_id: str
    added: list[str] = []
    """``job_id/step_id`` of the new steps."""
    again: list[str] = []
    """Those that had failed and are attempted again."""
    had: int = 0
    """Analyses that were there already."""
    unpacked: bool = False
    """The batch was packed, and is not any more."""


def analyze(ctx: Context, text: str, parts: list[AnalysisPart], *, failed: bool = False) -> Analyzed:
    """Have the trials under an id analysed by these engines; starts what may start, waits for nothing.

    Args:
        failed: only trials that have ended and did not pass.

    Raises:
        UnknownId: there is no such thing.
        InvalidInput: an engine lacks something.
        UserError: the batch is packed, and its archive is not what was packed.
    """
    found = resolve(ctx.layout, text)
    problems = Problems("analyze")
    tables = TableContext(problems, Bases([]), ingest.defaults(ctx))
    checked(list(parts), "", tables)
    if problems:
        raise InvalidInput(problems.found)
    result = Analyzed(batch_id=found.batch_id)
    status = batch_status.read_told(ctx.layout, found.batch_id) if failed else None
    batch_dir = ctx.layout.batch(found.batch_id)
    if packs.is_packed(batch_dir) and any(
        _is_to_run(ctx, job, _step_of(job, trial, part))
        for job in _jobs(ctx, found)
        for trial in _trials(status, job, found.step_id)
        for part in parts
    ):
        packs.unpack(ctx, found.batch_id)
        result.unpacked = True
    with decider.deciding(ctx.layout):
        book = JobState(ctx, found.batch_id)
        new: dict[str, list[StepSpec]] = {}
        for job in _jobs(ctx, found):
            taken = Ids(step.step_id for step in job.steps)
            for trial in _trials(status, job, found.step_id):
                missing = [part for part in parts if not _has(ctx, book, job, trial, part, result)]
                new.setdefault(job.job_id, []).extend(
                    analysis_steps(trial, job.job_id, missing, tables, LEFT_OPEN, taken)
                )
        book.save(whole=True)
        new = {job_id: steps for job_id, steps in new.items() if steps}
        if new:
            add_steps.add(ctx, found.batch_id, new)
        result.added = [f"{job_id}/{step.step_id}" for job_id, own in new.items() for step in own]
    pass_and_wake(ctx)
    return result


def _trials(status: BatchStatus | None, job: JobSpec, only: str | None) -> list[StepSpec]:
    """Return the job's trials; where a status is given, those that have ended and did not pass."""
    trials = [s for s in job.steps if s.kind == "trial" and only in (None, s.step_id)]
    if status is None:
        return trials
    known = collect.of_job(status, job)
    return [
        step
        for step in trials
        if known[step.step_id].result not in ("missing", "canceled", "skipped") and not known[step.step_id].passed
    ]


def _jobs(ctx: Context, found: Found) -> Iterator[JobSpec]:
    for job_dir in batches.job_dirs(ctx.layout, found.batch_id):
        if found.job_id in (None, job_dir.name):
            yield batches.read_job(job_dir)


def _step_of(job: JobSpec, trial: StepSpec, part: AnalysisPart) -> StepSpec | None:
    """Return the trial's step of that engine and model."""
    wanted = engine_of(spec(part, trial.step_id))
    for step in job.steps:
        if step.kind == "analysis" and step.spec.get("trial") == trial.step_id and engine_of(step.spec) == wanted:
            return step
    return None


def _is_to_run(ctx: Context, job: JobSpec, step: StepSpec | None) -> bool:
    """Tell whether there is no such step, or one that came to no analysis."""
    return step is None or _came_to_nothing(ctx.layout.step(job.batch_id, job.job_id, step.step_id)) is not None


def _came_to_nothing(step_dir: Path) -> str | None:
    """Return the run id of a step's newest attempt where that is over and is no analysis."""
    ref = attempts.newest(step_dir)
    if ref is None or not attempts.is_sealed(ref.dir):
        return None
    state = attempts.read_state(ref.dir)
    return None if state.status in ("succeeded", "needs_attention") else state.run_id


def _has(ctx: Context, book: JobState, job: JobSpec, trial: StepSpec, part: AnalysisPart, result: Analyzed) -> bool:
    """Tell whether the trial has a step of that engine and model; one that came to no analysis is asked again."""
    step = _step_of(job, trial, part)
    if step is None:
        return False
    run_id = _came_to_nothing(book.step_dir(job, step))
    if run_id is None:
        result.had += 1
        return True
    book.ask_again(job, step, run_id)
    now = book.look_again(job, step)
    if now is not None and now.retry_at is not None:
        ticket, name = ticket_of(job, step)
        delayed.put(ctx.layout, ticket, name, now)
    result.again.append(f"{job.job_id}/{step.step_id}")
    return True
