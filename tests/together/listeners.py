"""Those who listen to streams, and go on at the other server where one is ended: nothing is left out."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
from stores import tickets

from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from tests.together.servers import Client, Gone
from tests.together.shared import Together

LONG_SEC = 120.0


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The events of a stream, without its pings."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("event", "data", "id"):
            event[name] = value
        elif line == "":
            if "data" in event:
                yield event
            event = {}


def follow(shared: Together, client: Client) -> None:
    """Attempts' logs from start to seal, gone on with at the other server where one is ended: whole, and nothing twice."""
    followed: set[str] = set()
    while not shared.stop.wait(0.2):
        fresh = [name for name in _live(shared.layout) if name not in followed]
        if not fresh:
            continue
        folder = Path(client.chance.choice(fresh))
        followed.add(str(folder))
        run_id = folder.name.partition("_")[2]
        texts: dict[str, str] = {}
        for event in _stream(shared, client, f"/v1/attempts/{run_id}/logs/stream"):
            if event.get("event") == "log":
                piece = json.loads(event["data"])
                texts[piece["file"]] = texts.get(piece["file"], "") + piece["text"]
            elif event.get("event") == "end":
                break
        steps = (folder / "trial" / "steps").exists()  # whose logs Harbor moves there
        for file, text in texts.items():
            if steps and file.startswith(("trial/agent/", "trial/verifier/")):
                continue
            there = (folder / file).read_text(errors="replace")
            if text != there:
                shared.wrong.say(f"log {run_id} {file}: streamed {text!r} instead of {there!r}")
        shared.count("logs followed")


def _live(layout: Layout) -> list[str]:
    """Folders of attempts that the ledger says were launched, and that are not sealed."""
    found = []
    for batch_id in {tickets.parse_name(ticket.name).batch_id for ticket in tickets.running(layout)}:
        for _, line in ledger.read(layout.batch(batch_id)):
            if line["event"] == "launched":
                step = layout.batch(batch_id) / line["job_id"] / "steps" / line["step_id"]
                folder = step / "attempts" / line["attempt"]
                found += [str(folder)] * (not (folder / "seal.json").exists())
    return found


def listen(shared: Together, client: Client, seen: Counter[str]) -> None:
    """Every line of the ledgers as an event, over the lives of both servers."""
    for event in _stream(shared, client, "/v1/events"):
        if event.get("event") == "missed":
            shared.wrong.say("events: told `missed`")
            continue
        line = json.loads(event["data"])
        seen[f"{line['batch_id']} {line['seq']}"] += 1


def hear_all(shared: Together, seen: Counter[str]) -> None:
    """Wait until every line was told of, as far as any is still to come."""
    end = time.monotonic() + 60.0
    while unheard(shared, seen) and time.monotonic() < end:
        time.sleep(0.5)


def unheard(shared: Together, seen: Counter[str]) -> list[str]:
    """Lines of the ledgers that no event told of."""
    return [
        f"events: none told of {batch_id} line {line['seq']} {line['event']}"
        for batch_id in shared.made
        for _, line in ledger.read(shared.layout.batch(batch_id))
        if not seen[f"{batch_id} {line['seq']}"]
    ]


def _stream(shared: Together, client: Client, path: str) -> Iterator[dict[str, str]]:
    """The events of a stream, gone on with where a server was ended; until everything is over."""
    last = ""
    while not shared.over.is_set():
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx.Timeout(10, read=LONG_SEC)
        answering = client.at(client.any(), "GET", path, headers=headers, timeout=timeout)
        with contextlib.suppress(Gone), answering as answer:
            if answer.status_code != 200:
                answer.read()
                shared.wrong.say(f"GET {path}: {answer.status_code} {answer.text[:300]}")
                return
            for event in events(answer.iter_lines()):
                last = event.get("id", last)
                yield event
        shared.count("streams gone on with")
