"""A process that ticks a root at an interval and when it is told to, for a server that must not fork.

``python -m parallelhassnes.admin.tick_loop ROOT SECONDS``. It stays single-threaded and without an event loop, so its
supervisors are forks. Told by lines of JSON on stdin, it answers by lines of JSON on stdout:

    {"id": 1, "concurrency": 4}    ─▶    {"id": 1, "ingested": […], "repaired": […], "launched": […], "running": 2}
    {"lend": {NAME: value}}        no answer: secrets for one batch, see ``schedule.ephemeral_secrets``; a tick follows

After each tick, asked for or not, a line ``{"ticked": what went wrong}``, empty where nothing went wrong.

It ends when stdin does, which is when the server ends, however it ends; attempts go on without it.
"""

import json
import os
import select
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from parallelhassnes.admin.init import ensure
from parallelhassnes.errors import UserError
from parallelhassnes.execute import processes
from parallelhassnes.schedule import configuration, ephemeral_secrets, health
from parallelhassnes.schedule.context import Context, Options, open_context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, tickets
from parallelhassnes.store.records import now_text

_CHUNK = 1 << 16


def main(root: Path, every_sec: float) -> None:
    """Tick until stdin ends."""
    processes.set_title(f"ticker of {root}")
    pending, next_tick, told = b"", 0.0, ""
    while True:
        left = max(0.0, next_tick - time.monotonic())
        if select.select([0], [], [], left)[0]:
            data = os.read(0, _CHUNK)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            requests = [json.loads(line) for line in lines]
        else:
            requests = []
        for request in requests:
            for name, value in request.get("lend", {}).items():
                ephemeral_secrets.lend(name, value)
        answers, wrong = _work(root, requests)
        told = _tell(wrong or configuration.trouble(Layout(root)), told)
        sys.stdout.write(json.dumps({"ticked": wrong}) + "\n")
        next_tick = time.monotonic() + every_sec
        for answer in answers:
            sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _tell(line: str, told: str) -> str:
    """Have the server's log say what is wrong, once; the line."""
    if line and line != told:
        sys.stderr.write(f"tick: {line}\n")
        sys.stderr.flush()
    return line


def _work(root: Path, requests: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Return one tick for all that was asked meanwhile; the answers, and what went wrong."""
    asked = [request["id"] for request in requests if "id" in request]
    concurrency = next((r["concurrency"] for r in requests[::-1] if r.get("concurrency")), None)
    try:
        report = _tick(root, concurrency)
    except UserError as error:  # a configuration that was just edited: the next tick may find it mended
        report = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - one bad tick must not end those that follow
        report = {"error": f"internal error ({type(error).__name__}); see the server's log"}
        sys.stderr.write(f"{now_text()} tick\n{traceback.format_exc()}")
    return [{"id": number, **report} for number in asked], str(report.get("error", ""))


def _tick(root: Path, concurrency: int | None) -> dict[str, Any]:
    ctx = open_context(root, Options(concurrency=concurrency))
    ensure(ctx)
    done = tick(ctx)
    if done.failed:
        raise UserError("; ".join(health.troubles(ctx.layout)) or "the pass failed")
    ephemeral_secrets.keep_only(_wanted(ctx))
    return {
        "ingested": [
            {
                "name": table.name,
                "batch_id": table.batch_id,
                "duplicate": table.duplicate,
                "problems": [problem.line() for problem in table.problems],
            }
            for table in done.ingested
        ],
        "repaired": done.repaired,
        "launched": [
            f"{ticket.batch_id}/{ticket.job_id}/{ticket.step_id}/{attempt}" for ticket, attempt in done.launched
        ],
        "running": len(tickets.running(ctx.layout)),
    }


def _wanted(ctx: Context) -> set[str]:
    """Return the names of the secrets of the batches that have something in the queue."""
    if not ephemeral_secrets.known():
        return set()
    layout = ctx.layout
    names = [entry.name for entry in tickets.running(layout)]
    names += [path.name for path in tickets.ended(layout)]
    queued = {tickets.parse_name(name).batch_id for name in names}.union(delayed.batch_ids(layout))
    queued |= {batch_id for _, batch_id, _ in tickets.ready_folders(layout)}
    wanted: set[str] = set()
    for batch_id in queued:
        with members.apart(batch_id):
            wanted.update(batches.read_batch(layout.batch(batch_id)).secrets)
    return wanted


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
