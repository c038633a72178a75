"""Answering other hosts' probes: what a host that works on the root does beside its work, in a process of its own."""

import os
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher, logs, processes
from parallelhassnes.schedule.context import ENTRY_POINTS, Context
from parallelhassnes.schedule.joining import host_facts, probe_files
from parallelhassnes.schedule.joining.host_facts import Side
from parallelhassnes.schedule.joining.measured import Measured, join_by, keep, may_join, refusal
from parallelhassnes.schedule.joining.probe_files import KINDS, Ask, Silent, Talk
from parallelhassnes.store import atomic, hosts, locks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump

AT_ONCE = 4
"""Conversations that a host has at a time; others wait, or are answered by another host."""
LINGER_SEC = 2.0
"""For so long it looks for further probes."""
_LOOK_SEC = 0.1
_LOG = "joining.log"


def answer_open_probes(ctx: Context, linger_sec: float = LINGER_SEC) -> None:
    """Have a detached process answer what other hosts ask, where they ask; quick where nobody does.

    Args:
        linger_sec: for so long it looks for further ones; where that is longer than usual, it is started in any case.
    """
    if linger_sec <= LINGER_SEC and not _open(ctx.layout):
        return
    root, log = ctx.layout.root, ctx.layout.system / _LOG
    answers = partial(answer, ctx, linger_sec)
    launcher.start_beside(answers, ENTRY_POINTS, "answer", str(root), str(linger_sec), log=log, cwd=root)


def answer(ctx: Context, linger_sec: float) -> None:
    """Answer probes until none has been open for a while; nothing where another process of this host is at it."""
    folder = probe_files.probes(ctx.layout)
    folder.mkdir(parents=True, exist_ok=True)
    lock = locks.hold(folder / f".answering.{hosts.machine().boot_id}")
    if lock is None:
        return
    processes.set_title(f"answers other hosts of {ctx.layout.root}")
    busy: list[threading.Thread] = []
    try:
        me: Side | None = None
        end = time.monotonic() + linger_sec
        last = end + probe_files.ALL_SEC
        while busy or time.monotonic() < end:
            for asked in _open(ctx.layout)[: AT_ONCE - len(busy)]:
                me = me or host_facts.of_this_host(ctx)
                place = _claim(ctx, asked)
                if place is not None:
                    busy.append(threading.Thread(target=_converse, args=(ctx, me, place)))
                    busy[-1].start()
            if busy or (time.monotonic() < last and _has_own(ctx.layout)):
                end = max(end, time.monotonic() + LINGER_SEC)
            busy = [each for each in busy if each.is_alive()]
            time.sleep(_LOOK_SEC)
    finally:
        locks.release(lock)


def _open(layout: Layout) -> list[Path]:
    """Probes of other hosts that this one has not answered."""
    found = []
    for nonce in members.names(probe_files.probes(layout)):
        folder = probe_files.probes(layout) / nonce
        ask = _asked(folder)
        if ask is None or ask.boot_id == hosts.machine().boot_id or (folder / _own_folder(layout)).exists():
            continue
        if not (ask.one and (folder / "answered").exists()):
            found.append(folder)
    return found


def _has_own(layout: Layout) -> bool:
    """Tell whether this host asks, so that others are likely to ask it."""
    folders = [probe_files.probes(layout) / nonce for nonce in members.names(probe_files.probes(layout))]
    return any(ask.boot_id == hosts.machine().boot_id for ask in map(_asked, folders) if ask is not None)


def _asked(folder: Path) -> Ask | None:
    try:
        return atomic.read_record(Ask, folder / "ask.json")
    except (OSError, atomic.CorruptFile):
        return None


def _own_folder(layout: Layout) -> str:
    """Give the name of this host's folder in a probe."""
    return f"{layout.runner or hosts.own_name()}-{hosts.machine().boot_id[:8]}"


def _claim(ctx: Context, folder: Path) -> Path | None:
    """Give the folder of this host's conversation; None where another host's answer is the one."""
    place = folder / _own_folder(ctx.layout)
    try:
        ask = _asked(folder)
        if ask is None:
            return None
        if ask.one:
            atomic.claim(folder / "answered", place.name.encode())
            if atomic.read_bytes(folder / "answered") != place.name.encode():
                return None
        place.mkdir()
    except OSError:  # the probe is over, or another process was faster
        return None
    return place


def _converse(ctx: Context, me: Side, place: Path) -> None:
    talk = Talk(place, "b", time.monotonic() + probe_files.CONVERSATION_SEC)
    try:
        _say_all(ctx, me, talk)
    except Silent as silence:
        logs.say(f"a probe of another host was given up: {silence}")
    except (OSError, UserError, atomic.CorruptFile) as error:  # the asking host has removed it, as a rule
        logs.say(f"a probe of another host was given up: {error}")
    if not (place.parent / "ask.json").exists():
        probe_files.put_away(place.parent)


def _say_all(ctx: Context, me: Side, talk: Talk) -> None:
    talk.prepare()
    talk.say(0, dump(me))
    other = Side.model_validate(talk.hear(1))
    if refusal(me, other):
        return
    _follow(talk)
    won = probe_files.race(talk)
    excluded = _is_kept_out(talk.folder / "lock.a")
    holder = _locked_by_another(talk.folder / "lock.b")
    try:
        talk.say(2, {"won": dump(won), "torn": talk.torn, "kept_out": excluded})
        talk.hear(3)
    finally:
        if holder is not None:
            holder.kill()
            holder.wait()
    outcome = Measured.model_validate(talk.hear(4))
    found = outcome.model_copy(
        update={"host": outcome.host, "skew_sec": None if outcome.skew_sec is None else -outcome.skew_sec}
    )
    joined = not found.why and may_join(ctx, found.host)
    if joined:
        join_by(ctx, me, [found])
    keep(ctx, me.name, [found])
    talk.say(3, {"joined": joined})


def _follow(talk: Talk) -> None:
    """Do what the other does as soon as it is seen, round by round, until it says that there are no more."""
    number, waiting = 1, list(KINDS)
    for kind in waiting:
        talk.sees(kind, number)
    talk.say(1, {"at": time.time()})
    while talk.heard(2) is None:
        for kind in tuple(waiting):
            if talk.sees(kind, number):
                talk.act(kind, number)
                waiting.remove(kind)
        if not waiting and number < probe_files.ROUNDS:
            number, waiting = number + 1, list(KINDS)
        talk.pause("it has stopped asking, or what it does is not seen here")


def _is_kept_out(path: Path) -> bool:
    """Tell whether a lock that the other holds is not given."""
    try:
        handle = locks.claim(path)
    except OSError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None


def _locked_by_another(path: Path) -> "subprocess.Popen[bytes] | None":
    """Start a process of this host that holds the lock and can be killed; None where it is not given."""
    try:
        handle = locks.claim(path)
    except OSError:
        return None
    if handle is None:
        return None
    try:
        return subprocess.Popen(["sleep", str(int(probe_files.ALL_SEC))], pass_fds=(handle,), stdin=subprocess.DEVNULL)
    finally:
        os.close(handle)
