"""Making checkpoints by themselves: at a batch's end, once a day, and when somebody asks.

    settle: a batch has nothing queued any more ─▶ checkpoint.wanted     tick: checkpoint.lock is a day old ─▶ checkpoint.wanted
    end of a pass, without tick.lock: wanted? ─▶ checkpoint.lock ─▶ wanted removed ─▶ <number>.json ─▶ .sig ─▶ hook

A crash before the file leaves nothing but the wish, if it came before that was removed; the next day makes up for it. One after it
leaves a checkpoint without a signature, which the next one binds. The hook runs, and ``send_to`` is written to, in a process of its own, since
either may take as long as a network takes; what was not taken is sent again with the next checkpoint, and ``audit verify`` says so until then.
"""

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.config import AuditConfig
from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher
from parallelhassnes.schedule import at_rest, ephemeral_secrets
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, renewed
from parallelhassnes.schedule.process import senders
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
    if made is not None and is_sent(ctx.config.audit):
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


def is_sent(audit: AuditConfig) -> bool:
    """Tell whether checkpoints are to go elsewhere."""
    return bool(audit.hook or audit.send_to)


def unsent(layout: Layout, audit: AuditConfig) -> dict[int, str]:
    """Return the numbers that are still to go elsewhere, with who lacks each."""
    left = dict.fromkeys(checkpoints.unsent(layout, audit.send_to), f"{audit.send_to}") if audit.send_to else {}
    for number in checkpoints.unsent(layout) if audit.hook else ():
        left[number] = " and ".join(filter(None, ["the hook", left.get(number)]))
    return left


def send(ctx: Context) -> str:
    """Send every checkpoint to whoever lacks it, oldest first; return what is wrong, empty where all is well.

    Raises:
        StoreBusy: another process has been sending for longer than a hook may take.
    """
    with locks.held(_sending_lock(ctx.layout), ctx.config.audit.hook_timeout_sec + locks.PATIENCE_SEC):
        return _send_all(ctx)


def send_unless_sent(ctx: Context) -> None:
    """Send what there is; who is at it already sees, after its own, to what came meanwhile."""
    trouble = ""
    while not trouble and unsent(ctx.layout, ctx.config.audit):
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
    """Send to the address, then to the hook: one that takes nothing keeps nothing from the other."""
    return "; ".join(filter(None, [_write_all(ctx), _hand_all(ctx)]))


def _write_all(ctx: Context) -> str:
    """Write what the address lacks: the signature, then the checkpoint."""
    from parallelhassnes.store.archives.object_store import open_store  # a tick without an address does not need it

    to = ctx.config.audit.send_to
    left = checkpoints.unsent(ctx.layout, to) if to else []
    if not to or not left:
        return ""
    try:
        there = open_store(to, ctx.secrets(), at=ctx.layout.root, timeout_sec=ctx.config.archive_timeout_sec)
        for number in left:
            path, key = checkpoints.place(ctx.layout, number), checkpoints.key(ctx.layout, number)
            if signatures.is_signed(path):
                there.create(f"{key}{SIGNATURE}", path.with_name(path.name + SIGNATURE).read_bytes())
            there.create(key, path.read_bytes())
            checkpoints.note_sent(ctx.layout, number, to)
    except (UserError, OSError) as error:
        return _failed(ctx.layout, min(checkpoints.unsent(ctx.layout, to)), str(error))
    return ""


def _hand_all(ctx: Context) -> str:
    for number in checkpoints.unsent(ctx.layout) if ctx.config.audit.hook else ():
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
    launcher.start_beside(partial(_send, ctx), ENTRY_POINTS, "send_checkpoints", str(root), log=log, cwd=root)


def _send(ctx: Context) -> None:
    if ctx.config.audit.send_to:
        senders.become(_sending_lock(ctx.layout), ENTRY_POINTS, "send_checkpoints", str(ctx.layout.root))
    else:
        ephemeral_secrets.keep_only(())
        send_unless_sent(ctx)
