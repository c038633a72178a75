"""Where the next attempt runs: the room that each host has. Under ``tick.lock``.

On a root of one host that is this host, as many attempts as ``concurrency`` says. On one of several, each runner whose beat moves
says how many it takes (``store.hosts``); what it has got is what was handed to it and has not ended. The least loaded one that can
give a step what it needs is chosen. A step with ``resources`` goes to a job of Slurm of its own (``schedule/cluster``), of which there
are as many at once as ``[slurm] jobs`` says.
"""

from pathlib import Path
from typing import NamedTuple

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import runner_heartbeat
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import hosts
from parallelhassnes.store.queue import handed
from parallelhassnes.store.records import Credential

_MOST_LOOKS = 16
"""Ready steps of a lane that a pass passes over for want of a slot before it leaves the lane alone."""


class _Host(NamedTuple):
    capacity: int
    live: int
    gives: frozenset[str] | None
    """Names of the variables that it can give; None for all that the process which decides has."""
    left_sec: float | None


class HostSlots:
    """The runners with room in one pass.

    Args:
        total: live attempts of the whole root.
        running: names of their tickets.
    """

    def __init__(self, ctx: Context, total: int, running: set[str]) -> None:
        self._ctx = ctx
        self._own = ctx.runner_id
        self._jobs = 0
        """Jobs of Slurm that there may be besides those that there are."""
        self._passed_over: dict[str, int] = {}
        self._free: dict[str, int] = {}
        self._hosts: dict[str, _Host] = {}
        if not ctx.layout.runner:
            self._add(self._own, _Host(ctx.concurrency, total, None, None))
            return
        loads, alive = handed.loads(ctx.layout, running), hosts.alive(ctx.layout)
        self._jobs = ctx.config.slurm.jobs - len(loads[handed.JOBS])
        for name in sorted(loads.keys() & alive):
            beat = hosts.beat_of(ctx.layout, name)
            if name == self._own:
                if not runner_heartbeat.is_draining(ctx) and ctx.shortage() is None:
                    capacity = beat.capacity if beat is not None else ctx.concurrency
                    left = beat.left_sec if beat is not None else None
                    self._add(name, _Host(capacity, len(loads[name]), None, left))
            elif beat is not None and not beat.draining:
                self._add(name, _Host(beat.capacity, len(loads[name]), frozenset(beat.gives), beat.left_sec))

    def _add(self, name: str, host: _Host) -> None:
        self._hosts[name] = host
        self._free[name] = host.capacity - host.live

    def full(self) -> bool:
        """Whether no runner has room, and no job of Slurm may be asked for."""
        return self._jobs <= 0 and all(free <= 0 for free in self._free.values())

    def choose(self, step: StepSpec, credential: Credential) -> str | None:
        """The runner for a step, by its name; None where none with room can give it what it needs, or has the time."""
        if step.resources is not None:
            return handed.JOBS if self._jobs > 0 and not self._not_filed(credential) else None
        needed, limit = set(credential.variables), self._limit_sec(step)
        fitting = [
            name
            for name, host in self._hosts.items()
            if self._free[name] > 0
            and (host.gives is None or needed <= host.gives)
            and (host.left_sec is None or limit is None or limit <= host.left_sec)
        ]
        most = max((self._share(name) for name in fitting), default=None)
        return next((name for name in sorted(fitting, key=lambda n: n != self._own) if self._share(name) == most), None)

    def refusal(self, step: StepSpec, credential: Credential) -> str:
        """Tell why no host fits a step, for whoever reads of its batch; empty where one will once something has ended."""
        if step.resources is None:
            fitting = any(free > 0 for free in self._free.values())
            return "no runner with room has the secrets, or the time left, that its next step needs" if fitting else ""
        if not self._ctx.config.slurm.jobs:
            return "its next step asks for resources, and [slurm] jobs in parallelhassnes.toml is 0"
        if missing := self._not_filed(credential):
            return f"Slurm would give its next step's job no value of {', '.join(missing)}: put it into env_file"
        return ""

    def gives_up(self, lane: str) -> bool:
        """Note that a step of a lane was passed over for want of a slot; whether the pass is to leave the lane alone now."""
        self._passed_over[lane] = self._passed_over.get(lane, 0) + 1
        return self._passed_over[lane] >= _MOST_LOOKS

    def _not_filed(self, credential: Credential) -> list[str]:
        """Names of what a step needs and a job, which is given nothing of this process's environment, would not find."""
        if not credential.variables:
            return []
        return sorted(set(credential.variables) - self._ctx.filed().keys())

    def _limit_sec(self, step: StepSpec) -> float | None:
        """Seconds that an attempt of the step may take; None for no limit, or where no runner asks."""
        if all(host.left_sec is None for host in self._hosts.values()):
            return None
        attempt = StepAttempt(Path(), Path(), "", "", "", 1, step)
        return step.timeout_sec or kind_of(step.kind).deadline_sec(attempt)

    def _share(self, name: str) -> float:
        return self._free[name] / self._hosts[name].capacity

    def take(self, name: str) -> None:
        """Note that an attempt was given to a runner, or to a job of Slurm."""
        if name == handed.JOBS:
            self._jobs -= 1
        else:
            self._free[name] -= 1
