"""Steps like those that a job has: the trials that ``append`` adds, and what a rerun adds of what its predecessor got."""

from collections.abc import Sequence

from parallelhassnes.names import Ids, safe_id
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.store import additions, batches
from parallelhassnes.store.layout import Layout


def trials(job: JobSpec, n: int, labels: Sequence[str] | None) -> list[StepSpec]:
    """Return ``n`` trials like the newest one of each agent, with their analyses.

    Args:
        labels: only of agents whose column is one of these.
    """
    taken = Ids(step.step_id for step in job.steps)
    made: list[StepSpec] = []
    for like in _newest(job, labels):
        prefix, _, last = like.step_id.rpartition(".")
        stem, number = (prefix, int(last)) if prefix and last.isdecimal() else (like.step_id, 1)
        for repeat in range(number + 1, number + 1 + n):
            step_id = safe_id(f"{stem}.{repeat}", taken)
            made += _like(job.job_id, job.steps, like, step_id, repeat, taken)
    return made


def count(job: JobSpec, n: int, labels: Sequence[str] | None) -> int:
    """Tell how many steps ``trials`` would make."""
    likes = {like.step_id for like in _newest(job, labels)}
    analyses = sum(s.kind == "analysis" and s.spec.get("trial") in likes for s in job.steps)
    return n * (len(likes) + analyses)


def _newest(job: JobSpec, labels: Sequence[str] | None) -> list[StepSpec]:
    """Return the newest trial of each agent."""
    newest: dict[str, StepSpec] = {}
    for step in job.steps:
        if step.kind == "trial" and (labels is None or step.label in labels):
            newest[step.label] = step
    return list(newest.values())


def again(layout: Layout, jobs: Sequence[JobSpec], source: str) -> tuple[dict[str, list[list[StepSpec]]], list[str]]:
    """Tell what the jobs of a rerun get of what was added to those of the batch before; and a line for each step that is left out.

    A trial is made anew like the table's trials of its agent now are, with their analyses; an analysis that was added
    by itself stays as it was. A name that the table has taken by now stays the table's.

    Returns:
        job id → additions, in their order.
    """
    found: dict[str, list[list[StepSpec]]] = {}
    left_out: list[str] = []
    batch_dir = layout.batch(source)
    if not (batch_dir / batches.META).exists():  # it was deleted meanwhile
        return found, left_out
    new = {job.job_id: job for job in jobs}
    for job_dir in batches.job_dirs(layout, source):
        names = additions.names(job_dir)
        job = new.get(job_dir.name)
        if not names:
            continue
        old = batches.read_job(job_dir)
        steps = [] if job is None else list(job.steps)
        for name in names:
            added = additions.read(job_dir, name).steps
            made, without = _again(job_dir.name, steps, old, added)
            steps += made
            left_out += without
            if made:
                found.setdefault(job_dir.name, []).append(made)
    return found, left_out


def _again(
    job_id: str, steps: list[StepSpec], old: JobSpec, added: Sequence[StepSpec]
) -> tuple[list[StepSpec], list[str]]:
    """Return one addition."""
    taken = Ids(step.step_id for step in steps)
    came_together = {step.step_id for step in added if step.kind == "trial"}
    made: list[StepSpec] = []
    left_out: list[str] = []
    for step in added:
        if step.step_id in taken:
            continue
        if step.kind == "trial":
            agents = {s.step_id for s in old.steps if s.kind == "trial" and s.label == step.label}
            alike = [s for s in steps if s.step_id in agents and s.kind == "trial"]
            if alike:
                repeat = step.spec["repeat"]
                made += _like(job_id, steps, alike[-1], step.step_id, repeat, taken)
                continue
        elif (about := step.spec["trial"]) in taken:
            if about not in came_together:
                made.append(step)
                taken.add(step.step_id)
            continue
        left_out.append(
            f"{job_id}/{step.step_id} was added to the batch before; it is not here, since what it is about is not"
        )
    return made, left_out


def _like(
    job_id: str, steps: Sequence[StepSpec], like: StepSpec, step_id: str, repeat: int, taken: Ids
) -> list[StepSpec]:
    """Return a trial like another, and its analyses like the other's."""
    taken.add(step_id)
    made = [like.model_copy(update={"step_id": step_id, "spec": {**like.spec, "repeat": repeat}})]
    for step in steps:
        if step.kind == "analysis" and step.spec.get("trial") == like.step_id:
            name = safe_id(f"{step_id}{step.step_id.removeprefix(like.step_id)}", taken)
            taken.add(name)
            spec = {**step.spec, "trial": step_id}
            update = {"step_id": name, "depends_on": (f"{job_id}/{step_id}",), "spec": spec}
            made.append(step.model_copy(update=update))
    return made
