"""Trials submitted by Harbor's own client: to ``harbor serve``, and to this project's server, which answers the same client.

``python -m benchmarks.serve SIDE FOLDER`` is one run: a server is started, given ``FOLDER/job.json``, and told to end once its job has. It
needs the newest Harbor, of ``tools/venv-harbor.sh``, and both sides run on that.
"""

import json
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx

from benchmarks import setting as s
from benchmarks.results import OURS, Row, compare
from benchmarks.setting import CHECKOUT, SANDBOX, Setting
from benchmarks.trials import OUR_RESULTS, check, job_config

SERVE = "harbor serve"
_NEWEST = CHECKOUT / "build/harbor-newest/.venv/bin/python"
_CONCURRENCY = 4
_LOOK_SEC = 0.05


def serve(setting: Setting) -> Row:
    """50 oracle trials in the sandbox, 4 at a time, from the start of the server to its end."""
    count = 4 if setting.quick else 50
    row = Row(
        name="serve", work=f"{count} oracle trials, sandbox environment, 4 at a time, by a server and Harbor's client"
    )
    if not _NEWEST.exists():
        row.skipped = "no newest Harbor; tools/venv-harbor.sh makes it"
        return row
    job = job_config(count, _CONCURRENCY, SANDBOX, [{"name": "oracle"}])
    programs: dict[str, tuple[s.Make, s.Check]] = {
        side: (partial(_command, side, job), partial(check, count=count, results=results))
        for side, results in ((SERVE, "files/rollouts/*/*/result.json"), (OURS, OUR_RESULTS))
    }
    sides = s.alternate(setting, row, programs, setting.runs(5), s.environment())
    row.figures = compare(sides[OURS], sides[SERVE], {})
    return row


def _command(side: str, job: dict[str, object], folder: Path) -> list[str]:
    s.write_json(folder / "job.json", job)
    return [str(_NEWEST), "-m", "benchmarks.serve", side, str(folder)]


def main(side: str, place: str) -> None:
    """Be one run."""
    from harbor import Harbor  # since 0.26: only the newest one's interpreter has it

    folder = Path(place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if side == OURS:
        subprocess.run(_ours("init", "--root", place), check=True, stdout=subprocess.DEVNULL)
        with (folder / "parallelhassnes.toml").open("a", encoding="utf-8") as settings:
            settings.write(f"\nconcurrency = {_CONCURRENCY}\n")
        command, path = _ours("api", "--root", place, "--port", port), "/harbor"
    else:
        at_once = ["--max-concurrent", str(_CONCURRENCY), "--data-dir", place]
        command, path = [sys.executable, "-m", "harbor.cli.main", "serve", "--port", port, *at_once], ""
    with subprocess.Popen(command) as server, Harbor(f"http://127.0.0.1:{port}{path}") as client:
        while True:
            try:
                job_id = client.jobs.submit(config=json.loads((folder / "job.json").read_bytes())).job_id
                break
            except httpx.TransportError:
                if server.poll() is not None:
                    raise
                time.sleep(_LOOK_SEC)
        while client.jobs.get(job_id).state != "finished":
            time.sleep(_LOOK_SEC)
        server.terminate()


def _ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "parallelhassnes", *arguments]


if __name__ == "__main__":
    main(*sys.argv[1:])
