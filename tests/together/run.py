"""Two servers and a cron tick on one store: ``python -m tests.together.run --seconds 3600 [--seed N]``.

Two ticking servers, of which now and then one is killed or stopped and started again, and a bare tick at an interval, as
cron has it, work on one store. Clients submit tables of real Harbor trials through either server and by the command
line, upload, poll, listen and operate. At the end each table must have come to what it comes to on a store of its own with
nothing but ``run``, and the store must be in order. Prints what was wrong, then one line of figures; exit code 1 for any difference.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stores import context, idle, wait_for

from parallelhassnes.schedule.context import Context
from tests.together import checks, clients, listeners, outcome, shapes
from tests.together.servers import Server
from tests.together.shared import Pace, Together

DRAIN_SEC = 600.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the store where it is")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    folder = Path(tempfile.mkdtemp(prefix="together-"))
    print(f"seed {seed}, in {folder}", file=sys.stderr, flush=True)
    wrong, figures = together(folder, given.seconds, seed)
    if not (given.keep or wrong):
        shutil.rmtree(folder)
    for line in wrong:
        print(f"WRONG {line}")
    print(json.dumps({"seed": seed, **figures, "differences": len(wrong)}))
    return 1 if wrong else 0


def together(
    folder: Path, seconds: float, seed: int, *, pace: Pace | None = None, only: Sequence[str] = shapes.NAMES
) -> tuple[list[str], dict[str, Any]]:
    """Everything at once for so many seconds; what was wrong, and the figures.

    Args:
        folder: empty; gets the stores and the servers' logs.
        only: the shapes of tables that are submitted.
    """
    root = folder / "root"
    for place in (root, root / "marks", root / "tables"):
        place.mkdir()
    ctx = context(root, checks.CONFIG)
    servers = [Server(root, name) for name in ("one", "other")]
    shared = Together(root, servers, seed, pace or Pace(), only)
    with ThreadPoolExecutor(1) as pool:
        alone = pool.submit(checks.all_alone, folder / "alone", only)
        began = time.monotonic()
        try:
            for server in servers:
                server.start()
            seen = _work(shared, ctx, seconds)
        finally:
            shared.stop.set()
            shared.over.set()
            for server in servers:
                server.end(signal.SIGKILL)
        worked = time.monotonic() - began
        wrong = [
            *shared.wrong.lines,
            *listeners.unheard(shared, seen),
            *checks.in_order(shared, ctx),
            *checks.differences(shared, alone.result()),
        ]
    found = list(ctx.layout.runs.glob("*/*/steps/*/attempts/*"))
    figures = {
        "minutes": round(worked / 60, 1),
        "batches": len(shared.made),
        "attempts": len(found),
        "trials": sum((path / "trial").exists() for path in found),
        "most at once": outcome.most_at_once(ctx.layout),
        **shared.counts,
        "events heard": seen.total(),
        "told twice": sum(n - 1 for n in seen.values()),
    }
    return wrong, figures


def _work(shared: Together, ctx: Context, seconds: float) -> Counter[str]:
    """Run all clients for that time, then until the store is idle; the events that were heard."""
    seen: Counter[str] = Counter()
    over: list[threading.Thread] = []

    def client(name: str, do: Callable[..., None], *more: object) -> threading.Thread:
        def work() -> None:
            own = shared.client(name)
            try:
                do(shared, own, *more)
            except Exception:  # noqa: BLE001 - the end of a thread
                shared.wrong.say(f"{name}: {traceback.format_exc()}")
            finally:
                shared.count("requests", own.asked)
                own.close()

        return _thread(name, work)

    over.append(client("events", listeners.listen, seen))
    own = shared.client("first upload")
    while not seen:  # nothing may happen before somebody hears of it
        clients.send_task(shared, own)
        time.sleep(0.5)
    own.close()
    over.append(_thread("cron", lambda: clients.cron(shared)))
    busy = [
        client("submit", clients.submit),
        client("run", clients.run),
        client("look 1", clients.look),
        client("look 2", clients.look),
        client("operate", clients.operate),
        client("upload", clients.upload),
        client("follow 1", listeners.follow),
        client("follow 2", listeners.follow),
        client("trouble", clients.trouble),
    ]
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(shared.wrong.lines) < 50:
        shared.stop.wait(min(60.0, max(0.0, end - time.monotonic())))
        print(f"{len(shared.made)} batches, {dict(shared.counts)}", file=sys.stderr, flush=True)
    shared.stop.set()
    for thread in busy:
        thread.join(DRAIN_SEC)
        if thread.is_alive():
            shared.wrong.say(f"{thread.name}: did not end in {DRAIN_SEC:g} s")
    wait_for(lambda: idle(ctx), "the store to be idle", DRAIN_SEC)
    listeners.hear_all(shared, seen)
    checks.boards(shared)
    shared.over.set()
    for server in shared.servers:  # which also ends who only listens
        server.end(signal.SIGTERM)
    for thread in over:
        thread.join(DRAIN_SEC)
    return seen


def _thread(name: str, work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
