"""``append``: more trials of the agents that a batch has, in the jobs that it has; only these run, and only these are analysed."""

from pydantic import BaseModel

from parallelhassnes.errors import UserError
from parallelhassnes.names import suggestion
from parallelhassnes.plan import JobSpec
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.additions import add_steps, similar_steps
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.store import batches, decider
from parallelhassnes.tables.expanders.expansion import too_many


class Appended(BaseModel):
    """What came of it."""

    ok: bool = True
    batch_id: str
    trials: list[str]
    """``job_id/step_id`` of the new trials."""
    analyses: list[str]
    """Those of their analyses."""
    started: int = 0
    """Attempts that started at once."""


def append(ctx: Context, text: str, n: int, labels: list[str] | None = None) -> Appended:
    """Add ``n`` trials of each agent to each job under an id; starts what may start, waits for nothing.

    Each is like the newest trial of its agent in that job: the same task, settings, dependencies and analyses. The job's
    verdict is made anew when they have ended.

    Args:
        labels: only agents whose column in the scoreboard is one of these.

    Raises:
        UnknownId: there is no such thing.
        UserError: it has no such agent, or names more than a job.
    """
    found = resolve(ctx.layout, text)
    if found.step_id is not None:
        raise UserError(f"{found} is a {found.what}", fix="name a batch, or BATCH/JOB")
    with decider.deciding(ctx.layout):
        every = [batches.read_job(path) for path in batches.job_dirs(ctx.layout, found.batch_id)]
        jobs = [job for job in every if found.job_id in (None, job.job_id)]
        _check(labels or [], jobs)
        steps = sum(len(job.steps) for job in every)
        steps += sum(similar_steps.count(job, n, labels) for job in jobs)
        if steps > ctx.config.max_steps:
            _, what, fix = too_many(steps, ctx.config.max_steps, "")
            raise UserError(f"with {n} more of each agent {found} {what}", fix=fix)
        new = {job.job_id: similar_steps.trials(job, n, labels) for job in jobs}
        new = {job_id: steps for job_id, steps in new.items() if steps}
        if not new:
            raise UserError(f"{found} has no trials", fix="name a batch with trials")
        add_steps.add(ctx, found.batch_id, new)
    made = [(f"{job_id}/{step.step_id}", step.kind) for job_id, own in new.items() for step in own]
    return Appended(
        batch_id=found.batch_id,
        trials=[name for name, kind in made if kind == "trial"],
        analyses=[name for name, kind in made if kind == "analysis"],
        started=len(pass_and_wake(ctx)),
    )


def _check(labels: list[str], jobs: list[JobSpec]) -> None:
    known = {step.label for job in jobs for step in job.steps if step.kind == "trial"}
    for label in labels:
        if label not in known:
            fix = suggestion(label, sorted(known), "there are")
            raise UserError(f"there is no agent {label!r}", fix=fix)
