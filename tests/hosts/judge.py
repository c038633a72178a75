"""Whether what ran, by the steps' own word, is what may run, and what the store says of it.

A run that was frozen with its host counts as live until it was frozen: another may have taken its place since. It may still come to its end when its
host goes on, as long as that is before its supervisor can have met the fence.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from stores import program

from parallelhassnes.store.layout import Layout
from tests.hosts.host import Host
from tests.hosts.witness import Ran, Witness, now

LATE_SEC = 5.0
"""After a host goes on, within which what others have taken over must have ended there."""


class Judgement(NamedTuple):
    """What came of a run."""

    faults: list[str]
    """What must not be; empty is good."""
    steps: int
    begun: int
    by_host: dict[str, int]
    peak: dict[str, int]
    """Most live at once, by host and by ``key <key>``."""
    statuses: dict[str, int]
    """Of the attempts in the store."""


def judge(
    witness: Witness,
    root: Path,
    hosts: Iterable[Host] = (),
    *,
    steps: int,
    capacity: Mapping[str, int] | None = None,
    limits: Mapping[str, int] | None = None,
) -> Judgement:
    """Judge a store that is at rest.

    Args:
        root: as this machine sees it.
        hosts: those on which nothing may be left that belongs to an attempt.
        steps: how many are to have succeeded.
        capacity: host → live runs at most.
        limits: queue key → live runs at most, over all hosts.
    """
    runs = witness.runs()
    peak = _peaks(runs)
    faults = [*_twice(runs), *_late(runs)]
    for name, most in (capacity or {}).items():
        if peak.get(name, 0) > most:
            faults.append(f"{peak[name]} at once on {name}, which takes {most}")
    for key, most in (limits or {}).items():
        if peak.get(f"key {key}", 0) > most:
            faults.append(f"{peak[f'key {key}']} at once on the key {key}, whose limit is {most}")
    statuses, of_store = _store(root, runs, steps)
    faults += of_store
    for host in hosts:
        if host.is_up and (left := _attempts_left(host)):
            faults.append(f"left on {host.name}: {left}")
    return Judgement(
        faults, len({ran.step for ran in runs}), len(runs), dict(Counter(ran.host for ran in runs)), peak, statuses
    )


def _twice(runs: list[Ran]) -> list[str]:
    by_step: dict[str, list[Ran]] = {}
    for ran in runs:
        by_step.setdefault(ran.step, []).append(ran)
    found = []
    for step, several in by_step.items():
        for before, after in pairwise(several):
            if after.began < before.until(now()):
                found.append(f"{step} began on {after.host} while it ran on {before.host}")
            if after.run_id == before.run_id:
                found.append(f"{step} was begun twice by one attempt")
    return found


def _late(runs: list[Ran]) -> list[str]:
    last = {ran.step: ran for ran in runs}
    return [
        f"{ran.step} went on for {ran.late:.1f} s on {ran.host}, which had been cut off and replaced"
        for ran in runs
        if ran.late is not None and ran.late > LATE_SEC and last[ran.step].run_id != ran.run_id
    ]


def _peaks(runs: list[Ran]) -> dict[str, int]:
    changes = []
    for ran in runs:
        over = ran.until(now())
        for name in (ran.host, f"key {ran.key}"):
            changes += [(ran.began, 1, name), (over, -1, name)]
    live: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for _, change, name in sorted(changes):
        live[name] += change
        peak[name] = max(peak[name], live[name])
    return dict(peak)


def _store(root: Path, runs: list[Ran], steps: int) -> tuple[dict[str, int], list[str]]:
    faults = []
    statuses: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    for folder in root.glob("runs/*/*/steps/*/attempts/[!.]*"):
        name = str(folder.relative_to(root / "runs"))
        try:
            status = json.loads((folder / "state.json").read_text())["status"]
        except (OSError, ValueError, KeyError) as error:
            faults.append(f"{name}: its state cannot be read: {error}")
            continue
        statuses[status] += 1
        succeeded[str(folder.parents[1])] += status == "succeeded"
        if not (folder / "seal.json").exists():
            faults.append(f"{name}: is {status} without a seal")
    done = sum(1 for count in succeeded.values() if count)
    if done != steps:
        faults.append(f"{done} of {steps} steps have succeeded")
    if again := [step for step, count in succeeded.items() if count > 1]:
        faults.append(f"{len(again)} steps have succeeded twice, {again[0]} first")
    known = {ran.run_id for ran in runs}
    if len(known) > statuses.total():
        faults.append(f"{len(known)} runs began, and the store has {statuses.total()} attempts")
    faults += _queue(root)
    audit = program(root, "audit", "verify", check=False)
    if audit.returncode:
        faults.append(f"audit verify: exit {audit.returncode}: {audit.stdout[-500:]}{audit.stderr[-500:]}")
    return dict(statuses), faults


def _queue(root: Path) -> list[str]:
    layout = Layout(root)
    left = [
        str(path.relative_to(layout.queue))
        for folder in (layout.ready, layout.running, layout.ended, layout.delayed, layout.added)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    left += [str(path.relative_to(root)) for path in root.glob("runners/*/handed/*")]
    left += [str(path.relative_to(root)) for path in root.glob("runners/*/taken/*")]
    return [f"the queue still has {left[:5]}"] if left else []


def _attempts_left(host: Host) -> list[str]:
    """Programs on the host that carry an attempt's mark."""
    found = []
    for pid in host.pids():
        try:
            marked = b"PARALLELHASSNES_RUN_ID=" in Path(f"/proc/{pid}/environ").read_bytes()
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if marked and line:
            found.append(line)
    return found
