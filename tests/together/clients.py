"""What people and programs do with two servers at once: submit, look, upload, operate; and cron, and trouble."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stores import CHECKOUT, environment, ready

from parallelhassnes.admin.cron import crontab_line
from tests.together import shapes
from tests.together.servers import Client
from tests.together.shared import Together

FILL = 12
"""Steps that are ready before no more tables are submitted."""


# --- submit -------------------------------------------------------------------------------------------


def submit(shared: Together, client: Client) -> None:
    """Table after table, by server and by command line, as long as few steps wait."""
    while not shared.stop.wait(client.chance.uniform(0.0, 2 * shared.pace.gap_sec)):
        if ready(shared.layout) < FILL:
            way = client.chance.choice([_post, _post, _twice, _cli])
            made = shared.next_table()
            shared.made[way(shared, client, made.file)] = made
            shared.count(f"by {way.__name__.strip('_')}")


def run(shared: Together, client: Client) -> None:
    """``run``, which submits a table and ticks until that is done."""
    while not shared.stop.wait(client.chance.uniform(0.0, 2 * shared.pace.run_sec)):
        made = shared.next_table()
        arguments = ("run", "-c", str(made.file), "--quiet", "--json", "--fail-on", "never")
        shared.made[json.loads(program(shared, *arguments))["batch_id"]] = made
        shared.count("by run")


def _post(shared: Together, client: Client, file: Path) -> str:
    return str(client.good("POST", "/v1/batches", content=file.read_bytes())["batch_id"])


def _twice(shared: Together, client: Client, file: Path) -> str:
    """To both servers at the same moment: one batch."""

    def post(name: str) -> dict[str, Any]:
        own = shared.client(f"{file.name} {name}")
        try:
            found: dict[str, Any] = own.good("POST", "/v1/batches", content=file.read_bytes())
        finally:
            own.close()
        return found

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(post, ("one", "other"))
    if one["batch_id"] != other["batch_id"]:
        shared.wrong.say(f"{file.name}: submitted at once, became {one} and {other}")
    return str(one["batch_id"])


def _cli(shared: Together, _client: Client, file: Path) -> str:
    said = program(shared, "submit", str(file), "--json")
    return str(json.loads(said)["batch_id"])


def program(shared: Together, *arguments: str) -> str:
    """Run the command line to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", *arguments, "--root", str(shared.layout.root)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
        check=False,
    )
    if done.returncode or "Traceback" in done.stderr:
        shared.wrong.say(f"{arguments[:2]}: exit {done.returncode} {done.stderr[-500:]}")
    return done.stdout


# --- trouble, cron ------------------------------------------------------------------------------------


def trouble(shared: Together, client: Client) -> None:
    """Now and then kill or stop a server, and start it again."""
    chance, mean = client.chance, shared.pace.trouble_sec
    while not shared.stop.wait(mean * chance.uniform(0.5, 1.5)):
        server = chance.choice(shared.servers)
        kill = chance.random() < 0.7
        server.end(signal.SIGKILL if kill else signal.SIGTERM)
        shared.count("server kills" if kill else "server stops")
        shared.stop.wait(chance.uniform(0, min(5.0, mean / 4)))
        server.start()


def cron(shared: Together) -> None:
    """The line of ``crontab`` at an interval, with no more in its environment than cron gives; it has nothing to say."""
    line = crontab_line(shared.layout.root).text.removeprefix("* * * * * ").replace("\\%", "%")
    bare = {"HOME": str(shared.layout.root.parent), "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    while not shared.over.wait(shared.pace.cron_sec):
        done = subprocess.run(
            ["/bin/sh", "-c", line], env=bare, cwd=bare["HOME"], capture_output=True, text=True, check=False
        )
        shared.count("cron ticks")
        if done.returncode or done.stdout or done.stderr:
            shared.wrong.say(f"cron: exit {done.returncode} {done.stdout[-500:]}{done.stderr[-500:]}")


# --- look ---------------------------------------------------------------------------------------------

PLACES = (
    "/v1/batches?limit=20",
    "/v1/scoreboards/system",
    "/v1/queue",
    "/v1/runners",
    "/v1/limits",
    "/v1/tasks",
    "/v1/errors",
    "/health",
    "/metrics",
    "/",
    "/v1/batches/{batch}",
    "/v1/batches/{batch}/scoreboard",
    "/v1/batches/{batch}/jobs",
    "/v1/batches/{batch}/steps",
    "/v1/batches/{batch}/explain",
    "/v1/batches/{batch}/analyses",
    "/batches/{batch}",
)


def look(shared: Together, client: Client) -> None:
    """Poll as pages and scripts do, with the ETag of the last answer where there was one."""
    tags: dict[str, str] = {}
    while not shared.stop.wait(client.chance.uniform(0.2, 2.0)):
        place = client.chance.choice(PLACES)
        if "{batch}" in place:
            if not shared.made:
                continue
            place = place.format(batch=client.chance.choice(list(shared.made)))
        answer = client.ask("GET", place, headers={"If-None-Match": tags[place]} if place in tags else {})
        if answer.status_code not in (200, 304):
            shared.wrong.say(f"GET {place}: {answer.status_code} {answer.text[:300]}")
        if tag := answer.headers.get("etag"):
            tags[place] = tag
        shared.count("looks")


def operate(shared: Together, client: Client) -> None:
    """Pause and resume, priorities, ticks: words of operators that change when things run, and not what comes of it."""
    while not shared.stop.wait(client.chance.uniform(2.0, 6.0)):
        if not shared.made:
            continue
        batch = client.chance.choice(list(shared.made)[-3:])
        match client.chance.randrange(4):
            case 0:
                client.good("POST", f"/v1/batches/{batch}/pause?reason=lunch")
                shared.stop.wait(client.chance.uniform(0.5, 3.0))
                client.good("POST", f"/v1/batches/{batch}/resume")
            case 1:
                client.good("POST", "/v1/runners/local/drain?reason=lunch")
                shared.stop.wait(client.chance.uniform(0.2, 1.0))
                client.good("POST", "/v1/runners/local/undrain")
            case _:
                client.good("POST", "/v1/tick")
        shared.count("words of operators")


def upload(shared: Together, client: Client) -> None:
    """The same task, again and again: stored once."""
    while not shared.stop.wait(client.chance.uniform(5.0, 20.0)):
        send_task(shared, client)


def send_task(shared: Together, client: Client) -> None:
    """Upload the task; where it is stored stays the same."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(shapes.TASKS / shapes.UPLOADED, arcname=shapes.UPLOADED)
    archive_file = ("task.tar.gz", made.getvalue())
    tasks = client.good("POST", "/v1/tasks", files=[("file", archive_file)])["tasks"]
    path = shared.uploaded or tasks[0]["path"]
    if [task["path"] for task in tasks] != [path]:
        shared.wrong.say(f"upload: {tasks} instead of {path}")
    shared.uploaded = path
    shared.count("uploads")
