"""Making stores for tests: command tables, real ticks in processes of their own, waiting on conditions."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import warm

from parallelhassnes.actions.submit import submit
from parallelhassnes.admin.init import ensure
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import delayed, tickets

CHECKOUT = Path(__file__).resolve().parents[2]
SUPPORT = {"PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "tests", CHECKOUT / "tests" / "support")))}
"""For processes that take agents or environments of this folder by their import path."""


def context(root: Path, toml: str = "") -> Context:
    """The context of a fresh root; beats fast so that tests can watch."""
    (root / "parallelhassnes.toml").write_text("heartbeat_sec = 0.2\ngrace_sec = 3\n" + toml)
    ctx = open_context(root)
    ensure(ctx, make=True)
    return ctx


def command(step_id: str, *argv: str, **more: Any) -> dict[str, Any]:
    """A command step of a table."""
    return {"step_id": step_id, "kind": "command", "command": list(argv), **more}


def shell(step_id: str, script: str, **more: Any) -> dict[str, Any]:
    return command(step_id, "sh", "-c", script, **more)


def job(job_id: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"job_id": job_id, "steps": list(steps), **more}


def table(*jobs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"spec_version": "2.0", "jobs": list(jobs), **more}).encode()


def put(ctx: Context, data: bytes, *, again: bool = True) -> str:
    """Submit; the batch id."""
    return submit(ctx, data, name="table.json", folders=[CHECKOUT], again=again).batch_id


def program(
    root: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    check: bool = True,
    timeout_sec: float = 100,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run ``parallelhassnes ARGUMENTS --root ROOT`` to its end: as a fork of a warm process, where nothing asks for a fresh one."""
    words, cwd, typed = [*arguments, "--root", str(root)], more.pop("cwd", CHECKOUT), more.pop("input", None)
    if not more and warm.serves(environment(env)):
        done = warm.run(words, env=environment(env), cwd=cwd, timeout=timeout_sec, typed=typed)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "parallelhassnes", *words],
            input=typed,
            capture_output=True,
            text=True,
            env=environment(env),
            timeout=timeout_sec,
            cwd=cwd,
            **more,
        )
    if check:
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def python(
    code: str,
    *arguments: object,
    env: dict[str, str] | None = None,
    check: bool = True,
    timeout_sec: float = 110,
    cwd: Path = CHECKOUT,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a text of Python to its end in a process that has loaded nothing before; it finds the modules of this folder."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment({**SUPPORT, **(env or {})}),
        timeout=timeout_sec,
        cwd=cwd,
        **more,
    )
    if check:
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def readers_place(folder: Path) -> tuple[Path, dict[str, str]]:
    """Where a reader of the documents types: a checkout's folder, and the environment, with the program on the PATH."""
    program = folder / "bin" / "parallelhassnes"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m parallelhassnes "$@"\n')
    program.chmod(0o755)
    place = folder / "checkout"
    place.mkdir()
    (place / "examples").symlink_to(CHECKOUT / "examples")
    return place, environment({"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"})


def started(root: Path, *arguments: str, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
    """Start the program and leave it running; a fork, as ``program`` has it."""
    words, pipe = [*arguments, "--root", str(root)], subprocess.PIPE
    how = {"stdout": pipe, "stderr": pipe, "env": environment(env), "cwd": CHECKOUT}
    if not more and warm.serves(how["env"]):
        return warm.Program(words, **how)
    return subprocess.Popen([sys.executable, "-m", "parallelhassnes", *words], text=True, **how, **more)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), **(more or {})}


def wait_for(condition: Callable[[], object], what: str, deadline_sec: float = 60.0) -> Any:
    """Poll until the condition is true; its value."""
    end = time.monotonic() + deadline_sec
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline_sec} s for {what}"
        time.sleep(0.01)


def idle(ctx: Context) -> bool:
    """Nothing runs, nothing is about to.

    Looked at twice, in the order in which tickets move: one that moves meanwhile is met in its next place. What was added
    and a crash has kept from the queue counts, too: the pass that gives it its tickets may be another process's.
    """
    layout = ctx.layout
    return not any(
        any(layout.added.glob("*"))
        or any(True for _ in tickets.ready_folders(layout))
        or tickets.running(layout)
        or tickets.ended(layout)
        or delayed.every(layout)
        for _ in range(2)
    )


def ready(layout: Layout) -> int:
    """How many steps wait in the queue for a pass to start them."""
    return sum(1 for *_, folder in tickets.ready_folders(layout) for _ in tickets.in_order(folder))


def states(ctx: Context, batch_id: str) -> dict[str, list[str]]:
    """job/step → statuses of its attempts, oldest first."""
    found: dict[str, list[str]] = {}
    for path in attempt_dirs(ctx, batch_id):
        state = json.loads((path / "state.json").read_text())
        found.setdefault(step_of(path), []).append(state["status"])
    return found


def attempt_dirs(ctx: Context, batch_id: str) -> Iterator[Path]:
    """Every attempt's folder of the batch, by step, oldest first."""
    yield from sorted(ctx.layout.batch(batch_id).glob("*/steps/*/attempts/[!.]*"))


def step_of(attempt_dir: Path) -> str:
    return f"{attempt_dir.parents[3].name}/{attempt_dir.parents[1].name}"


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
