"""What two hosts have found out together, and how a host joins by it."""

import math
import time
from typing import Literal

from parallelhassnes import names
from parallelhassnes.errors import UserError
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import host_facts
from parallelhassnes.schedule.joining.host_facts import Side
from parallelhassnes.store import atomic, clocks, decider, hosts, locks
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text

LEAST_CACHE_SEC = 0.2
MOST_CACHE_SEC = 60.0
PROBE = "probe.json"
_LOOK_SEC = 0.1
_BEATS_SEC = 60.0
"""A beat that was written longer ago is that of a runner that is gone, for whoever takes its name."""


class Measured(hosts.Told):
    """What a host has found out with one other."""

    schema_version: Literal[1] = 1
    at: str
    host: Side
    """The other."""
    why: str = ""
    """Why the two cannot work on the root together; empty where nothing keeps them from it."""
    links: str = ""
    """What is wrong with link(); empty where each name has had one winner."""
    renames: str = ""
    locks_cross: bool = False
    locks: str = ""
    """What became of the locks, in words."""
    freed_sec: float | None = None
    """Time until a lock whose holder was killed was free for the other."""
    seen_sec: dict[str, float] = {}
    """Kind of change → longest round trip until each had seen the other's."""
    cache_sec: float = 0.0
    """Longest of these, rounded up: until then at the latest each sees what the other has written."""
    skew_sec: float | None = None
    """How far the other's clock is ahead."""
    skew_within_sec: float | None = None
    """How far off that may be."""


def rounded_up(seconds: float) -> float:
    """Time after which files are seen, in fifths of a second."""
    return max(LEAST_CACHE_SEC, math.ceil(seconds * 5) / 5)


def refusal(one: Side, other: Side) -> str:
    """Tell why two hosts cannot work on the root together, whatever it does; empty where nothing keeps them from it."""
    if one.name == other.name:
        return f"{one.host} and {other.host} both call themselves {one.name}; give one another name by {hosts.NAME_VARIABLE}"
    return ""


def check_own(ctx: Context) -> None:
    """See that this host may join at all.

    Raises:
        UserError: the shared configuration names the runner, or its name is that of another host.
    """
    if why := configuration.names_runner(ctx.layout):
        raise UserError(why)
    if said := hosts.said_name():
        names.check_id(said, f"name of a runner ({hosts.NAME_VARIABLE}, or runner in config.toml)")
    name = ctx.layout.runner or hosts.own_name()
    known = hosts.member(ctx.layout, name)
    if known is None:
        return
    if hosts.is_same_machine(known.boot_id, known.machine_id, known.host):
        if not _beats_on(ctx, known):
            return
    elif _is_gone(ctx, name):
        return
    raise hosts.SecondHost(
        f"this host ({hosts.machine().host}) is called {name}, as another host ({known.host}) on {ctx.layout.root} is",
        fix=f"give it another name by {hosts.NAME_VARIABLE}; or, if that host is gone for good, remove "
        f"{ctx.layout.runners / name / hosts.MEMBER}",
    )


def _beats_on(ctx: Context, known: hosts.Member) -> bool:
    """Tell whether a runner's beat moves that this host had under an earlier start: a copy of this machine has it."""
    before = hosts.beat_of(ctx.layout, known.name)
    if before is None or hosts.machine().boot_id in (known.boot_id, before.boot_id):
        return False
    end = time.monotonic() + 2 * ctx.config.heartbeat_sec + hosts.cache_sec(ctx.layout)
    while time.monotonic() < end and not _is_gone(ctx, known.name):
        now = hosts.beat_of(ctx.layout, known.name)
        if now is not None and now.boot_id == before.boot_id and now.count != before.count:
            return True
        time.sleep(_LOOK_SEC)
    return False


def _is_gone(ctx: Context, name: str) -> bool:
    """Tell whether a runner's beat is an old one. Both times are those of the file system's clock."""
    path = ctx.layout.runners / name / hosts.BEAT
    try:
        beaten = path.stat().st_mtime
    except OSError:  # it has never beaten, which says nothing
        return False
    fresh = atomic.temp_path(ctx.layout.runners)
    fresh.touch()
    now = fresh.stat().st_mtime
    fresh.unlink(missing_ok=True)
    return clocks.age(beaten, now) > max(_BEATS_SEC, hosts.still_sec(ctx.layout, ctx.config.heartbeat_sec))


def may_join(ctx: Context, other: Side) -> bool:
    """Tell whether what the two have shown makes them members: one of them belongs to the root by now, or nobody does."""
    known = hosts.member(ctx.layout, other.name)
    has_joined = known is not None and (known.boot_id, known.mount) == (other.boot_id, other.mount)
    return other.inside or has_joined or host_facts.is_inside(ctx) or not host_facts.is_ticked(ctx)


def join_by(ctx: Context, me: Side, found: list[Measured]) -> hosts.Member:
    """Be one of several hosts by what was found out with others, together with what is known of earlier."""
    layout = ctx.layout
    known = hosts.member(layout, me.name)
    if known is not None and not hosts.is_current(layout, known):
        known = None
    partners = dict.fromkeys([*(known.probed_with if known else ()), *(each.host.name for each in found)])
    made = hosts.Member(
        **{name: getattr(me, name) for name in hosts.RunnerFacts.model_fields},
        locks_cross=all(each.locks_cross for each in (*found, *([known] if known else ()))),
        cache_sec=max(each.cache_sec for each in (*found, *([known] if known else ()))),
        joined_at=known.joined_at if known else now_text(),
        probed_with=tuple(partners),
    )
    _become(ctx, made)
    return made


def join_first(ctx: Context) -> None:
    """Be the first of several hosts, before there is another to show anything to: jobs of a cluster join later, each by a probe.

    Raises:
        UserError: the shared configuration names the runner.
    """
    check_own(ctx)
    made = hosts.Member(
        **host_facts.runner(ctx), locks_cross=True, cache_sec=LEAST_CACHE_SEC, joined_at=now_text(), schema_version=1
    )
    _become(ctx, made)


def _become(ctx: Context, made: hosts.Member) -> None:
    layout = ctx.layout
    own = Layout(layout.root, made.name)
    if hosts.is_shared(layout) or not host_facts.is_inside(ctx) or not decider.claim_first_right(own):
        hosts.join(layout, made)
        return
    # What runs here has decided so far: nobody else is to, before a pass that may be under way is over. The next one sees the mark.
    hosts.join(layout, made)
    with locks.held(layout.tick_lock):
        decider.give_up_right(own)


def keep(ctx: Context, name: str, found: list[Measured]) -> None:
    """``runners/<name>/probe.json``: what was found out, the newest of each other host, for whoever looks."""
    path = ctx.layout.runners / name / PROBE
    known = {each.get("host", {}).get("name", ""): each for each in atomic.read_derived(path).get("hosts", ())}
    known |= {each.host.name: dump(each) for each in found}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path, {"schema_version": 1, "at": now_text(), "hosts": list(known.values())}, durable=False)
