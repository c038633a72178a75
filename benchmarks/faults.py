"""``harbor run`` and this project under the same fault: ``python benchmarks/faults.py [--only Docker]``.

A job of four oracle trials, two at a time, whose solution sleeps for five seconds. When two are at work, the
driver gets ``kill -9``: for ``harbor run`` its process; for this project either the watching ``run``, or, which
is worse, that and every supervisor and worker. Ten seconds later the table's "left" is counted, then the work
is taken up by the means that each has (``harbor job resume``; ``tick``), and counted again at the end.
Prints a table in Markdown. Needs Docker, and harbor in the same environment.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
TRIALS, AT_ONCE, WORK_SEC, SETTLE_SEC = 4, 2, 5.125, 10
TASK = f"peers{os.getpid()}"
"""Part of every name that a trial gives to Docker, so that others on the host are left alone."""
HARBOR = [str(Path(sys.executable).with_name("harbor"))]
OURS = [sys.executable, "-m", "parallelhassnes"]
ENVIRONMENTS = {
    "Docker": {"type": "docker"},
    "sandbox": {"import_path": "parallelhassnes.sandbox.environment:SandboxEnvironment"},
}


class Row(NamedTuple):
    """One line of the table."""

    what: str
    left: str
    lost: str
    again_sec: str
    at_the_end: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ENVIRONMENTS)
    given = parser.parse_args()
    print("| fault | left 10 s later | trials lost | working again after | left at the end |")
    print("|---|---|---|---|---|")
    for name, environment in ENVIRONMENTS.items():
        if given.only in (None, name):
            for play in (_harbor, _ours_driver, _ours_all):
                folder = Path(tempfile.mkdtemp(prefix="peers-"))
                try:
                    print("| " + " | ".join(play(folder, name, environment)) + " |", flush=True)
                finally:
                    _end(_marked(folder))
                    _clear()
                    shutil.rmtree(folder, ignore_errors=True)


def _config(folder: Path, environment: dict[str, str]) -> Path:
    task = folder / TASK
    shutil.copytree(CHECKOUT / "examples/tasks/hello", task)
    toml = task / "task.toml"
    toml.write_text(re.sub(r"(?m)^name = .*$", f'name = "peers/{TASK}"', toml.read_text()))
    solve = task / "solution" / "solve.sh"
    solve.write_text(solve.read_text().replace("\n", f"\nsleep {WORK_SEC}\n", 1))
    path = folder / "job.json"
    path.write_text(
        json.dumps(
            {
                "job_name": "job",
                "jobs_dir": str(folder / "jobs"),
                "n_attempts": TRIALS,
                "n_concurrent_trials": AT_ONCE,
                "environment": environment,
                "agents": [{"name": "oracle"}],
                "tasks": [{"path": str(task)}],
            }
        )
    )
    return path


def _harbor(folder: Path, name: str, environment: dict[str, str]) -> Row:
    before = _docker()
    driver = _start(folder, [*HARBOR, "run", "--yes", "-c", str(_config(folder, environment))])
    job = folder / "jobs" / "job"
    _until(lambda: _at_work() >= AT_ONCE, "two trials")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(SETTLE_SEC)
    left = _left(folder, before)
    began = time.monotonic()
    started = len(list(job.glob("*/config.json")))
    without = {p.parent for p in job.glob("*/config.json") if not (p.parent / "result.json").exists()}
    here, live = _docker(), _at_work()
    again = _start(folder, [*HARBOR, "job", "resume", "--job-path", str(job)])
    _until(lambda: again.poll() is not None or _new_work(here, live), "work", 60)
    seconds = f"{time.monotonic() - began:.1f} s, by hand" if again.poll() is None else "never"
    again.wait(180)
    deleted = sum(not folder.exists() for folder in without)
    lost = f"{len(without)} of {started} started; {deleted} folders deleted on resume"
    return Row(f"{name}: `harbor run` killed", left, lost, seconds, _left(folder, before))


def _ours_driver(folder: Path, name: str, environment: dict[str, str]) -> Row:
    return _ours(folder, name, environment, everything=False)


def _ours_all(folder: Path, name: str, environment: dict[str, str]) -> Row:
    return _ours(folder, name, environment, everything=True)


def _ours(folder: Path, name: str, environment: dict[str, str], *, everything: bool) -> Row:
    before = _docker()
    root = folder / "root"
    root.mkdir()
    table = _config(folder, environment)
    document = json.loads(table.read_text())
    del document["jobs_dir"]
    table.write_text(json.dumps(document))
    _run(folder, [*OURS, "init", "--root", str(root)])
    _run(folder, [*OURS, "submit", str(table), "--root", str(root)])
    driver = _start(folder, [*OURS, "tick", "--until-idle", "--root", str(root)])
    _until(lambda: _at_work() >= AT_ONCE, "two trials")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    if everything:
        for state in _states(root):
            for key in ("pid", "worker_pid"):
                if state["status"] == "running" and key in state:
                    _end([state[key]])
    dead = sum(state["status"] == "running" for state in _states(root)) if everything else 0
    time.sleep(SETTLE_SEC)
    left = _left(folder, before) if everything else "nothing: the supervisors go on"
    began = time.monotonic()
    count = len(_states(root))
    _run(folder, [*OURS, "tick", "--root", str(root)])
    if everything:
        _until(
            lambda: sum(s["status"] == "running" for s in _states(root)[count:]) > 0 or len(_states(root)) > count,
            "work",
        )
    seconds = f"{time.monotonic() - began:.1f} s, by the next tick" if everything else "at once: never stopped"
    _run(folder, [*OURS, "tick", "--until-idle", "--quiet", "--root", str(root)])
    ended = [state["status"] for state in _states(root)]
    scored = ended.count("succeeded")
    lost = f"none: {scored} of {TRIALS} scored" + (f", {dead} attempts kept as lost and repeated" if dead else "")
    what = "`tick`, supervisors and workers killed" if everything else "`tick --until-idle` killed"
    return Row(f"{name}: {what}", left, lost, seconds, _left(folder, before))


def _states(root: Path) -> list[dict[str, object]]:
    paths = sorted(root.glob("runs/*/*/steps/*/attempts/*/state.json"))
    return [json.loads(path.read_text()) for path in paths if path.parents[2].name != "verdict"]


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT),
        "HARBOR_TELEMETRY": "0",
        "PEERS": str(folder),
        "TMPDIR": str(_made(folder / "tmp")),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _start(folder: Path, command: list[str]) -> "subprocess.Popen[bytes]":
    log = (folder / "log").open("ab")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(folder),
        cwd=folder,
        start_new_session=True,
    )


def _run(folder: Path, command: list[str]) -> None:
    if _start(folder, command).wait(300) not in (0, 1):
        raise SystemExit((folder / "log").read_text()[-2000:])


def _docker() -> set[str]:
    """Every container, network and image of the host, by kind and name."""
    seen = set()
    for kind, listing in (
        ("container", ["ps", "-a", "--format", "{{.Names}}"]),
        ("network", ["network", "ls", "--format", "{{.Name}}"]),
        ("image", ["image", "ls", "--format", "{{.Repository}}"]),
    ):
        done = subprocess.run(["docker", *listing], capture_output=True, text=True, check=False)
        seen |= {f"{kind} {name}" for name in done.stdout.split()}
    return seen


def _ours_in_docker(before: set[str]) -> set[str]:
    """What came since, of our own task alone: the host may be in use."""
    return {item for item in _docker() - before if item.split()[1].startswith(TASK)}


def _clear() -> None:
    """Remove what a play left in Docker, so that the next one starts from nothing."""
    for kind, removing in (("container", ["rm", "-f"]), ("network", ["rm"]), ("image", ["rm", "-f"])):
        for item in _docker():
            if item.startswith(f"{kind} {TASK}"):
                subprocess.run(["docker", kind, *removing, item.split()[1]], capture_output=True, check=False)


def _marked(folder: Path) -> list[int]:
    """Live processes that work for this play: by their command, folder or environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            zombie = b") Z " in (path / "stat").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and not zombie and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def _at_work() -> int:
    """Solutions that are being run: their sleeps, in containers or sandboxes; nobody else sleeps so long."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += path.read_bytes() == f"sleep\0{WORK_SEC}\0".encode()
        except OSError:
            continue
    return count


def _new_work(here: set[str], live: int) -> bool:
    return bool(_ours_in_docker(here)) or _at_work() > live


def _left(folder: Path, before: set[str]) -> str:
    kinds = [item.split()[0] for item in _ours_in_docker(before)]
    said = [f"{kinds.count(kind)} {kind}s" for kind in ("container", "network", "image") if kind in kinds]
    if processes := len(_marked(folder)):
        said.append(f"{processes} processes")
    temporary = [p for p in (folder / "tmp").rglob("*") if p.is_file()]
    if temporary:
        said.append(f"{len(temporary)} temporary files")
    return ", ".join(said) or "nothing"


def _end(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
