"""``audit checkpoint``: make one now, sign it, send it."""

from pydantic import BaseModel

from parallelhassnes.schedule import checkpointing
from parallelhassnes.schedule.context import Context
from parallelhassnes.store.evidence import checkpoints, signatures


class Checkpointed(BaseModel):
    """The newest checkpoint."""

    ok: bool = True
    """False where it could not be sent."""
    number: int
    path: str
    """Relative to the root."""
    sha256: str
    batches: int
    """Of which it knows something new."""
    new: bool
    """False where nothing had come since the one before, which this is."""
    signed: bool
    sent: bool
    """Whether the hook and the address have got it; False where there is neither."""
    line: str


def checkpoint(ctx: Context, *, full: bool = False) -> Checkpointed:
    """Make a checkpoint of the store now; the newest one where nothing is new.

    Raises:
        UserError: it cannot be signed.
    """
    made = checkpointing.make(ctx, full=full)
    number = checkpoints.numbers(ctx.layout)[-1]
    path = checkpoints.place(ctx.layout, number)
    audit = ctx.config.audit
    trouble = checkpointing.send(ctx) if checkpointing.is_sent(audit) else ""
    sent = checkpointing.is_sent(audit) and number not in checkpointing.unsent(ctx.layout, audit)
    signed, digest = signatures.is_signed(path), checkpoints.digest(path)
    said = [f"checkpoint {number}", "signed" if signed else "not signed"]
    said += ["sent"] if sent else [trouble] if trouble else []
    said += [] if made else ["nothing is new since"]
    return Checkpointed(
        ok=not trouble,
        number=number,
        path=str(path.relative_to(ctx.layout.root)),
        sha256=digest,
        batches=len(checkpoints.read(path).batches),
        new=made is not None,
        signed=signed,
        sent=sent,
        line=f"{path.relative_to(ctx.layout.root)} sha256:{digest} ({', '.join(said)})",
    )
