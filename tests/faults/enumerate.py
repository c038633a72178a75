"""Every kill point of a scenario, one after the other: ``python -m tests.faults.enumerate SCENARIO [I/N]``.

The scenario is run once to record the acts that its processes make; then, for every act and its first,
second and last occurrence, once more with a SIGKILL there. After each run come ticks until nothing is
left to do, then the invariants. Prints one JSON object: the points, how many were reached, what broke.

This process is one thread and adopts every orphan, so "no process is left" is "no child is left".
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps import registry, report
from tests import stores
from tests.faults import injector, invariants, scenarios
from tests.faults.injector import Target

DEADLINE_SEC = 20.0
TICK_EVERY_SEC = 0.25
MEMORY = Path("/dev/shm")
"""Stores on a disk of memory are laid out and removed several times as fast."""
CONFIG = "durable = false\nconcurrency = 2\nenvironment = 'sandbox'\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=sorted(scenarios.ALL))
    parser.add_argument("shard", nargs="?", default="0/1")
    parser.add_argument("--only", help="part of a point's name")
    given = parser.parse_args(arguments)
    part, parts = map(int, given.shard.split("/"))
    scenario = scenarios.ALL[given.scenario]
    processes.adopt_orphans()
    _preload(scenario)
    gc.collect()
    gc.freeze()
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        targets = [t for t in _targets(folder, scenario) if given.only is None or given.only in t.name]
        outcome = _kill_at_each(folder, scenario, targets[part::parts])
    finally:
        processes.kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    outcome["points"] = sorted({target.name for target in targets})
    print(json.dumps(outcome))
    return 1 if outcome["broken"] else 0


def _preload(scenario: scenarios.Scenario) -> None:
    report.preload()
    if scenario is scenarios.TRIAL:
        from parallelhassnes.steps import trial_preload

        registry.kind("verdict")
        trial_preload.preload()
        trial_preload.preload_agent("oracle")


def _targets(folder: Path, scenario: scenarios.Scenario) -> list[Target]:
    ctx = _fresh(folder)
    wrong = _play(ctx, scenario, folder / "faults", None)
    if wrong:
        raise AssertionError(f"without any kill: {wrong}")
    return [
        Target(name, nth)
        for name, count in sorted(injector.recorded(folder / "faults").items())
        for nth in sorted({1, 2, count} & set(range(1, count + 1)))
    ]


def _kill_at_each(folder: Path, scenario: scenarios.Scenario, targets: list[Target]) -> dict[str, Any]:
    reached, bad, began = 0, {}, time.monotonic()
    for target in targets:
        ctx = _fresh(folder)
        wrong = _play(ctx, scenario, folder / "faults", target)
        reached += injector.fired(folder / "faults")
        if wrong:
            bad[f"{target.name} #{target.nth}"] = wrong
            if keep := os.environ.get("FAULTS_KEEP"):
                shutil.copytree(ctx.layout.root, Path(keep) / str(len(bad)), symlinks=True)
    seconds = round(time.monotonic() - began, 1)
    return {"runs": len(targets), "reached": reached, "seconds": seconds, "broken": bad}


def _fresh(folder: Path) -> Context:
    for name in ("root", "faults"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "root").mkdir()
    return stores.context(folder / "root", CONFIG)


def _play(
    ctx: Context, scenario: scenarios.Scenario, folder: Path, target: Target | None
) -> list[str]:
    """Run the story with a kill at the target; what is wrong at the end."""

    def watched(role: str, do: Callable[[Context], object]) -> None:
        with _child(lambda: (injector.install(ctx.layout.root, folder, role, target), do(ctx))):
            pass

    try:
        for act in scenario.acts:
            _until(lambda act=act: act.wait(ctx), ctx, "the wait before " + act.role)
            watched(act.role, act.do)
            if target is not None and injector.fired(folder):
                with _child(lambda act=act: act.do(ctx)):
                    pass
            watched("tick", tick)
        _until(lambda: stores.idle(ctx) and not ctx.layout.pass_wanted.exists(), ctx, "the store to be idle")
        _wait(lambda: not _children(), "every process to end")
        _an_hour_later(ctx)
    except TimeoutError as error:
        _end_all()
        return [str(error), *invariants.broken(ctx, scenario.ends)]
    by_worker = target is not None and target.name.startswith("worker:")
    return invariants.broken(ctx, scenario.worker_ends if by_worker else scenario.ends)


def _an_hour_later(ctx: Context) -> None:
    """One more tick, after the time at which what may still be in somebody's hands is given up."""
    for path in ctx.layout.incoming.iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    with _child(lambda: tick(ctx)):
        pass


@contextlib.contextmanager
def _child(do: Callable[[], object]) -> Iterator[None]:
    """Run in a forked child and wait for it; it may be killed, but it must not fail."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            do()
            code = 0
        except BaseException:  # noqa: BLE001 - the last frame of a process
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    yield
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise TimeoutError("a process of ours failed; see stderr")


def _until(condition: Callable[[], bool], ctx: Context, what: str) -> None:
    """Tick, as cron would, until the condition holds."""
    next_tick = time.monotonic() + TICK_EVERY_SEC

    def look() -> bool:
        nonlocal next_tick
        if condition():
            return True
        if time.monotonic() > next_tick or not _children():
            with _child(lambda: tick(ctx)):
                pass
            next_tick = time.monotonic() + TICK_EVERY_SEC
        return False

    _wait(look, what)


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_SEC
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {DEADLINE_SEC:g} s for {what}")
        _reap()
        time.sleep(0.002)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _children() -> list[int]:
    _reap()
    return processes.children(os.getpid())


def _end_all() -> None:
    processes.kill_descendants()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
