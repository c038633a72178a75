"""What the server costs over 10,000 jobs: its warm answers, a row of ``make bench``, and with 200 listeners: ``python -m benchmarks.server [JOBS]``.

The stores are those of ``benchmarks.scoreboard``, in one batch and in batches of ten. One attempt's launch is written into a
ledger before each look, so that no look is answered from memory. Prints a JSON line per store:

    overview_ms, batch_ms      the pages, and both scoreboards: median and worst of ten looks
    memory_mb                  of the server, at first and with 200 listeners after the looks
    tick_ms                    one tick of a process of its own while ten events a second are written: without the listeners
                               and with all of them being told, medians of ticks spread over two seconds
"""

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.results import Figure, Row
from benchmarks.scoreboard import make
from benchmarks.setting import Setting
from parallelhassnes.store import atomic
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

LISTENERS = 200
LOOKS = 10
TICKS, TICK_EVERY_SEC = 40, 0.05
EVENT_EVERY_SEC = 0.1


def server(setting: Setting) -> Row:
    """What warm answers cost the server's processor: of one large batch, and of many small ones."""
    jobs = 100 if setting.quick else 10_000
    row = Row(name="server", work=f"answers of a server over {jobs:,} jobs, asked before")
    for in_batches in (1, jobs // 10):
        layout = _store(setting.fresh("server"), jobs, in_batches)
        batch_id = layout.batch_ids()[-1]
        goals = {f"page of {in_batches:,} batches": ("/", 0.03)}
        if in_batches == 1:
            goals = {
                f"{path} of {jobs:,} jobs": (path.replace("/B", f"/{batch_id}").replace("=B", f"={batch_id}"), goal)
                for path, goal in (
                    ("/v1/batches/B", 0.02),
                    ("/v1/results?batch=B", 0.1),
                    ("/v1/errors?batch=B", 0.1),
                    ("/batches/B", 0.3),
                )
            }
        took = opened(layout.root, {name: path for name, (path, _) in goals.items()})
        row.figures += [
            Figure(measure=f"{name}: CPU", unit="s", ours=took[name], goal=goal) for name, (_, goal) in goals.items()
        ]
    return row


def opened(root: Path, pages: Mapping[str, str]) -> dict[str, float]:
    """Median seconds of a server's processor, each page having been opened before."""
    found = {}
    with serving(root) as (url, pid):
        for name, path in pages.items():
            get(url + path)
            times = []
            for _ in range(10):
                began = _cpu_sec(pid)
                for _ in range(5):
                    get(url + path)
                times.append((_cpu_sec(pid) - began) / 5)
            found[name] = statistics.median(times)
    return found


def _cpu_sec(pid: int) -> float:
    """The processor time of a process's threads, which is counted in nanoseconds."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


def main(jobs: int) -> None:
    for in_batches in (1, jobs // 10):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"jobs": jobs, "batches": in_batches, **measure(_store(Path(folder), jobs, in_batches))}))


def _store(root: Path, jobs: int, in_batches: int) -> Layout:
    """A store in which nothing may start: what looks and ticks cost is looked at, not attempts."""
    atomic.set_durable(False)
    try:
        (root / "parallelhassnes.toml").write_text("durable = false\n")
        layout = make(root, jobs, in_batches)
        (layout.runners / "local").mkdir(parents=True)
        (layout.runners / "local" / "drain").touch()
    finally:
        atomic.set_durable(True)
    return layout


def measure(layout: Layout) -> dict[str, Any]:
    """The figures of one store."""
    batch_id = layout.batch_ids()[-1]
    with serving(layout.root) as (url, pid):
        get(f"{url}/health")
        found: dict[str, Any] = {"memory_mb": [_memory_mb(pid)]}
        with _moving(layout, batch_id):
            before = _ticks(layout.root)
        listeners = [_listen(url) for _ in range(LISTENERS)]
        for name, path in (
            ("overview_ms", "/"),
            ("system_ms", "/v1/scoreboards/system"),
            ("batch_page_ms", f"/batches/{batch_id}"),
            ("batch_ms", f"/v1/batches/{batch_id}/scoreboard"),
        ):
            times = [_look(layout, batch_id, lambda path=path: get(url + path)) for _ in range(LOOKS)]
            found[name] = [round(statistics.median(times)), round(max(times))]
        with _moving(layout, batch_id, listeners):
            found["tick_ms"] = [before, _ticks(layout.root)]
        found["memory_mb"].append(_memory_mb(pid))
        for one in listeners:
            one.close()
        return found


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, int]]:
    """A server over the store, which does not tick; its address and its pid."""
    command = [sys.executable, "-m", "parallelhassnes", "api", "--port", "0", "--json", "--no-tick"]
    server = subprocess.Popen([*command, "--root", str(root)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield json.loads(server.stdout.readline())["url"], server.pid
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()


def _look(layout: Layout, batch_id: str, act: Callable[[], object]) -> float:
    _move(layout, batch_id)
    time.sleep(0.6)  # longer than anything is kept
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def _move(layout: Layout, batch_id: str) -> None:
    ledger.append(
        layout.batch(batch_id),
        "launched",
        job_id="job-000001",
        step_id="t1",
        run_id="abcdefghijkl",
        attempt="20261121T000000Z_abcdefghijkl",
        number=1,
        queue_key="k",
    )


@contextmanager
def _moving(layout: Layout, batch_id: str, listeners: Sequence[socket.socket] = ()) -> Iterator[None]:
    """Events are written all the while, and each of the listeners reads what it is told."""
    over = threading.Event()

    def act() -> None:
        with selectors.DefaultSelector() as selector:
            for one in listeners:
                selector.register(one, selectors.EVENT_READ)
            due = time.monotonic()
            while not over.is_set():
                if time.monotonic() >= due:
                    _move(layout, batch_id)
                    due += EVENT_EVERY_SEC
                left = max(0.0, due - time.monotonic())
                if not listeners:
                    over.wait(left)
                    continue
                for key, _ in selector.select(left):
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.recv(65_536)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _ticks(root: Path) -> float:
    """Milliseconds of one tick, by a process that ticks and is told when."""
    ticker = subprocess.Popen(
        [sys.executable, "-m", "parallelhassnes.admin.tick_loop", str(root), "3600"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ticker.stdin is not None
    assert ticker.stdout is not None
    times = []
    for number in range(TICKS + 2):
        began = time.perf_counter()
        ticker.stdin.write(json.dumps({"id": number}) + "\n")
        ticker.stdin.flush()
        ticker.stdout.readline()
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(TICK_EVERY_SEC)
    ticker.stdin.close()
    ticker.wait(20)
    return round(statistics.median(times[2:]), 1)


def get(url: str) -> bytes:
    """The answer's body."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def _listen(url: str) -> socket.socket:
    place = urlsplit(url)
    made = socket.create_connection((str(place.hostname), place.port or 0))
    made.sendall(f"GET /v1/events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
    made.recv(100)
    return made


def _memory_mb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    raise OSError(f"no process {pid} on {os.uname().nodename}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
