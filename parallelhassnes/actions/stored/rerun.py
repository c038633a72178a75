"""``rerun``: a new batch from an old one's table, with the old one's results where they are to stay.

The new batch has all jobs and steps of the table, and what was added to the old one (``schedule.additions.similar_steps``), so it is whole:
what is carried over stands in it as ended, the rest runs. Nothing of the old batch changes but a line in its ledger. The table is taken with the edits, and its
relative paths are looked for where they were looked for then.
"""

from pathlib import Path
from typing import Literal

from parallelhassnes import formatting
from parallelhassnes.actions import table_edits as editing
from parallelhassnes.actions.submit import plan_table, submit
from parallelhassnes.errors import UserError
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, batches, currents, decider
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import StepNow
from parallelhassnes.tables.parse.load import load
from parallelhassnes.views import batch_status, projection
from parallelhassnes.views.scoreboard_models import View

type What = Literal["failed", "missing", "all"]


class Rerun(View):
    """What came of it."""

    ok: bool = True
    rerun_of: str
    batch_id: str | None = None
    """The new batch; None where nothing was to be run again."""
    carried: int = 0
    """Steps taken over as they ended."""
    steps: int = 0
    """Steps that run."""
    warnings: list[str] = []


def rerun(ctx: Context, text: str, what: What, edits: list[str] | None = None) -> Rerun:
    """Make the new batch.

    Args:
        text: the batch.
        what: ``failed`` carries over what succeeded; ``missing`` whatever has ended; ``all`` nothing.
        edits: changes of the table, as ``actions.table_edits`` has them.

    Raises:
        UserError: it is no batch; it still runs, so that steps would run twice; an edit cannot be made.
        InvalidInput: the table is not valid (any more).
    """
    found = resolve(ctx.layout, text)
    if found.job_id is not None:
        raise UserError(f"{text} is a {found.what}, not a batch", fix=f"name {found.batch_id}")
    old = found.batch_id
    batch_dir = ctx.layout.batch(old)
    meta = batches.read_batch(batch_dir)
    carry = {} if what == "all" else _carried(ctx, old, what)
    if not edits and len(carry) == _size(batch_dir):
        return Rerun(rerun_of=old, carried=len(carry))
    (table,) = batch_dir.glob("launch_table.*")
    data = table.read_bytes()
    name = meta.source_name or table.name
    if edits:
        document = load(data, table.name)
        editing.apply(document, edits)
        data, name = atomic.dumps(document).encode(), f"{Path(name).stem}.json"
    folders = [Path(folder) for folder in meta.base_dirs or [meta.base_dir] if folder]
    if len(carry) == _size(batch_dir):  # nothing runs, unless the edits make more steps
        plan = plan_table(ctx, data, name=name, folders=folders)
        if all(f"{job.job_id}/{step.step_id}" in carry for job in plan.jobs for step in job.steps):
            return Rerun(rerun_of=old, carried=len(carry))
    made = submit(ctx, data, name=name, folders=folders, again=True, rerun_of=old, carry=carry)
    with decider.deciding(ctx.layout):
        ledger.append(batch_dir, "rerun", by=ledger.person(), batch_id=made.batch_id, what=what)
    new_dir = ctx.layout.batch(made.batch_id)
    carried = len(projection.load(new_dir).carried)
    return Rerun(
        rerun_of=old, batch_id=made.batch_id, carried=carried, steps=_size(new_dir) - carried, warnings=made.warnings
    )


def _size(batch_dir: Path) -> int:
    """Return the steps of a batch, with those that were added."""
    return sum(len(steps) for steps in batch_status.read_index(batch_dir).values())


def _carried(ctx: Context, batch_id: str, what: What) -> dict[str, str]:
    """Return ``job_id/step_id`` → attempt of the steps that are taken over."""
    states = [step.state for step in batch_status.read(ctx.layout, batch_id)]
    moving = states.count("running") + states.count("ready")
    if moving:
        raise UserError(
            f"{batch_id} is not over: {formatting.counted(moving, 'step')} to come, or running",
            fix="wait, or cancel it; --all runs everything again beside it",
        )
    return {
        f"{job_dir.name}/{step_id}": now.attempt
        for job_dir in batches.job_dirs(ctx.layout, batch_id)
        for step_id, now in currents.read(job_dir).steps.items()
        if _stays(now, what)
    }


def _stays(now: StepNow, what: What) -> bool:
    return now.settled and (now.status == "succeeded" or what == "missing")
