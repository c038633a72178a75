"""Asking the other hosts of a root what each sees of what the other does, and joining them by it."""

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import names
from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher
from parallelhassnes.formatting import counted
from parallelhassnes.schedule.context import ENTRY_POINTS, Context
from parallelhassnes.schedule.joining import host_facts, probe_files
from parallelhassnes.schedule.joining.answer_probe import answer_open_probes
from parallelhassnes.schedule.joining.host_facts import Side
from parallelhassnes.schedule.joining.measured import (
    MOST_CACHE_SEC,
    Measured,
    check_own,
    join_by,
    keep,
    may_join,
    refusal,
    rounded_up,
)
from parallelhassnes.schedule.joining.probe_files import ALL_SEC, KINDS, ROUNDS, Ask, Silent, Talk, Won
from parallelhassnes.store import atomic, hosts, locks, members
from parallelhassnes.store.records import dump, now_text

PATIENCE_SEC = 50.0
"""For so long somebody may take to answer."""
_MORE_SEC = 1.0
"""For so long after a conversation others are waited for, and those that have joined for longer."""
_MEMBERS_SEC = 10.0
_ANSWERING_SEC = 10.0
"""For so long this host answers at least while it asks."""
_JOINED_SEC = 5.0
_FREED_SEC = 5.0
"""Within this time a lock must be free whose holder was killed."""
_LOG = "joining.log"


class Probed(NamedTuple):
    """What one probe has found."""

    me: Side
    found: list[Measured]
    silent: list[str]
    """Runners that have joined, and did not answer."""
    member: hosts.Member | None
    """As what this host has joined; None where it has not."""


def join(ctx: Context, *, answers: bool = True) -> hosts.Member:
    """Be one of the hosts of this root: at once where this one is, else by a probe that one other answers.

    Args:
        answers: other hosts' probes are answered meanwhile, and a little longer; not by a process whose end takes with it all that it
            has started, for whom it has begun to answer would wait in vain.

    Raises:
        UserError: it cannot, or nobody answers; what to do.
    """
    check_own(ctx)
    known = hosts.member(ctx.layout, hosts.own_name())
    if known is not None and hosts.is_current(ctx.layout, known):
        return known
    same = next((each for each in hosts.members_of(ctx.layout).values() if hosts.is_current(ctx.layout, each)), None)
    if same is not None:  # another runner of this very host has shown it
        made = same.model_copy(update={"name": hosts.own_name(), "joined_at": now_text()})
        hosts.join(ctx.layout, made)
        return made
    probed = ask(ctx, one=True, answers=answers)
    if probed.member is not None:
        return probed.member
    why = probed.found[0].why if probed.found else ""
    raise UserError(
        f"{ctx.layout.root} cannot be shared with {probed.found[0].host.name}: {why}"
        if why
        else f"no host that works on {ctx.layout.root} has answered for {PATIENCE_SEC:g} s",
        fix=f"run `parallelhassnes doctor --hosts --root {ctx.layout.root}` here and there at the same time",
    )


def join_in_background(ctx: Context) -> None:
    """Have a process of its own join again, unless one is at it."""
    place = ctx.layout.hosts / f".joining.{hosts.machine().boot_id}"
    if locks.is_held(place):
        return
    root, log = ctx.layout.root, ctx.layout.system / _LOG
    launcher.start_beside(partial(join_alone, ctx), ENTRY_POINTS, "join", str(root), log=log, cwd=root)


def join_alone(ctx: Context) -> None:
    """Join, as the one process of this host that does."""
    lock = locks.hold(ctx.layout.hosts / f".joining.{hosts.machine().boot_id}")
    if lock is None:
        return
    try:
        join(ctx)
    finally:
        locks.release(lock)


def ask(ctx: Context, *, one: bool, answers: bool = True) -> Probed:
    """Ask the other hosts, answer them meanwhile, and join by what was found where it allows that.

    Args:
        one: one answer is enough.
        answers: as ``join`` has it.

    Raises:
        UserError: this host cannot join, whatever the files do.
    """
    check_own(ctx)
    begun = time.monotonic()
    if answers:
        answer_open_probes(ctx, linger_sec=_ANSWERING_SEC)
    me = host_facts.of_this_host(ctx)
    folder = probe_files.probes(ctx.layout) / names.new_run_id()
    folder.mkdir(parents=True)
    found: list[Measured] = []
    try:
        asked = Ask(boot_id=me.boot_id, name=me.name, one=one)
        atomic.write_json(folder / "ask.json", dump(asked), durable=False)
        _meet(ctx, me, folder, begun, found, one=one)
    finally:
        probe_files.put_away(folder)
    good = _joined(ctx, [each for each in found if not each.why])
    member = join_by(ctx, me, good) if good else None
    keep(ctx, me.name, found)
    answered = {each.host.name for each in found}
    return Probed(me, found, sorted(hosts.members_of(ctx.layout).keys() - answered - {me.name}), member)


def _joined(ctx: Context, good: list[Measured]) -> list[Measured]:
    """Choose those by which this host may join; several that join a fresh root at once wait for the first of them."""
    end = time.monotonic() + _JOINED_SEC
    while good and time.monotonic() < end:
        found = [each for each in good if may_join(ctx, each.host)]
        if found:
            return found
        time.sleep(0.05)
    return []


def _meet(ctx: Context, me: Side, folder: Path, begun: float, found: list[Measured], *, one: bool) -> None:
    """Converse with each host that answers, with several at once."""
    met: set[str] = set()
    busy: list[threading.Thread] = []
    last = begun
    others = hosts.members_of(ctx.layout).keys() - {me.name}
    while True:
        scratch = folder / ".look"
        scratch.mkdir(exist_ok=True)
        scratch.rmdir()
        for name in members.names(folder):
            if name not in met and (folder / name).is_dir():
                met.add(name)
                busy.append(threading.Thread(target=_converse, args=(ctx, me, folder / name, begun, found)))
                busy[-1].start()
        now = time.monotonic()
        if busy:
            last = now
        busy = [each for each in busy if each.is_alive()]
        if not busy:
            more = _MORE_SEC if others <= {each.host.name for each in found} else _MEMBERS_SEC
            if (found and (one or now - last > more)) or now - begun > PATIENCE_SEC:
                return
        time.sleep(0.05)


def _converse(ctx: Context, me: Side, place: Path, begun: float, found: list[Measured]) -> None:
    end = min(begun + ALL_SEC - 1, time.monotonic() + probe_files.CONVERSATION_SEC)
    talk = Talk(place, "a", end)
    try:
        other = Side.model_validate(talk.hear(0))
    except (Silent, OSError, ValueError, atomic.CorruptFile):  # it has died, or is of another version
        return
    try:
        found.append(_say_all(ctx, me, other, talk))
    except (Silent, OSError, ValueError, atomic.CorruptFile) as error:
        found.append(Measured(at=now_text(), host=other, why=f"they have not come to an end ({error})"))


def _say_all(ctx: Context, me: Side, other: Side, talk: Talk) -> Measured:
    probe_files.prepare_races(talk.folder)
    talk.prepare()
    held = _lock_or_none(talk.folder / "lock.a")
    try:
        talk.say(1, dump(me))
        if why := refusal(me, other):
            return Measured(at=now_text(), host=other, why=why)
        talk.hear(1)
        seen, skew, within = _rounds(talk)
        talk.say(2, {})
        mine = probe_files.race(talk)
        said = talk.hear(2)
        links, renames = probe_files.judge_races(talk, mine, Won.model_validate(said["won"]))
        torn = talk.torn + int(said["torn"])
        kept_out = _lock_or_none(talk.folder / "lock.b")
        talk.say(3, {})
        locked, text, freed = _locks(talk, kept_out, held is not None and bool(said["kept_out"]))
    finally:
        if held is not None:
            os.close(held)
    late = [KINDS[kind].text for kind in KINDS if kind not in seen]
    outcome = Measured(
        at=now_text(),
        host=me,
        links=links,
        renames=renames
        or (f"a file that is replaced was missing, or not whole, {counted(torn, 'time')}" if torn else ""),
        locks_cross=locked,
        locks=text,
        freed_sec=freed,
        seen_sec={kind: round(sec, 3) for kind, sec in seen.items()},
        cache_sec=min(MOST_CACHE_SEC, rounded_up(max(seen.values(), default=0.0))),
        skew_sec=skew,
        skew_within_sec=within,
    )
    why = (
        (links and f"link() is not atomic here: {links}")
        or (outcome.renames and f"rename() is not atomic here: {outcome.renames}")
        or (late and f"not seen by the other host in time: {', '.join(late)}")
        or ""
    )
    outcome = outcome.model_copy(update={"why": why})
    if not why and host_facts.is_inside(ctx):  # first: the other may not be left as the only one that has joined
        join_by(ctx, me, [outcome.model_copy(update={"host": other})])
        outcome = outcome.model_copy(update={"host": me.model_copy(update={"inside": True})})
    talk.say(4, dump(outcome))
    joined = bool(talk.hear(3)["joined"])
    return outcome.model_copy(update={"host": other.model_copy(update={"inside": other.inside or joined})})


def _rounds(talk: Talk) -> tuple[dict[str, float], float | None, float | None]:
    """Longest round trip of each kind that has come back, how far the other's clock is ahead, and how far off that may be."""
    seen: dict[str, float] = {}
    skew = within = None
    begun = time.monotonic()
    left = max(5.0, talk.end - begun - 5.0)
    for number in range(1, ROUNDS + 1):
        waiting = list(KINDS)
        for kind in waiting:
            talk.sees(kind, number)
        time.sleep(0.03)
        wall, at = time.time(), time.monotonic()
        for kind in waiting:
            talk.act(kind, number)
        while waiting and time.monotonic() - begun < left:
            for kind in tuple(waiting):
                if not talk.sees(kind, number):
                    continue
                waiting.remove(kind)
                trip = time.monotonic() - at
                seen[kind] = max(trip, seen.get(kind, 0.0))
                said = talk.time_said(number) if kind == "opened" else None
                if said is not None and (within is None or trip / 2 < within):
                    skew, within = round(said - wall - trip / 2, 3), round(trip / 2, 3)
            time.sleep(probe_files.LOOK_SEC)
        for kind in waiting:  # not once: in the next round nothing could be told of it
            seen.pop(kind, None)
        if waiting or time.monotonic() - begun > probe_files.ROUNDS_SEC:
            break
    return seen, skew, within


def _lock_or_none(path: Path) -> int | None:
    """Give the locked descriptor; None where somebody else has it, or it cannot be had."""
    try:
        return locks.claim(path)
    except OSError:
        return None


def _locks(talk: Talk, mine: int | None, kept_out: bool) -> tuple[bool, str, float | None]:
    """Tell whether locks reach from host to host, in words, and when a dead host's process has let go."""
    if mine is not None:
        os.close(mine)
        return False, "a lock that one host holds is given to the other, too", None
    if not kept_out:
        return False, "a lock that this host holds is given to the other, too", None
    begun = time.monotonic()
    while time.monotonic() - begun < _FREED_SEC:
        handle = _lock_or_none(talk.folder / "lock.b")
        if handle is not None:
            os.close(handle)
            freed = round(time.monotonic() - begun, 3)
            return True, "a lock that one host holds keeps the other out, and is freed by its holder's death", freed
        time.sleep(probe_files.LOOK_SEC)
    return False, f"a lock whose holder was killed is still held after {_FREED_SEC:g} s", None
