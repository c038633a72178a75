"""Removing the Docker images that the trials of finished jobs shared."""

from pathlib import Path

from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.rules.step_state import dependency, known
from parallelhassnes.store import batches, currents, members


def remove_unneeded(ctx: Context) -> list[str]:
    """Remove the images that no running, ready or waiting trial needs; their tags. Costs a look where there were never any."""
    if not members.is_there(ctx.layout.images):
        return []
    from parallelhassnes.steps.trial import image

    return image.remove_unneeded(ctx.layout.runs, lambda batch_id, job_id: _is_over(ctx, batch_id, job_id))


def needed(ctx: Context) -> set[str]:
    """Tags of the images that a trial of this store runs on or may still start from."""
    from parallelhassnes.steps.trial import image

    return {
        record.tag
        for _, record in image.records(ctx.layout.runs)
        if any(not _is_over(ctx, *job.split("/", 1)) for job in record.jobs)
    }


def _is_over(ctx: Context, batch_id: str, job_id: str) -> bool:
    """Tell whether no trial of the job runs or may still start; a batch that is reopened has its images built again."""
    job_dir = ctx.layout.job(batch_id, job_id)
    if not members.is_there(job_dir.parent):  # somebody deleted the batch
        return True
    with members.apart(job_dir):  # it may go on once the file is whole again
        return _has_none_open(job_dir)
    return False


def _has_none_open(job_dir: Path) -> bool:
    job = batches.read_job(job_dir)
    control = batches.read_control(job_dir.parent)
    current, overrides = currents.read(job_dir), batches.read_overrides(job_dir)
    never = control.canceled or control.closed is not None
    return not any(
        dependency(
            known(
                current.steps.get(step.step_id),
                called_off=never or step.step_id in overrides.canceled,
                dead=step.step_id in current.dead,
            )
        )
        == "open"
        for step in reversed(job.steps)  # the last ones are the last to end
        if step.kind == "trial"
    )
