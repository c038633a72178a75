"""Server-sent events: whole, resumed, shared by many, and not held up by one that is slow."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from api_checks import is_problem
from servers import serving
from stores import context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.refs import resolve
from parallelhassnes.store import attempts


def events(lines: Iterator[str]) -> Iterator[dict]:
    """The events of a stream, without pings."""
    event: dict = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "":
            if event:
                yield {**event, "data": json.loads(event["data"])}
            event = {}
        elif name in ("event", "data", "id"):
            event[name] = value


@contextlib.contextmanager
def listening(server, path: str, last: str | None = None, **params):
    """The events of a stream of the server."""
    headers = {"Last-Event-ID": last} if last else {}
    with server.client.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def text_of(found: list[dict], file: str = "stdout.log") -> str:
    return "".join(e["data"]["text"] for e in found if e["event"] == "log" and e["data"]["file"] == file)


def newest(ctx, batch_id: str, step: str = "j/s") -> str:
    """The run id of the step's first attempt, once it runs."""
    step_dir = ctx.layout.batch(batch_id) / step.replace("/", "/steps/")
    ref = wait_for(lambda: attempts.newest(step_dir), "the attempt")
    run_id = ref.name.partition("_")[2]
    ledger = ctx.layout.batch(batch_id) / "ledger.jsonl"
    wait_for(lambda: run_id in ledger.read_text(), "its line")
    return run_id


@pytest.fixture
def live(root):
    """A server, and an attempt that writes a line whenever the file ``go`` grows, until ``stop`` is there."""
    ctx = context(root)
    script = f"n=0; while [ ! -e {root}/stop ]; do m=$(wc -c <{root}/go); while [ $n -lt $m ]; do n=$((n+1)); echo line $n; done; sleep 0.05; done"
    (root / "go").write_text("xx")
    batch_id = put(ctx, table(job("j", shell("s", script))))
    with serving(root) as server:
        try:
            yield ctx, batch_id, newest(ctx, batch_id), server
        finally:
            (root / "stop").touch()
            wait_for(lambda: idle(ctx), "the end")


def test_a_log_is_followed_to_the_seal_and_resumed_where_it_was_left(live):
    ctx, _, run_id, server = live
    path, root = f"/v1/attempts/{run_id}/logs/stream", ctx.layout.root
    with listening(server, path) as stream:
        first = []
        while text_of(first) != "line 1\nline 2\n":
            first.append(next(stream))
    with listening(server, path, **{"from": "end"}) as fresh, listening(server, path, first[-1]["id"]) as resumed:
        (root / "go").write_text("xxxx")
        assert next(fresh)["data"]["text"].startswith("line 3\n")
        rest = [next(resumed)]
        while "line 4" not in text_of(rest):
            rest.append(next(resumed))
        (root / "stop").touch()
        rest += list(resumed)
    assert text_of(rest) == "line 3\nline 4\n"
    assert (rest[-1]["event"], rest[-1]["data"]["status"]) == ("end", "succeeded")
    with listening(server, path, rest[-1]["id"]) as over:
        assert [e["event"] for e in over] == ["end"]
    with listening(server, path) as whole:
        assert text_of(list(whole)) == "line 1\nline 2\nline 3\nline 4\n"


def test_bad_places_to_go_on_from_are_refused(live):
    _, batch_id, run_id, server = live
    for path in (f"/v1/attempts/{run_id}/logs/stream", "/v1/events"):
        for bad in ("x", "W10=", "2026-01-01@../x@3", "@@"):
            is_problem(server.client.get(path, headers={"Last-Event-ID": bad}), 400)
    is_problem(server.client.get("/v1/events?batch=nope"), 404)
    is_problem(server.client.get("/v1/events?from=start"), 422)
    is_problem(server.client.get("/v1/attempts/nope/logs/stream"), 404)
    assert batch_id


def test_what_happens_is_told_to_all_and_resumed_without_a_gap(root):
    ctx = context(root)
    put(ctx, table(job("old", shell("s", "true"))))
    with serving(root, "--no-tick") as server:
        with listening(server, "/v1/events") as stream:
            batch_id = put(ctx, table(job("j", shell("s", "true"))))
            submitted = next(stream)
            assert (submitted["data"]["event"], submitted["data"]["batch_id"]) == ("submitted", batch_id)
            program(root, "tick", "--until-idle", "--quiet")
            live = [submitted]
            while sum(e["data"]["event"] == "ended" for e in live) < 2:
                live.append(next(stream))
        with listening(server, "/v1/events", batch="latest", **{"from": "start"}) as stream:
            whole = [next(stream) for _ in range(3)]
        assert [e["data"]["event"] for e in whole] == ["submitted", "launched", "ended"]
        with listening(server, "/v1/events", whole[0]["id"], batch=batch_id) as stream:
            assert [next(stream)["id"] for _ in range(2)] == [e["id"] for e in whole[1:]]
        with listening(server, "/v1/events", live[0]["id"]) as stream:
            missing = {e["id"] for e in live[1:]}
            while missing:  # what other batches said shortly before may be told again
                missing.discard(next(stream)["id"])


def test_a_batch_that_is_seen_late_is_told_of_although_its_lines_are_older(root):
    """Its first line is written before it is whole; what was heard last may be another batch's of in between."""
    ctx = context(root)
    late = put(ctx, table(job("late", shell("s", "true"))))
    meta = ctx.layout.batch(late) / "batch_meta.json"
    content = meta.read_bytes()
    with serving(root, "--no-tick") as server:
        meta.unlink()
        with listening(server, "/v1/events") as stream:
            put(ctx, table(job("j", shell("s", "true"))))
            heard = next(stream)
        with serving(root, "--no-tick") as other:
            meta.write_bytes(content)
            with listening(other, "/v1/events", heard["id"]) as stream:
                told = next(stream)["data"]
                assert (told["batch_id"], told["event"]) == (late, "submitted")


def test_two_hundred_listeners_cost_little_and_leave_nothing(live):
    ctx, _, run_id, server = live
    pid = server.process.pid
    server.client.get("/v1/batches")
    before = _memory_mb(pid), _descriptors(pid)
    sockets = [_open(server, f"/v1/attempts/{run_id}/logs/stream") for _ in range(100)]
    sockets += [_open(server, "/v1/events") for _ in range(100)]
    try:
        for one, first in zip(sockets, [b"line 2"] * 100 + [b": listening"] * 100, strict=True):
            assert b" 200 " in _until(one, first)[:15]
        began = _cpu_sec(pid)
        time.sleep(2)  # what it costs to have them wait
        assert _cpu_sec(pid) - began < 1.0
        (ctx.layout.root / "go").write_text("x" * 50)
        for one in sockets[:100]:
            _until(one, b"line 50")
        assert _memory_mb(pid) - before[0] < 60
    finally:
        for one in sockets:
            one.close()
    wait_for(lambda: _descriptors(pid) <= before[1] + 2, "the end of all streams")


def test_a_slow_reader_hurts_nobody(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", "head -c 30000000 /dev/zero | tr '\\0' 'x' | fold -w 99; sleep 3"))))
    with serving(root) as server:
        run_id = newest(ctx, batch_id)
        log = resolve(ctx.layout, run_id).folder(ctx.layout) / "stdout.log"
        wait_for(lambda: log.exists() and log.stat().st_size > 30_000_000, "the log")
        before = _memory_mb(server.process.pid)
        slow = [_open(server, f"/v1/attempts/{run_id}/logs/stream") for _ in range(20)]
        try:
            size = 0
            with listening(server, f"/v1/attempts/{run_id}/logs/stream") as stream:
                for event in stream:
                    size += len(event["data"].get("text", ""))
            assert size > 30_000_000
            assert server.client.get("/health", timeout=20).status_code == 200
            assert _memory_mb(server.process.pid) - before < 50
        finally:
            for one in slow:
                one.close()
        wait_for(lambda: idle(ctx), "the end")


def test_streams_end_with_the_server_whole_and_without_a_word(live):
    _, _, run_id, server = live
    listens, whole = threading.Event(), threading.Event()

    def listen():
        with httpx.Client(base_url=server.url) as client:
            with client.stream("GET", f"/v1/attempts/{run_id}/logs/stream", timeout=60) as answer:
                for _ in answer.iter_lines():
                    listens.set()
            whole.set()  # a body that was cut off would have raised

    threading.Thread(target=listen, daemon=True).start()
    assert listens.wait(60)
    said = server.end()
    assert whole.wait(60)
    assert "ERROR" not in said


def _open(server, path: str) -> socket.socket:
    """A connection that has asked for a stream, with little room for what comes."""
    place = urlsplit(server.url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(60)
    made.connect((place.hostname, place.port))
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
    return made


def _until(one: socket.socket, what: bytes) -> bytes:
    """What has come once this was in it."""
    data = b""
    while what not in data:
        piece = one.recv(4096)
        assert piece, data
        data += piece
    return data


def _memory_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def _descriptors(pid: int) -> int:
    import os

    return len(os.listdir(f"/proc/{pid}/fd"))


def _cpu_sec(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
