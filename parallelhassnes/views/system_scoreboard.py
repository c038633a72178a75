"""The system scoreboard: a line per batch, trouble first, and how the queue stands.

Derived whole from the store by any reader at any time. ``_system/scoreboard.system.json`` is the last one
that was made (derived: may be deleted); a batch whose stamp has not changed since keeps its line, so a
look at a large store costs a few stats per batch and the tails of the ledgers that moved.
"""

from collections import Counter
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path

from pydantic import ValidationError

from parallelhassnes.gc_paused import bulk
from parallelhassnes.schedule import configuration, health, quarantine
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import concurrency_keys
from parallelhassnes.store import atomic, hosts, members, space
from parallelhassnes.store.layout import SNAPSHOT, Layout
from parallelhassnes.store.queue import queue_keys, tickets
from parallelhassnes.store.queue.queue_keys import Breaker, KeyState
from parallelhassnes.store.records import now_text
from parallelhassnes.views import batch_status, batch_summary, host_lines
from parallelhassnes.views.runners import run_by, slurm_now
from parallelhassnes.views.scoreboard_models import (
    BatchLine,
    Counts,
    JoinedHost,
    PauseLine,
    QueueLine,
    RunnerLine,
    SystemScoreboard,
)

CHANGES = 11
"""One more than the changes of a queue key that are shown."""


@bulk
def system_scoreboard(layout: Layout, *, snapshot: bool = True) -> SystemScoreboard:
    """Return the whole store as of now.

    Args:
        snapshot: use the last snapshot, and leave the new one behind.

    Raises:
        UserError: the configuration cannot be read.
    """
    config = configuration.in_force(layout).config
    states = queue_keys.every(layout)
    paused = concurrency_keys.Holds(layout, config, states)
    last = _last(layout) if snapshot else None
    known = {line.batch_id: line for line in last.batches} if last else {}
    running = tickets.running(layout)
    live = Counter(tickets.parse_name(entry.name).batch_id for entry in running)
    lines, fresh = [], 0
    listed = layout.listed()
    surroundings = batch_status.around(
        layout, {batch_id: found.about for batch_id, found in listed.items() if found.about}
    )
    for batch_id, (arrival, _) in listed.items():
        line = known.get(batch_id)
        if line is None or line.stamp != batch_summary.stamp(layout, batch_id, live[batch_id], surroundings):
            damage_found: list[Exception] = []
            with members.apart(layout.batch(batch_id), damage_found.append):
                line = batch_summary.make(layout, batch_id, live[batch_id], paused)
            if damage_found and not members.is_there(layout.batch(batch_id)):
                continue  # deleted while we looked
            for error in damage_found:
                members.pass_over(error)
                line = batch_summary.damaged(batch_id, quarantine.describe(error))
            if line is not None:
                line.arrival = arrival
            fresh += 1
        if line is not None:
            lines.append(line)
    lines += [
        batch_summary.damaged(batch_id, reason)
        for batch_id, reason in quarantine.every(layout).items()
        if batch_id not in listed
    ]
    lines.sort(key=newest_first)
    lines.sort(key=_rank)
    board = SystemScoreboard(
        at=now_text(),
        concurrency=config.concurrency,
        live=len(running),
        counts=_sum(lines),
        incoming=_tables(layout.incoming),
        rejected=_errors(layout.rejected),
        queue=_queue(Context(layout, config), lines, running, states, paused),
        runners=_runners(Context(layout, config), {entry.name for entry in running}),
        slurm=slurm_now(layout),
        batches=lines,
        shortage=space.shortage(layout.runs, config) or "",
        waiting=health.waiting(layout),
    )
    if snapshot and (last is None or fresh or len(known) != len(lines)):
        _leave(layout, board)
    return board


_TURNED = bytes(range(255, -1, -1))


def newest_first(line: BatchLine) -> bytes:
    """Sorts lines by arrival, the newest first: the one order in which every view lists batches."""
    return f"{line.arrival}/{line.batch_id}".encode("utf-8", "surrogatepass").translate(_TURNED)


def _rank(line: BatchLine) -> int:
    if line.trouble:
        return 0
    return 1 if line.state in ("running", "waiting", "blocked") else 2


def _last(layout: Layout) -> SystemScoreboard | None:
    """Return the last snapshot; None where there is none that can be used."""
    try:
        data = (layout.system / SNAPSHOT).read_bytes()
        known = _newest.get(SNAPSHOT)
        if known is None or known[0] != data:
            known = _newest[SNAPSHOT] = data, SystemScoreboard.model_validate_json(atomic.unsummed(data))
        return known[1]
    except (OSError, ValidationError, atomic.CorruptFile):
        return None


_newest: dict[str, tuple[bytes, SystemScoreboard]] = {}
"""The snapshot that this process has read or left last, and what it says: one that stays parses each once. Its lines are only looked at."""


def _leave(layout: Layout, board: SystemScoreboard) -> None:
    if not layout.system.is_dir():  # no store: a look must not make one
        return
    try:
        data = atomic.summed(board.model_dump_json().encode())
        atomic.write_bytes(layout.system / SNAPSHOT, data, durable=False)
        _newest[SNAPSHOT] = data, board
    except OSError:  # a reader with no right to write: the view is as good
        return


def _sum(lines: list[BatchLine]) -> Counts:
    names = tuple(Counts.model_fields)
    of_each = attrgetter(*names)
    sums = map(sum, zip(*[of_each(line.counts) for line in lines], strict=True))
    return Counts(**dict(zip(names, sums, strict=False)))


# --- the queue ----------------------------------------------------------------------------------------


def _queue(
    ctx: Context,
    lines: list[BatchLine],
    running: list[tickets.Running],
    states: dict[str, KeyState],
    holds: concurrency_keys.Holds,
) -> list[QueueLine]:
    """Return every queue key with something live or to start, or that nothing may start on; the busiest first."""
    live: Counter[str] = Counter()
    on_key: dict[str, set[str]] = {}
    for entry in running:
        key = batch_summary.key_of(entry.key_dir)
        live[key] += 1
        on_key.setdefault(key, set()).add(tickets.parse_name(entry.name).batch_id)
    ready: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    for line in lines:
        for key, load in line.queue.items():
            ready[key] += load.ready - load.delayed
            delayed[key] += load.delayed
            if load.ready > load.delayed:
                on_key.setdefault(key, set()).add(line.batch_id)
    tables: dict[str, dict[str, int]] = {}
    for line in lines:
        for key, number in line.limits.items():
            if line.batch_id in on_key.get(key, ()):
                tables.setdefault(key, {})[line.batch_id] = number
    found: list[QueueLine] = []
    paused = holds.every()
    for key in dict.fromkeys([*live, *ready, *paused]):
        state = states.get(key) or KeyState(queue_key=key)
        limit = concurrency_keys.effective_limit(ctx, state, tables.get(key, {}))
        shown = QueueLine(
            queue_key=key,
            live=live[key],
            ready=ready[key],
            delayed=delayed[key],
            limit=limit.number,
            limit_why=limit.why,
            ceiling=limit.ceiling,
            paused="; ".join(paused.get(key, ())),
            changes=[f"{entry.at} {entry.what}" for entry in state.history[:-CHANGES:-1]],
        )
        shown.pauses = [_pause(each) for each in state.breakers.values()]
        if shown.pauses:
            shown.breaker = "open" if all(each.state == "open" for each in shown.pauses) else "half-open"
            shown.probe_at = min(each.probe_at for each in shown.pauses)
        found.append(shown)
    return sorted(found, key=lambda line: (-line.live, -line.ready, line.queue_key))


def _pause(found: Breaker) -> PauseLine:
    return PauseLine(
        credential=found.credential.mark,
        variables=list(found.credential.variables),
        state=found.state,
        failure_class=found.failure_class,
        line=found.line,
        attempt=found.attempt,
        batches=list(found.batches),
        probe_at=now_text(datetime.fromtimestamp(found.probe_at, UTC)),
    )


def _tables(folder: Path) -> int:
    return sum(name.endswith((".json", ".yaml", ".yml")) for name in _listing(folder))


def _errors(folder: Path) -> int:
    return sum(name.endswith(".error.json") for name in _listing(folder))


def _runners(ctx: Context, running: set[str]) -> list[RunnerLine]:
    joined = host_lines.every(ctx.layout)
    names = sorted(_listing(ctx.layout.runners) & joined.keys() if joined else _listing(ctx.layout.runners))
    return [_runner(ctx, name, joined.get(name), running) for name in names]


def _runner(ctx: Context, name: str, joined: JoinedHost | None, running: set[str]) -> RunnerLine:
    """A runner by its beat, where several hosts have joined, which is newer than its health."""
    folder = ctx.layout.runners / name
    health = atomic.read_derived(folder / "health.json")
    if joined is not None:
        health = {**health, "host": joined.host, **atomic.read_derived(folder / hosts.BEAT)}
    return RunnerLine(
        runner_id=name,
        host=health.get("host", ""),
        capacity=health.get("capacity"),
        live=len(run_by(ctx, name, running, shared=joined is not None)),
        draining=members.is_there(folder / "drain") or bool(health.get("draining")),
        at=health.get("at", ""),
        joined=joined,
        job_id=atomic.read_derived(folder / "job.json").get("job_id") if joined is not None else None,
        left_sec=health.get("left_sec"),
    )


def _listing(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir() if entry.name[0] != "."}
    except (FileNotFoundError, NotADirectoryError):
        return set()
