"""Random kills under load: ``python -m tests.faults.soak --seconds 600 [--seed N]``.

Rounds of a few seconds: submitters hand in tables, ticks run side by side, supervisors and workers do
their work, and at random moments a random one of all these processes gets SIGKILL. Then the kills stop,
ticks run until nothing is left, and the invariants are checked. Prints one JSON object with the counts. With ``--disturb`` processes
also stand still for a while, the configuration is edited, some ticks meet a disk that refuses, clocks are set, and the
package is upgraded in place (``disturb``); ``--before CHECKOUT`` has each round begin with a
queue that an earlier version has made and left, all its processes killed.

The program of a step holds a kernel lock of its step while it works and ends with ``TWICE`` where
another attempt has it, so that "never twice at once" is seen by those who would be the two.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import stores
from harness import make_task

from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick
from tests.faults import disturb, drive, invariants, surroundings

ROUND_SEC = 6.0
MEAN_GAP_SEC = 0.02
SUBMITTERS, TICKS = 2, 2
SPARED = 0.7
"""Of the kills while no attempt runs."""
LEFT = 4
"""Tables that an earlier version has begun."""
CONFIG = "durable = false\nconcurrency = 6\nenvironment = 'sandbox'\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, help="stop after so many kills, however long it takes")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--trials", action="store_true", help="sandbox trials among the steps")
    parser.add_argument("--disturb", action="store_true", help="more than kills")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    given = parser.parse_args(arguments)
    if given.disturb and not surroundings.are_there():
        return surroundings.live_in("tests.faults.soak", arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    chance = random.Random(seed)
    drive.prepare(trials=given.trials)
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=drive.MEMORY if drive.MEMORY.is_dir() else None))
    task = make_task(folder) if given.trials else None
    kills: Counter[str] = Counter()
    disturbed: Counter[str] | None = Counter() if given.disturb else None
    attempts, rounds, bad = 0, 0, {}
    end = time.monotonic() + given.seconds
    try:
        while not bad and (kills.total() < given.kills if given.kills else time.monotonic() < end):
            left = ROUND_SEC if given.kills else min(ROUND_SEC, end - time.monotonic())
            ctx = _fresh(folder)
            wrong = _round(ctx, chance, kills, task, left, disturbed, given.before)
            attempts += sum(1 for _ in ctx.layout.runs.glob("*/*/steps/*/attempts/*"))
            rounds += 1
            if wrong:
                bad[str(rounds)] = wrong
                if keep := os.environ.get("FAULTS_KEEP"):
                    shutil.copytree(ctx.layout.root, Path(keep) / f"soak-{seed}", symlinks=True)
            print(f"{rounds} rounds, {kills.total()} kills", file=sys.stderr, flush=True)
    finally:
        processes.kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        json.dumps(
            {
                "seed": seed,
                "rounds": rounds,
                "kills": kills,
                "total": kills.total(),
                "disturbed": disturbed,
                "attempts": attempts,
                "broken": bad,
            }
        )
    )
    return 1 if bad else 0


def _fresh(folder: Path) -> Context:
    shutil.rmtree(folder / "root", ignore_errors=True)
    (folder / "root").mkdir()
    return stores.context(folder / "root", CONFIG)


def _round(
    ctx: Context,
    chance: random.Random,
    kills: Counter[str],
    task: Path | None,
    seconds: float,
    disturbed: Counter[str] | None,
    before: Path | None,
) -> list[str]:
    tables = _begun_by(before, ctx, chance, task) if before else []
    submitting: dict[int, bytes] = {}
    ticking: set[int] = set()
    disturbing: set[int] = set()
    """Ticks that a disturbance has started."""
    end = time.monotonic() + seconds
    next_kill = time.monotonic()
    disturber = None if disturbed is None else disturb.Disturber(ctx, chance, disturbed, CONFIG)
    while time.monotonic() < end:
        _reap(submitting, ticking, disturbing)
        if len(submitting) < SUBMITTERS and stores.ready(ctx.layout) < 20:
            # A user whose submission was killed does not know what came of it, and makes it again.
            again = tables and chance.random() < 0.3
            table = chance.choice(tables) if again else _table(ctx, chance, len(tables), task)
            if not again:
                tables.append(table)
            submitting[drive.start(lambda table=table: _submit(ctx, table))] = table
        if len(ticking) < TICKS:
            ticking.add(drive.start(disturber.tick if disturber else lambda: tick(ctx)))
        if disturber is not None and (pid := disturber.look()):
            disturbing.add(pid)
        while time.monotonic() >= next_kill:
            _kill_one(chance, kills, submitting, ticking | disturbing)
            next_kill += chance.expovariate(1 / MEAN_GAP_SEC)
        time.sleep(0.002)
    if disturber is not None:
        disturber.over()
    try:
        drive.wait(
            lambda: not (_reap(submitting, ticking, disturbing) or submitting or ticking or disturbing),
            "submitters and ticks",
        )
        for table in tables:
            drive.run(lambda table=table: _submit(ctx, table))
        drive.until_nothing_is_left(ctx)
    except drive.TookTooLong as error:
        processes.kill_descendants()
        return [str(error), *_broken(ctx, tables, disturber)]
    return _broken(ctx, tables, disturber)


def _broken(ctx: Context, tables: list[bytes], disturber: disturb.Disturber | None) -> list[str]:
    return invariants.broken(ctx, tables=len(tables), one_clock=disturber is None)


def _begun_by(before: Path, ctx: Context, chance: random.Random, task: Path | None) -> list[bytes]:
    """What the package of another checkout was at work on when all its processes were killed: its tables."""
    tables = [_table(ctx, chance, number, task) for number in range(LEFT)]

    def start(*arguments: str) -> None:
        line = [*processes.OURSELVES, "parallelhassnes", *arguments, "--root", str(ctx.layout.root)]
        environment = os.environ | {"PYTHONPATH": str(before)}
        drive.start(lambda: (os.dup2(2, 1), os.execve(line[0], line, environment)))

    for number, table in enumerate(tables):
        path = ctx.layout.root.parent / f"before-{number}.json"
        path.write_bytes(table)
        start("submit", str(path))
    drive.wait(lambda: not drive.children(), "the earlier version's submissions")
    start("tick")
    lives = time.monotonic() + chance.uniform(0.5, 4)
    drive.wait(lambda: time.monotonic() > lives, "the time that it has")
    processes.kill_descendants()
    return tables


def _reap(submitting: dict[int, bytes], *ticking: set[int]) -> None:
    alive = set(drive.children())
    for pid in set(submitting) - alive:
        del submitting[pid]
    for pids in ticking:
        pids.intersection_update(alive)


def _submit(ctx: Context, table: bytes) -> None:
    stores.submit(ctx, table, name="table.json", folders=[stores.CHECKOUT])


def _table(ctx: Context, chance: random.Random, number: int, task: Path | None) -> bytes:
    guards = ctx.layout.root / "guards"
    guards.mkdir(exist_ok=True)

    def step(name: str, **more: object) -> dict[str, object]:
        work = f"sleep {chance.uniform(0, 0.15):.3f}"
        # A flock that is killed itself says nothing about the lock, so only its own word counts.
        guard = f"exec 9> {guards}/{number}.{name}; flock -n -E 98 9; test $? != 98 || exit {invariants.TWICE}; {work}"
        return stores.shell(name, guard, **more)

    steps = [step("one"), step("two"), step("last", depends_on=["one", "two"])]
    if task is not None and chance.random() < 0.5:
        steps += [
            {
                "step_id": "trial",
                "kind": "trial",
                "task": {"path": str(task)},
                "agent": {"name": "oracle"},
                "environment": {"type": "sandbox"},
            },
            {"step_id": "verdict", "kind": "verdict"},
        ]
    retry = {"max_attempts": 100, "backoff_sec": chance.choice([0, 0.05])}
    return stores.table(stores.job("j", *steps), retry=retry, labels={"n": str(number)})


def _kill_one(chance: random.Random, kills: Counter[str], submitting: dict[int, bytes], ticking: set[int]) -> None:
    """SIGKILL a process: first which role, so that the many of one do not stand before the few of another."""
    by_role: dict[str, list[int]] = {}
    for pid in drive.descendants():
        role = "submitter" if pid in submitting else "tick" if pid in ticking else _role(pid)
        by_role.setdefault(role, []).append(pid)
    # On a busy machine no tick would live to start anything.
    if by_role.keys() <= {"submitter", "tick"} and chance.random() < SPARED:
        return
    # One that ticks are hardly allowed to finish would leave nothing running to be killed.
    roles = [role for role in by_role for _ in range(1 if role in ("submitter", "tick") else 3)]
    if not roles:
        return
    role = chance.choice(roles)
    if processes.send(chance.choice(by_role[role]), None, signal.SIGKILL):
        kills[role] += 1


def _role(pid: int) -> str:
    """A supervisor leads a session and has adopted its orphans; what runs below one is its worker's."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "supervisor"
    return "supervisor" if int(fields[3]) == pid else "worker"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
