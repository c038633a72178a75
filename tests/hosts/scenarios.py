"""What befalls several hosts while they work: one round is a store, hosts with a runner each, steps, and faults; then it is judged.

A runner is started again where it has ended, as a service manager does it; nothing else helps the store along.
"""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from stores import wait_for

from parallelhassnes.store.layout import Layout
from tests.hosts.host import Host
from tests.hosts.judge import Judgement, judge
from tests.hosts.lab import Lab

CAPACITY = 4
KEY, LIMIT = "model/one", 5
"""Half of the steps are on this key."""
MODEL, MODEL_LIMIT = "openai/tiny", 3
"""Of the trials' agent."""
LIMITS = {KEY: LIMIT, MODEL: MODEL_LIMIT}
TOML = f'durable = false\nconcurrency = 8\n[limits]\n"{KEY}" = {LIMIT}\n"{MODEL}" = {MODEL_LIMIT}\n[retry]\nbackoff_sec = 0.1\n'
ANSWERING_SEC = 75
"""A process that answers a host which has asked and lost power meanwhile ends after a minute."""
KILLED = -signal.SIGTERM & 0xFF
"""How a runner ends that was told to while it still joined."""
SKEWS = ("+2h", "-2h", "+90s")


class Round:
    """One store and its hosts, for as long as the lab."""

    def __init__(
        self,
        lab: Lab,
        names: tuple[str, ...] = ("h1", "h2", "h3"),
        *,
        chance: random.Random | None = None,
        own: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Boot the hosts.

        Args:
            own: host → the file system that it sees the store through, where that is not the lab's.
        """
        self.lab, self.chance = lab, chance or random.Random(0)
        self.hosts = [lab.host(name, file_system=own.get(name)) for name in names]
        self.runners: dict[str, subprocess.Popen[str]] = {}
        self.away: set[str] = set()
        """Hosts that are frozen or without power."""
        self.steps = self.own = 0
        """Steps that are to succeed, and those of them that speak to the witness."""
        self.told: list[str] = []
        """The faults, for whoever reads of a failure."""

    def begin(self, steps: int, seconds: float, *, trials: int = 0, **more: object) -> None:
        """Have the hosts join, submit command steps and sandbox trials that take so long each, and start their runners."""
        self.lab.join(*self.hosts)
        for number, key in enumerate((None, KEY)):
            count = steps // 2 + (steps % 2 if number else 0)
            self.lab.submit(self.hosts[0], count, seconds, key=key, **more)
        self.own += steps + trials
        self.steps += steps + trials
        if trials:
            self.lab.submit_trials(self.hosts[0], trials, seconds, MODEL)
            self.steps += 1  # their verdict
        self.keep_runners()

    def keep_runners(self) -> None:
        """Start a runner wherever there is none and its host is there."""
        for host in self.hosts:
            runner = self.runners.get(host.name)
            if host.name not in self.away and (runner is None or runner.poll() is not None):
                self.runners[host.name] = self.lab.runner(host, "--capacity", str(CAPACITY))

    def ran(self) -> int:
        """Steps whose program has come to its end."""
        return len({ran.step for ran in self.lab.witness.runs() if ran.ended is not None})

    def at_rest(self) -> bool:
        return is_at_rest(self.lab)

    def wait(self, condition: Callable[[], bool], what: str, deadline_sec: float) -> None:
        end = time.monotonic() + deadline_sec
        while not condition():
            self.keep_runners()
            assert time.monotonic() < end, f"waited {deadline_sec} s for {what}; {self.state()}"
            time.sleep(0.1)

    def state(self) -> str:
        said = "\n".join(f"-- {host.name}\n{self.lab.said(host)[-1500:]}" for host in self.hosts)
        layout = Layout(self.lab.disk)
        queue = [str(p.relative_to(layout.queue)) for p in layout.queue.rglob("*") if p.is_file()]
        left = [path for path in queue if not path.startswith(("accepted", "by_sha", "turns"))]
        return f"{self.ran()} of {self.steps} ran; faults: {self.told}; queue: {left[:8]}\n{said}"

    def end(self, deadline_sec: float = 120.0, limits: Mapping[str, int] | None = None) -> Judgement:
        """Wait until the store is at rest, have the runners end, and judge."""
        self.wait(lambda: self.at_rest() and self.ran() >= self.own, "the store to be at rest", deadline_sec)
        for host in self.hosts:
            if host.name not in self.away and self.runners[host.name].poll() is None:
                self.runners[host.name].terminate()
        for host in self.hosts:
            if host.name not in self.away:
                assert self.runners[host.name].wait(30) in (0, KILLED), self.state()
        for host in self.hosts:
            if host.name not in self.away:
                wait_for(
                    lambda host=host: not host.programs(),
                    f"the last program on {host.name}: {host.programs()}",
                    ANSWERING_SEC,
                )
        capacity = {host.name: CAPACITY for host in self.hosts}
        found = judge(self.lab.witness, self.lab.disk, self.hosts, steps=self.steps, capacity=capacity, limits=limits)
        assert not found.faults, f"{found.faults}\n{found}\n{self.state()}"
        return found

    # --- faults

    def cut(self, host: Host) -> None:
        self.told.append(f"cut {host.name}")
        self.away.add(host.name)
        self.lab.power_cut(host)

    def boot(self, host: Host) -> None:
        self.told.append(f"boot {host.name}")
        host.boot()
        self.away.discard(host.name)

    def freeze(self, host: Host) -> None:
        self.told.append(f"freeze {host.name}")
        self.away.add(host.name)
        self.lab.freeze(host)

    def thaw(self, host: Host) -> None:
        self.told.append(f"thaw {host.name}")
        self.lab.thaw(host)
        self.away.discard(host.name)

    def kill_runner(self, host: Host) -> None:
        """Kill the loop of a runner; what it has started lives on."""
        self.told.append(f"kill {host.name}'s loop")
        for pid in host.pids():
            if b"runner" in (line := cmdline(pid)) and b"--capacity" in line:
                subprocess.run(["kill", "-9", str(pid)], check=False)

    def drain(self, host: Host) -> None:
        self.told.append(f"drain {host.name}")
        self.runners[host.name].terminate()

    def upgrade(self, host: Host) -> None:
        """Have a host go on with the next version: its runner is told to end, and the one that follows is of that."""
        self.told.append(f"upgrade {host.name}")
        host.package = self.lab.next_version()
        self.runners[host.name].terminate()

    def disturb(self, seconds: float) -> None:
        """Random faults for so long; every host is there again at the end."""
        end = time.monotonic() + seconds
        back: list[tuple[float, Callable[[Host], None], Host]] = []
        while time.monotonic() < end or back:
            for due in [each for each in back if each[0] <= time.monotonic()]:
                back.remove(due)
                due[1](due[2])
            there = [host for host in self.hosts if host.name not in self.away]
            if time.monotonic() < end and len(there) > 1 and self.chance.random() < 0.05:
                host, what = (
                    self.chance.choice(there),
                    self.chance.choice(("cut", "freeze", "kill", "drain", "upgrade")),
                )
                later = time.monotonic() + self.chance.uniform(0.3, 6.0)
                if what == "cut":
                    self.cut(host)
                    back.append((later, self.boot, host))
                elif what == "freeze":
                    self.freeze(host)
                    back.append((later, self.thaw, host))
                elif what == "kill":
                    self.kill_runner(host)
                elif what == "upgrade":
                    self.upgrade(host)
                else:
                    self.drain(host)
            self.keep_runners()
            time.sleep(0.05)


def is_at_rest(lab: Lab) -> bool:
    """Whether nothing is in the store's queue."""
    layout = Layout(lab.disk)
    folders = (layout.ready, layout.running, layout.ended, layout.delayed, layout.added, layout.incoming)
    return not any(path.is_file() for folder in folders for path in folder.rglob("*"))


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
