"""What must hold of a store once nothing runs any more, whatever was killed on the way.

Each broken promise is one line; an empty list is a store in order.
"""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from parallelhassnes import packed, walk
from parallelhassnes.actions import packs
from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import atomic, attempts, batches, currents
from parallelhassnes.store.evidence import ledger, removals
from parallelhassnes.store.evidence.seal import survey

DERIVED = ("current.json", "index.json")


ANY = frozenset({"succeeded", "failed", "-"})
"""How a step may end where workers are killed too: a program that dies by a signal has failed by itself."""
TWICE = 99
"""Exit code of a program that found another attempt of its step at work."""


def broken(
    ctx: Context, ends: Mapping[str, Collection[str]] | None = None, *, tables: int = 1, one_clock: bool = True
) -> list[str]:
    """Every promise that does not hold.

    Args:
        ends: ``job/step`` → the statuses that its last attempt may have, ``-`` for no attempt; None for ``ANY``.
        tables: how many different tables were submitted.
        one_clock: all processes had the same; else instants say nothing of what was before what.
    """
    batch_ids = ctx.layout.batch_ids()
    found = [*_queue(ctx), *_junk(ctx)]
    if len(batch_ids) != tables:
        found.append(f"{len(batch_ids)} batches instead of {tables}")
    for batch_id in batch_ids:
        batch_dir = ctx.layout.batch(batch_id)
        found += [*_steps(ctx, batch_dir, ends, one_clock), *_ledger(batch_dir), *_removed(batch_dir)]
    return found + _rebuilt(ctx)


def _steps(ctx: Context, batch_dir: Path, ends: Mapping[str, Collection[str]] | None, one_clock: bool) -> Iterator[str]:
    carried = {line["attempt"] for _, line in ledger.read(batch_dir) if line["event"] == "carried"}
    for job_dir in batches.job_dirs(ctx.layout, batch_dir.name):
        current = currents.read(job_dir)
        for step in batches.read_job(job_dir).steps:
            ref = f"{job_dir.name}/{step.step_id}"
            step_dir = job_dir / "steps" / step.step_id
            names = attempts.names(step_dir)
            status = attempts.read_state(step_dir / "attempts" / names[-1]).status if names else "-"
            allowed = ANY if ends is None else ends[ref]
            if status not in allowed:
                yield f"{ref}: ended as {status}, not as one of {sorted(allowed)}"
            now = current.steps.get(step.step_id)
            if (now.status if now else "-") != status or (now and not now.settled):
                yield f"{ref}: current.json says {now}"
            folders = [step_dir / "attempts" / name for name in names]
            yield from _attempts(ref, folders, one_clock=one_clock, taken_over=bool(carried & set(names)))


def _attempts(ref: str, folders: list[Path], *, one_clock: bool, taken_over: bool) -> Iterator[str]:
    seen = []
    for folder in folders:
        where = f"{ref} {folder.name}"
        meta, state = attempts.read_meta(folder), attempts.read_state(folder)
        seen.append((meta, state))
        if not attempts.is_sealed(folder):
            yield f"{where}: is not sealed"
        elif (there := atomic.read_json(folder / "seal.json")["files"]) != survey(folder):
            gone = removals.of_attempt(folder)
            kept = {path: facts for path, facts in there.items() if removals.stays(path)}
            if gone is None or kept != survey(folder):
                yield f"{where}: is not as it was sealed" + (", less what a rule has removed" if gone else "")
        if not state.terminal or state.ended_at is None:
            yield f"{where}: ended as {state.status} at {state.ended_at}"
        if state.exit_code == TWICE:
            yield f"{where}: ran while another attempt of its step did"
        if walk.kind(folder / "final.json") != "file":
            yield f"{where}: has no report"
        if left := processes.with_run_id(meta.run_id):
            yield f"{where}: left processes {left}"
    for (_, before), (after, _) in itertools.pairwise(seen):
        if one_clock and (before.ended_at or "") > after.created_at:
            yield f"{ref}: {after.run_id} was started before {before.run_id} had ended"
        if before.status == "succeeded" and after.kind != "verdict":  # that is given anew when a trial has come to it
            yield f"{ref}: was run again after it had succeeded"
    first = seen[0][0].number if seen and taken_over else 1  # an attempt that was taken over keeps its number
    if [meta.number for meta, _ in seen] != list(range(first, first + len(seen))):
        yield f"{ref}: attempts are numbered {[meta.number for meta, _ in seen]}"


def _removed(batch_dir: Path) -> Iterator[str]:
    told = ledger.seals(batch_dir)
    for place, stone in removals.of(batch_dir).items():
        if told.get(place) != stone.seal:
            yield f"ledger: the tombstone of {place} names another seal"
        if left := removals.left_of(batch_dir / place):
            yield f"{place}: was removed, and {left} are still there"
    if packs.is_cut_off(batch_dir):
        yield "was unpacked for a removal and not packed again, or is packed and its files are still there"


def _ledger(batch_dir: Path) -> Iterator[str]:
    lines = [document for _, document in ledger.read(batch_dir)]
    if not any(line["event"] == "submitted" for line in lines):
        yield "ledger: has no line of the submission"
    pack = packed.of(batch_dir)
    folders = [path.name for path in batch_dir.glob("*/steps/*/attempts/*")]
    if pack is not None:
        if folders:
            yield f"packed, and {folders} are still there"
        folders = [place.rpartition("/")[2] for place in pack.attempts]
    ended = Counter(line["attempt"] for line in lines if line["event"] in ("ended", "carried"))
    launched = Counter(line["attempt"] for line in lines if line["event"] == "launched")
    for name in folders:
        if not ended[name]:
            yield f"ledger: has no end of {name}"
        if launched[name] > 1:
            yield f"ledger: launched {name} {launched[name]} times"
    places = {(line["event"], line.get("attempt")): at for at, line in enumerate(lines)}
    for step in {path.parent for path in batch_dir.glob("*/steps/*/attempts/*")}:
        for before, after in itertools.pairwise(sorted(path.name for path in step.iterdir())):
            launch = places.get(("launched", after))
            if launch is not None and launch < places.get(("ended", before), -1):
                yield f"ledger: launched {after} before {before} had ended"
    for name in (ended | launched).keys() - set(folders):
        yield f"ledger: speaks of {name}, which is not there"


def _queue(ctx: Context) -> Iterator[str]:
    layout = ctx.layout
    for folder in (layout.ready, layout.delayed, layout.running, layout.ended, layout.incoming):
        for path in folder.rglob("*"):
            if path.is_file():
                yield f"queue: {path.relative_to(layout.queue)} is left"
    end = time.monotonic() + 5.0  # the last supervisor may be about to look for it
    while layout.pass_wanted.exists() and time.monotonic() < end:
        time.sleep(0.01)
    if layout.pass_wanted.exists():
        yield "queue: pass.wanted is left"


def _junk(ctx: Context) -> Iterator[str]:
    for folder, folders, files in os.walk(ctx.layout.root):
        for name in (*folders, *files):
            path = Path(folder, name)
            in_attempt = "attempts" in path.parts and "trial" not in path.parts
            half = name.startswith(".tmp-") or name == currents.JOURNAL
            if half or (name == "tmp" and in_attempt):
                yield f"junk: {path.relative_to(ctx.layout.root)}"
    end = time.monotonic() + 5.0  # whoever has ended the last attempt may be writing what it knows
    while any(ctx.layout.temp.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    left = [*ctx.layout.temp.iterdir(), *(ctx.layout.imports.iterdir() if ctx.layout.imports.exists() else ())]
    yield from (f"junk: {path.relative_to(ctx.layout.root)}" for path in left)


def _rebuilt(ctx: Context) -> list[str]:
    before = _derived(ctx)
    rebuild(ctx)
    after = _derived(ctx)
    return [
        f"rebuild: {name} is {after.get(name)} instead of {before.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _derived(ctx: Context) -> dict[str, Any]:
    paths = [path for name in DERIVED for path in ctx.layout.runs.rglob(name)]
    paths += [path for path in ctx.layout.queue.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(ctx.layout.runs)): json.loads(path.read_bytes())
        for path in paths
        if path.suffix == ".json"
    }
