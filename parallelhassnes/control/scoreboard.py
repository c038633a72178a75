"""The system scoreboard: a line per batch, trouble first, and how the queue stands.

Derived whole from the store by any reader at any time. ``_system/scoreboard.system.json`` is the last one
that was made (derived: may be deleted); a batch whose stamp has not changed since keeps its line, so a
look at a large store costs a few stats per batch and the tails of the ledgers that moved.
"""

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from parallelhassnes.config import Config, load_config
from parallelhassnes.control import batch_line
from parallelhassnes.control.bulk import bulk
from parallelhassnes.control.scoreboard_models import (
    BatchLine,
    Counts,
    QueueLine,
    RunnerLine,
    SystemScoreboard,
)
from parallelhassnes.schedule import adaptive, damage, starts
from parallelhassnes.store import atomic, queue_keys, space, tickets
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue_keys import KeyState
from parallelhassnes.store.records import now_text

SNAPSHOT = "scoreboard.system.json"
CHANGES = 11
"""One more than the changes of a queue key that are shown."""


@bulk
def system_scoreboard(layout: Layout, *, snapshot: bool = True) -> SystemScoreboard:
    """The whole store as of now.

    Args:
        snapshot: use the last snapshot, and leave the new one behind.

    Raises:
        UserError: the configuration cannot be read.
    """
    config = load_config(layout.root)
    last = _last(layout) if snapshot else None
    known = {line.batch_id: line for line in last.batches} if last else {}
    running = tickets.running(layout)
    live = Counter(tickets.parse_name(entry.name).batch_id for entry in running)
    lines, fresh = [], 0
    batch_ids = layout.batch_ids()
    for batch_id in batch_ids:
        line = known.get(batch_id)
        if line is None or line.stamp != batch_line.stamp(layout, batch_id, live[batch_id]):
            try:
                line = batch_line.make(layout, batch_id, live[batch_id])
            except FileNotFoundError:  # deleted while we looked
                continue
            except atomic.CorruptFile as error:
                line = batch_line.damaged(batch_id, f"damaged: {error}")
            fresh += 1
        lines.append(line)
    lines += [
        batch_line.damaged(batch_id, reason)
        for batch_id, reason in damage.every(layout).items()
        if batch_id not in batch_ids
    ]
    lines.sort(key=lambda line: line.batch_id, reverse=True)
    lines.sort(key=_rank)
    board = SystemScoreboard(
        at=now_text(), concurrency=config.concurrency, live=len(running), counts=_sum(lines),
        incoming=_tables(layout.incoming), rejected=_errors(layout.rejected),
        queue=_queue(layout, config, lines, Counter(entry.key_dir for entry in running)),
        runners=_runners(layout), batches=lines,
        shortage=space.shortage(layout.runs, config) or "", waiting=starts.held(layout),
    )  # fmt: skip
    if snapshot and (last is None or fresh or len(known) != len(lines)):
        _leave(layout, board)
    return board


def _rank(line: BatchLine) -> int:
    if line.trouble:
        return 0
    return 1 if line.state in ("running", "waiting", "blocked") else 2


def _last(layout: Layout) -> SystemScoreboard | None:
    """The last snapshot; None where there is none that can be used."""
    try:
        return SystemScoreboard.model_validate_json((layout.system / SNAPSHOT).read_bytes())
    except (OSError, ValidationError):
        return None


def _leave(layout: Layout, board: SystemScoreboard) -> None:
    if not layout.system.is_dir():  # no store: a look must not make one
        return
    try:
        text = board.model_dump_json() + "\n"
        atomic.write_text(layout.system / SNAPSHOT, text, durable=False)
    except OSError:  # a reader with no right to write: the view is as good
        return


def _sum(lines: list[BatchLine]) -> Counts:
    total: Counter[str] = Counter()
    for line in lines:
        total.update(dict(line.counts))
    return Counts(**total)


# --- the queue ----------------------------------------------------------------------------------------


def _queue(
    layout: Layout, config: Config, lines: list[BatchLine], live: Counter[str]
) -> list[QueueLine]:
    """Every queue key with something live or to start, the busiest first."""
    ready: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    limits: dict[str, list[int]] = {}
    keys = {batch_line.key_of(folder): count for folder, count in live.items()}
    for line in lines:
        for key, load in line.queue.items():
            ready[key] += load.ready - load.delayed
            delayed[key] += load.delayed
            keys.setdefault(key, 0)
            if key in line.limits:
                limits.setdefault(key, []).append(line.limits[key])
    states = queue_keys.every(layout)
    keys.update({key: 0 for key, state in states.items() if state.hold and key not in keys})
    found: list[QueueLine] = []
    for key, count in keys.items():
        state = states.get(key) or KeyState(queue_key=key)
        configured = state.limit.limit if state.limit else config.limits.get(key)
        explicit = min((*limits.get(key, ()), *filter(None, (configured,))), default=None)
        shown = QueueLine(
            queue_key=key, live=count, ready=ready[key], delayed=delayed[key], limit=explicit, paused=state.hold,
            changes=[f"{entry.at} {entry.what}" for entry in state.history[:-CHANGES:-1]],
        )  # fmt: skip
        if state.breaker is not None:
            shown.breaker = state.breaker.state
            shown.probe_at = now_text(datetime.fromtimestamp(state.breaker.probe_at, UTC))
        if state.adaptive is not None and adaptive.is_on(config.adaptive, key):
            within = adaptive.bounds(config.adaptive, key, explicit, config.concurrency)
            shown.ceiling = within.ceiling
            shown.limit = adaptive.limit_now(state.adaptive, time.time(), within, config.adaptive)
        found.append(shown)
    return sorted(found, key=lambda line: (-line.live, -line.ready, line.queue_key))


def _tables(folder: Path) -> int:
    return sum(name.endswith((".json", ".yaml", ".yml")) for name in _listing(folder))


def _errors(folder: Path) -> int:
    return sum(name.endswith(".error.json") for name in _listing(folder))


def _runners(layout: Layout) -> list[RunnerLine]:
    return [_runner(layout.runners / name, name) for name in sorted(_listing(layout.runners))]


def _runner(folder: Path, name: str) -> RunnerLine:
    health = atomic.read_derived(folder / "health.json")
    return RunnerLine(
        runner_id=name, host=health.get("host", ""), capacity=health.get("capacity"), live=health.get("live"),
        draining=(folder / "drain").exists(), at=health.get("at", ""),
    )  # fmt: skip


def _listing(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if entry.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
