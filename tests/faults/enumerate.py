"""Every kill point of a scenario, one after the other: ``python -m tests.faults.enumerate SCENARIO [I/N]``.

The scenario is run once to record the acts that its processes make; then, for every act and its first,
second and last occurrence, once more with a SIGKILL there. After each run come ticks until nothing is
left to do, then the invariants. Prints one JSON object: the points that are known and those that were died
at, and what broke.

This process is one thread and adopts every orphan, so "no process is left" is "no child is left".
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stores

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import currents
from tests.faults import drive, injector, invariants, scenarios
from tests.faults.injector import Target

CONFIG = "durable = false\nconcurrency = 2\nenvironment = 'sandbox'\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=sorted(scenarios.ALL))
    parser.add_argument("shard", nargs="?", default="0/1")
    parser.add_argument("--only", help="part of a point's name")
    parser.add_argument("--once", action="store_true", help="only one occurrence of each act")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--least", type=int, default=0, help="runs to make, however long they take")
    parser.add_argument("--seed", type=int, default=None, help="of the order of the points")
    given = parser.parse_args(arguments)
    part, parts = map(int, given.shard.split("/"))
    scenario = scenarios.ALL[given.scenario]
    drive.prepare(trials=scenario in scenarios.WITH_TRIALS)
    currents.WHOLE = scenario.whole
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=drive.MEMORY if drive.MEMORY.is_dir() else None))
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    try:
        found = _targets(folder, scenario)
        targets = [t for t in found if given.only is None or given.only in t.name][part::parts]
        if given.once:
            targets = list({target.name: target for target in chance.sample(targets, len(targets))}.values())
        chance.shuffle(targets)
        outcome = _kill_at_each(folder, scenario, targets, given.seconds, given.least)
    finally:
        processes.kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"seed": seed, "known": sorted({target.name for target in found}), **outcome}))
    return 1 if outcome["broken"] else 0


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


def _kill_at_each(
    folder: Path, scenario: scenarios.Scenario, targets: list[Target], seconds: float, least: int
) -> dict[str, Any]:
    """Die at each target in turn, as long as there is time, and at the ``least`` first ones in any case."""
    reached: list[str] = []
    runs, bad, began = 0, {}, time.monotonic()
    for target in targets:
        if runs >= least and time.monotonic() - began > seconds:
            break
        ctx = _fresh(folder)
        wrong = _play(ctx, scenario, folder / "faults", target)
        runs += 1
        if injector.fired(folder / "faults"):
            reached.append(target.name)
        if wrong:
            bad[f"{target.name} #{target.nth}"] = wrong
            if keep := os.environ.get("FAULTS_KEEP"):
                shutil.copytree(ctx.layout.root, Path(keep) / str(len(bad)), symlinks=True)
    taken = round(time.monotonic() - began, 1)
    return {"runs": runs, "reached": len(reached), "seconds": taken, "points": sorted(set(reached)), "broken": bad}


def _fresh(folder: Path) -> Context:
    for name in ("root", "faults"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "root").mkdir()
    return stores.context(folder / "root", CONFIG)


def _play(ctx: Context, scenario: scenarios.Scenario, folder: Path, target: Target | None) -> list[str]:
    """Run the story with a kill at the target; what is wrong at the end."""

    def watched(role: str, do: Callable[[Context], object]) -> None:
        drive.run(lambda: (injector.install(ctx.layout.root, folder, role, target), do(ctx)))

    try:
        for act in scenario.acts:
            drive.until(lambda act=act: act.wait(ctx), ctx, f"what {act.role} waits for")
            watched(act.role, act.do)
            if target is not None and injector.fired(folder):
                drive.run(lambda act=act: act.do(ctx))
            watched("tick", tick)
        drive.until_nothing_is_left(ctx)
    except drive.TookTooLong as error:
        processes.kill_descendants()
        return [str(error), *_broken(ctx, scenario, scenario.ends)]
    by_worker = target is not None and target.name.startswith("worker:")
    return _broken(ctx, scenario, scenario.worker_ends if by_worker else scenario.ends)


def _broken(ctx: Context, scenario: scenarios.Scenario, ends: dict[str, set[str]]) -> list[str]:
    found = invariants.broken(ctx, ends, tables=scenario.tables)
    return found + (scenario.broken(ctx) if len(ctx.layout.batch_ids()) == scenario.tables else [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
