"""``doctor --hosts``: what each host of a root sees of what the others do, and ``doctor --alone``: forgetting hosts that are gone.

The probe itself, and its files, are in ``schedule/joining``.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from parallelhassnes import walk
from parallelhassnes.admin.doctor import Check
from parallelhassnes.errors import UserError
from parallelhassnes.schedule import reboot
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining.answer_probe import answer_open_probes
from parallelhassnes.schedule.joining.ask_probe import ask, join
from parallelhassnes.schedule.joining.host_facts import Side
from parallelhassnes.schedule.joining.measured import Measured
from parallelhassnes.schedule.joining.probe_files import KINDS, RACES
from parallelhassnes.store import atomic, attempts, clocks, hosts, members
from parallelhassnes.store.queue import tickets
from parallelhassnes.views.host_lines import SKEW_SEC
from parallelhassnes.views.scoreboard_models import View

__all__ = ["answer_open_probes", "forget_others", "join", "probe"]

SLOW_SEC = 5.0
"""Files that are seen later than that are told: a freed slot waits for so long."""
_TICKED_SEC = 180.0
_WATCHED_BEATS = 2.5


class OtherHost(View):
    """One other host, and what was found out with it."""

    name: str
    host: str
    checks: list[Check]


class HostsProbe(View):
    """What ``doctor --hosts`` has found."""

    ok: bool
    root: str
    runner: str
    """The name of this host."""
    joined: bool
    """Whether it is one of the root's hosts now."""
    locks_cross: bool | None = None
    cache_sec: float | None = None
    hosts: list[OtherHost]
    trouble: list[str]


def probe(ctx: Context) -> HostsProbe:
    """Ask every other host, answer them meanwhile, and join them where it may be; takes a minute at most.

    Raises:
        UserError: this host cannot join, whatever the others say.
    """
    probed = ask(ctx, one=False)
    trouble = [f"{each.host.name}: {each.why}" for each in probed.found if each.why]
    if not probed.found:
        trouble.append(
            "no other host has answered; run the same command there at the same time, or tick the root there"
        )
    elif probed.member is None and not trouble:
        trouble.append(
            "none of the hosts that answered works on this root yet, and another one does; run the same command there too"
        )
    others = [
        OtherHost(name=each.host.name, host=each.host.host, checks=list(_checks(probed.me, each)))
        for each in probed.found
    ]
    others += [
        OtherHost(
            name=name, host="", checks=[Check(name="answer", state="note", text="has joined, and did not answer now")]
        )
        for name in probed.silent
    ]
    return HostsProbe(
        ok=not trouble,
        root=str(ctx.layout.root),
        runner=probed.me.name,
        joined=probed.member is not None,
        locks_cross=probed.member.locks_cross if probed.member else None,
        cache_sec=probed.member.cache_sec if probed.member else None,
        hosts=others,
        trouble=trouble,
    )


def _checks(me: Side, found: Measured) -> Iterator[Check]:
    other = found.host
    if found.why:
        yield Check(name="together", state="trouble", text=found.why)
    if found.seen_sec:
        yield from _files(found)
    yield from _difference(
        "path", me.root, other.root, "the same path", "paths outside of the root must be the same on both"
    )
    yield from _difference("version", me.version, other.version, f"both {me.version}", "upgrade the older one soon")
    if me.config_sha256 != other.config_sha256:
        text = "the two read different configurations; wait until both see the file as it is now"
        yield Check(name="config", state="note", text=text)
    else:
        yield Check(name="config", state="ok", text="the same")
    yield from _difference("uid", str(me.uid), str(other.uid), f"both {me.uid}", "run both as one user")
    secrets = (
        f"has no value for {', '.join(other.missing)}; set them there" if other.missing else ", ".join(other.secrets)
    )
    yield Check(name="secrets", state="note" if other.missing else "ok", text=secrets or "none named")
    has = [name for name in ("docker", "podman", "apptainer") if getattr(other, name)]
    yield Check(
        name="trials",
        state="ok" if other.sandbox or has else "note",
        text=", ".join([f"sandbox by {other.sandbox}" if other.sandbox else "no user namespaces", *has]),
    )


def _difference(name: str, here: str, there: str, same: str, advice: str) -> Iterator[Check]:
    if here == there:
        yield Check(name=name, state="ok", text=same)
    else:
        yield Check(name=name, state="note", text=f"{here} here, {there} there; {advice}")


def _files(found: Measured) -> Iterator[Check]:
    once = f"{RACES} names, each with one winner"
    yield Check(name="link", state="trouble" if found.links else "ok", text=found.links or once)
    yield Check(name="rename", state="trouble" if found.renames else "ok", text=found.renames or once)
    if found.locks_cross:
        yield Check(name="locks", state="ok", text=found.locks)
    else:
        text = f"{found.locks}: operators' commands work on the host that decides, and on no other"
        yield Check(name="locks", state="note", text=text)
    times = ", ".join(f"{KINDS[kind].text} {sec:.2f} s" for kind, sec in found.seen_sec.items() if kind in KINDS)
    slow = found.cache_sec > SLOW_SEC
    advice = f"; mount it with shorter caches: a freed slot waits up to {found.cache_sec:g} s" if slow else ""
    yield Check(name="seen", state="note" if slow else "ok", text=f"there and back: {times}{advice}")
    if found.skew_sec is not None:
        far = abs(found.skew_sec) > SKEW_SEC
        text = f"{abs(found.skew_sec):.2f} s {'ahead' if found.skew_sec > 0 else 'behind'} (±{found.skew_within_sec:.2f} s)"
        yield Check(name="clock", state="note" if far else "ok", text=f"{text}; set the clocks" if far else text)


# --- alone --------------------------------------------------------------------------------------------


def forget_others(ctx: Context) -> list[str]:
    """Have this host be the only one of the root; the names of those that were forgotten.

    Raises:
        UserError: another one still works on it.
    """
    layout = ctx.layout
    shared = hosts.is_shared(layout)
    others = [name for name in members.names(layout.runners) if _is_others(layout.runners / name)]
    before = {name: _signs(layout.runners / name) for name in others}
    live = _beats(ctx)
    if others:
        time.sleep(_WATCHED_BEATS * ctx.config.heartbeat_sec if live or shared else 0.0)
    for name in others:
        if _is_recent(layout.runners / name) or _signs(layout.runners / name) != before[name]:
            raise UserError(
                f"{name} has ticked {layout.root} within the last {_TICKED_SEC:g} s, so it is not gone",
                fix="stop it there, or have both join by `parallelhassnes doctor --hosts`; else wait, and try again",
            )
    if others and _beats(ctx) != live:
        raise UserError(
            f"attempts of another host go on in {layout.root}",
            fix="end them there, or wait for their end, and try again",
        )
    for name in members.names(layout.runners) if shared else others:
        for kept in (hosts.MEMBER, hosts.BEAT):
            (layout.runners / name / kept).unlink(missing_ok=True)
    if shared:
        walk.remove_tree(layout.hosts)
    for name in others:
        (layout.runners / name / hosts.NOTE).unlink(missing_ok=True)
    reboot.take_over(ctx)
    return others


def _is_others(folder: Path) -> bool:
    """Tell whether a runner is another host's, by its record or its note."""
    try:
        said = hosts.read_note(folder / hosts.NOTE)
    except OSError:
        return (folder / hosts.MEMBER).exists()
    return not hosts.is_same_machine(*said)


def _beats(ctx: Context) -> dict[str, int]:
    """Attempt → the counter of its heartbeat, of all that are said to run."""
    found = {}
    for entry in tickets.running(ctx.layout):
        with members.apart(entry.path, lambda _: None):
            ticket = tickets.read(entry.path)
            ref = attempts.newest(ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id))
            if ref is not None:
                found[ref.name] = attempts.read_state(ref.dir).heartbeat.count
    return found


def _signs(folder: Path) -> tuple[bytes, ...]:
    found = []
    for kept in ("health.json", hosts.BEAT):
        try:
            found.append(atomic.read_bytes(folder / kept))
        except (OSError, atomic.CorruptFile):
            found.append(b"")
    return tuple(found)


def _is_recent(folder: Path) -> bool:
    """Tell whether it has given a sign of life of late. Both times are those of the file system's clock."""
    fresh = atomic.temp_path(folder)
    fresh.touch()
    now = fresh.stat().st_mtime
    fresh.unlink(missing_ok=True)
    for kept in ("health.json", hosts.BEAT):
        try:
            if clocks.age((folder / kept).stat().st_mtime, now) < _TICKED_SEC:
                return True
        except OSError:
            continue
    return False
