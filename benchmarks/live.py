"""Many attempts alive at once on this machine: what they weigh, whether their hearts beat on time, what a tick costs."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import meter
from benchmarks import setting as s
from benchmarks.results import OURS, Figure, Row, Side
from benchmarks.setting import CHECKOUT, Setting

_COUNT, _QUICK_COUNT = 600, 3
_WATCH_SEC = 30.0
_POLL_SEC = 0.5
_LAUNCH_SEC = 300.0
_TICKS = 5


def live(setting: Setting) -> Row:
    """Sandbox trials whose agent sleeps: start them, watch their states for a while, tick meanwhile, cancel."""
    count = _QUICK_COUNT if setting.quick else _COUNT
    row = Row(name="live", work=f"{count} trials in the sandbox at once, their agents asleep")
    folder = setting.root("live")
    table = _table(folder, count)
    root = ("--root", str(folder))
    command = s.ours("tick", "--concurrency", str(count), *root)
    _call(*s.ours("submit", str(table), *root))
    began = time.monotonic()
    try:
        _call(*command)
        states = _all_asleep(folder, count)
        launched = time.monotonic() - began
        late = _watch(states, 2.0 if setting.quick else _WATCH_SEC)
        weight = sum(_weight(json.loads(path.read_bytes())["pid"]) for path in states)
        ticks = [_timed(*command) for _ in range(setting.runs(_TICKS))]
    finally:
        _call(*s.ours("cancel", "latest", *root))
        _call(*s.ours("tick", "--until-idle", "--fail-on", "never", *root))
    row.sides = [Side(name=OURS, command=command)]
    row.figures = [
        Figure(measure="all at work after", unit="s", ours=launched, goal=25.0),
        Figure(measure="memory of all together (PSS)", unit="MB", ours=weight / 1e6, goal=6000.0),
        Figure(measure="longest time without a heartbeat (one is due every 5 s)", unit="s", ours=late, goal=10.0),
        Figure(measure="tick meanwhile: wall", unit="s", ours=median(ticks), goal=0.5),
    ]
    return row


def _table(folder: Path, count: int) -> Path:
    task = shutil.copytree(CHECKOUT / "examples/tasks/slow", folder / "asleep")
    (task / "solution/solve.sh").write_text("#!/bin/sh\nexec sleep 3600\n", encoding="utf-8")
    toml = (task / "task.toml").read_text(encoding="utf-8")
    (task / "task.toml").write_text(toml.replace("timeout_sec = 60", "timeout_sec = 3600"), encoding="utf-8")
    sweep: dict[str, Any] = {
        "path": str(task),
        "agents": [{"name": "oracle", "n_trials": count}],
        "environment": "sandbox",
    }
    table = {"spec_version": "2.0", "sweep": sweep}
    return s.write_json(folder / "table.json", table)


def _all_asleep(folder: Path, count: int) -> list[Path]:
    """The attempts' ``state.json`` once every agent is at work."""
    end = time.monotonic() + _LAUNCH_SEC
    while True:
        paths = list(folder.glob("runs/*/*/steps/*/attempts/*/state.json"))
        states = [json.loads(path.read_bytes()) for path in paths]
        asleep = sum(state.get("phase") == "agent" for state in states)
        if asleep == count:
            return paths
        if time.monotonic() > end:
            raise TimeoutError(f"{folder}: {asleep} of {count} agents run")
        time.sleep(_POLL_SEC)


def _watch(states: list[Path], seconds: float) -> float:
    """The longest time, in seconds, that a heartbeat's counter stood still."""
    seen: dict[Path, tuple[int, float]] = {}
    longest, end = 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        for path in states:
            state = json.loads(path.read_bytes())
            if state["status"] != "running":
                raise ValueError(f"{path}: {state['status']}")
            count = state["heartbeat"]["count"]
            before, since = seen.get(path, (None, now))
            longest = max(longest, now - since)
            if count != before:
                seen[path] = (count, now)
        time.sleep(_POLL_SEC)
    return longest


def _weight(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    return meter.rollup(pid, "Pss") + sum(_weight(child) for child in meter.children(pid))


def _timed(*command: str) -> float:
    began = time.monotonic()
    _call(*command)
    return time.monotonic() - began


def _call(*command: str) -> None:
    done = subprocess.run(command, env=s.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise meter.CommandFailed(f"exit code {done.returncode}\n{done.stderr}")
