"""``archive push --remove-local``: files of attempts go here once the archive has them, read and proved; ``archive pull`` brings them back."""

from parallelhassnes.actions import packs
from parallelhassnes.actions.archive.push_batch import Pushed, batch_named, push
from parallelhassnes.actions.stored.removing import carry_out
from parallelhassnes.actions.stored.retention import plan_of_archived
from parallelhassnes.config import RetentionRule
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.store.archives.object_store import ObjectStore

RULE = RetentionRule(name="remove-local", after_days=0, archived=True)
"""What the tombstones name."""


def push_and_remove(ctx: Context, text: str, store: ObjectStore) -> Pushed:
    """Push a batch that is over, then remove of its attempts what ``gc`` would remove by a rule, if the archive has all of them whole.

    Raises:
        UnknownId: there is no such batch.
        UserError: it is not over, it cannot be pushed, or an attempt is not whole there: nothing is removed.
    """
    batch_id = batch_named(ctx, text)
    if why := packs.why_not(ctx, batch_id):
        fix = "push it once it is over, or without --remove-local"
        raise UserError(f"{batch_id} {why}, and nothing of it is removed", fix=fix)
    before = push(ctx, batch_id, store)
    done = carry_out(ctx, plan_of_archived(ctx, batch_id, RULE, store))
    if done.failed:
        raise UserError(done.failed[0])
    kept = [line.removeprefix(f"{batch_id}: ") for line in done.kept]
    if not done.rules:
        return before.model_copy(update={"kept": kept})
    after = push(ctx, batch_id, store)  # the archive has to have the line that says so, too
    (use,) = done.rules
    return after.model_copy(
        update={
            "sent_attempts": before.sent_attempts + after.sent_attempts,
            "sent_bytes": before.sent_bytes + after.sent_bytes,
            "removed_attempts": use.attempts,
            "removed_bytes": use.bytes,
            "kept": kept,
        }
    )
