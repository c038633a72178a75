"""What must hold in the end: of the store, of what was heard of it, and of each table beside the same one alone."""

import json
import random
import time
from collections.abc import Iterable
from pathlib import Path

from stores import context, program, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.schedule.context import Context
from tests.faults import invariants
from tests.together import outcome, shapes
from tests.together.outcome import Outcome
from tests.together.servers import Client, mentioning
from tests.together.shared import Together

CONCURRENCY = 2
LIMITS = {"agent:nop": 1, "prep": 1}
CONFIG = f"""environment = "sandbox"
concurrency = {CONCURRENCY}
[limits]
{"\n".join(f'"{key}" = {limit}' for key, limit in LIMITS.items())}
[api]
tick_sec = 2
"""


def boards(shared: Together) -> None:
    """Both servers come to show the same of every batch: a look may be half a second old."""
    end = time.monotonic() + 30.0
    while (found := _differing(shared)) and time.monotonic() < end:
        time.sleep(0.2)
    for line in found:
        shared.wrong.say(line)


def _differing(shared: Together) -> list[str]:
    """What one server shows of a batch and the other does not."""
    shown = []
    for server in shared.servers:
        own = Client([server], random.Random(0), shared.wrong)
        answers = {batch: own.good("GET", f"/v1/batches/{batch}/scoreboard") for batch in shared.made}
        listed, cursor = {}, ""
        while cursor is not None:
            page = own.good("GET", f"/v1/batches?limit=100&cursor={cursor}" if cursor else "/v1/batches?limit=100")
            listed |= {line["batch_id"]: (line["state"], line["counts"]) for line in page["items"]}
            cursor = page["next"]
        own.close()
        shown.append(({batch: (board["state"], board["counts"]) for batch, board in answers.items()}, listed))
    return [
        f"{name} of {batch}: {[page.get(batch) for page in pages]}"
        for pages, name in zip(zip(*shown, strict=True), ("board", "list"), strict=True)
        for batch in shared.made
        if len({json.dumps(page.get(batch)) for page in pages}) > 1
    ]


def in_order(shared: Together, ctx: Context) -> list[str]:
    """What does not hold of the store although nothing runs, or stands in the servers' logs."""
    found = _left(ctx)
    program(ctx.layout.root, "tick", "--quiet")  # as cron would, for what a killed server was at
    found += _left(ctx)
    found += invariants.broken(ctx, tables=len(shared.made))
    audit = verify(ctx.layout)
    found += [f"audit: {each.what} {each.place} {each.text}" for each in audit.problems]
    found += outcome.over_limit(ctx.layout, CONCURRENCY, LIMITS)
    shape_of = {made.label: made.shape for made in shared.made.values()}
    for mark in shared.marks.glob("*.ran"):
        times = 2 if shape_of[mark.name.partition(".")[0]] == "again" else 1
        if (text := mark.read_text()) != "x\n" * times:
            found.append(f"mark {mark.name}: {text!r}")
    for server in shared.servers:
        if text := server.log.read_text():  # a server that is well says nothing
            found.append(f"server {server.name} said: {text[-3000:]}")
    return found


def _left(ctx: Context) -> list[str]:
    """Processes of the store that do not end."""
    try:
        wait_for(lambda: not mentioning(ctx.layout.root), "every process to end")
    except AssertionError:
        return [f"left: {line}" for line in mentioning(ctx.layout.root)]
    return []


def differences(shared: Together, alone: dict[str, Outcome]) -> list[str]:
    """Where a table came to something else than alone on a store of its own, or took another number of attempts."""
    found = []
    for batch_id, made in shared.made.items():
        there = outcome.outcome(shared.layout, batch_id, made.label)
        found += [f"{made.shape} {batch_id} {line}" for line in outcome.differences(there, alone[made.shape])]
    return found


def all_alone(folder: Path, names: Iterable[str]) -> dict[str, Outcome]:
    """Shape → what its table comes to, each in a store of its own below the folder."""
    return {shape: _alone(folder / shape.replace(" ", "-"), shape) for shape in names}


def _alone(root: Path, shape: str) -> Outcome:
    """What a table of that shape comes to where nobody else is at work."""
    marks = root / "marks"
    marks.mkdir(parents=True)
    ctx = context(root, CONFIG)
    label = "table-alone"
    table = shapes.tables(label, marks, str(shapes.TASKS / shapes.UPLOADED))[shape]
    (root / "table.json").write_text(json.dumps(table))
    program(root, "run", "-c", str(root / "table.json"), "--quiet", "--fail-on", "never")
    (batch_id,) = ctx.layout.batch_ids()
    return outcome.outcome(ctx.layout, batch_id, label)
