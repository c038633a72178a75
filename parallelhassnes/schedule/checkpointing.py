"""Making checkpoints by themselves: at a batch's end, once a day, and when somebody asks.

    settle: a batch has nothing queued any more ─▶ checkpoint.wanted     tick: checkpoint.lock is a day old ─▶ checkpoint.wanted
    end of a pass, without tick.lock: wanted? ─▶ checkpoint.lock ─▶ wanted removed ─▶ <number>.json ─▶ .sig ─▶ hook

A crash before the file leaves nothing but the wish, if it came before that was removed; the next day makes up for it. One after it
leaves a checkpoint without a signature, which the next one binds. The hook runs in a process of its own, since it may take as long as a network takes; what it has not taken is sent again with the next checkpoint, and ``audit verify`` says so until then.
"""

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher
from parallelhassnes.schedule import at_rest, ephemeral_secrets
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, renewed
from parallelhassnes.store import atomic, locks
from parallelhassnes.store.evidence import checkpoints, ledger, signatures
from parallelhassnes.store.evidence.checkpoints import SIGNATURE
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text

_LOG = "checkpoints.log"


class MadeCheckpoint(NamedTuple):
    """A checkpoint that was made."""

    path: Path
    signed: bool


def want_daily(ctx: Context) -> None:
    """Wish for a checkpoint where nobody has made one, or found nothing new for one, for a day; costs a look."""
    if at_rest.checkpoint_is_due(ctx.layout):
        ctx.layout.checkpoint_wanted.touch()


def keep(ctx: Context) -> None:
    """Make the checkpoint that is wished for, unless somebody else is at it; what fails is in ``checkpoints.log``."""
    if not ctx.layout.checkpoint_wanted.exists():
        return
    lock = locks.hold(ctx.layout.checkpoint_lock)
    if lock is None:
        return
    try:
        ctx.layout.checkpoint_wanted.unlink(missing_ok=True)
        ctx = renewed(ctx)
        made = _make(ctx, full=False)
    except (UserError, OSError) as error:
        _say(ctx.layout, str(error))
        return
    finally:
        locks.release(lock)
    if made is not None and ctx.config.audit.hook:
        _send_beside(ctx)


def make(ctx: Context, *, full: bool = False) -> MadeCheckpoint | None:
    """Make a checkpoint now; None where nothing has come since the last one.

    Args:
        full: with every batch, so that it can be compared without those before.

    Raises:
        UserError: it cannot be signed; it is there all the same.
    """
    with locks.held(ctx.layout.checkpoint_lock):
        return _make(ctx, full=full)


def _make(ctx: Context, *, full: bool) -> MadeCheckpoint | None:
    path = checkpoints.write(ctx.layout, by=ledger.person(), full=full)
    os.utime(ctx.layout.checkpoint_lock)  # the next look is a day from now, also where nothing is new
    if path is None:
        return None
    if ctx.config.audit.key is not None:
        signatures.sign(path, ctx.layout.root / Path(ctx.config.audit.key).expanduser())
        atomic.sync_dir(path.parent)
    return MadeCheckpoint(path, signatures.is_signed(path))


def send(ctx: Context) -> str:
    """Have the hook take every checkpoint that it has not taken, oldest first; return what is wrong, empty where all is well.

    Raises:
        StoreBusy: another process has been sending for longer than a hook may take.
    """
    with locks.held(_sending_lock(ctx.layout), ctx.config.audit.hook_timeout_sec + locks.PATIENCE_SEC):
        return _send_all(ctx)


def send_unless_sent(ctx: Context) -> None:
    """Send what there is; who is at it already sees, after its own, to what came meanwhile."""
    trouble = ""
    while not trouble and checkpoints.unsent(ctx.layout):
        lock = locks.hold(_sending_lock(ctx.layout))
        if lock is None:
            return
        try:
            trouble = _send_all(ctx)
        finally:
            locks.release(lock)


def _sending_lock(layout: Layout) -> Path:
    return layout.system / "checkpoint.sending.lock"


def _send_all(ctx: Context) -> str:
    for number in checkpoints.unsent(ctx.layout):
        path = checkpoints.place(ctx.layout, number)
        beside = path.with_name(path.name + SIGNATURE)
        files = [str(path), *([str(beside)] if beside.exists() else [])]
        try:
            done = subprocess.run(
                [*ctx.config.audit.hook, *files],
                cwd=ctx.layout.root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ctx.config.audit.hook_timeout_sec,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return _failed(ctx.layout, number, str(error))
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            line = f"audit.hook ended with {done.returncode}: {said[-1] if said else ''}"
            return _failed(ctx.layout, number, line)
        checkpoints.note_sent(ctx.layout, number)
    return ""


def _failed(layout: Layout, number: int, line: str) -> str:
    said = f"checkpoint {number} was not sent: {line}"
    _say(layout, said)
    return said


def _say(layout: Layout, line: str) -> None:
    with (layout.system / _LOG).open("a", encoding="utf-8") as stream:
        stream.write(f"{now_text()} {line}\n")


def _send_beside(ctx: Context) -> None:
    """Send in a process of its own."""
    root, log = ctx.layout.root, ctx.layout.system / _LOG
    sends = partial(_send_without_secrets, ctx)
    launcher.start_beside(sends, ENTRY_POINTS, "send_checkpoints", str(root), log=log, cwd=root)


def _send_without_secrets(ctx: Context) -> None:
    ephemeral_secrets.keep_only(())
    send_unless_sent(ctx)
