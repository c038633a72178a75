"""Stores written fast: real tables, tickets, passes, reports and seals; only the worker of an attempt is left out.

``Writer.go_on`` takes every ready ticket as a pass would, has the attempt's folder made, puts there what Harbor would have
left (``Left``), and has the project conclude, seal and settle it. What follows (retries, skips, verdicts) is decided by the
project's own passes.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from harness import TEMP, make_task
from stores import CHECKOUT, table

from parallelhassnes.actions.submit import submit
from parallelhassnes.execute import finish
from parallelhassnes.key_names import key_dir
from parallelhassnes.schedule import launch, settle
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits.concurrency_keys import QueueKeys
from parallelhassnes.schedule.process.host_slots import HostSlots
from parallelhassnes.schedule.queue_order import line_up
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.steps.registry import needs
from parallelhassnes.steps.step_types import StepAttempt, WorkerEnd
from parallelhassnes.store import attempts, batches, locks
from parallelhassnes.store.evidence import seal
from parallelhassnes.store.queue import delayed, tickets


@dataclass(frozen=True)
class Left:
    """What the worker of a trial has left; everything else of ``result.json`` is filled in."""

    rewards: Mapping[str, Any] | None = field(default_factory=lambda: {"reward": 1})
    exception: tuple[str, str] | None = None
    """Type and message."""
    cost_usd: float | None = None
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)
    """Input, cache, output."""
    reason: str = "exited"
    """Why the worker ended, as the supervisor knows it: ``lost``, ``canceled``, ``timeout`` …"""
    version: str = "1"
    """Of the agent."""
    checksum: str = "c" * 8
    """Of the task."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """``step_results`` of a multi-step task."""


ZERO, NO_REWARD = Left({"reward": 0}), Left(None)


class Writer:
    """One store and its tasks, which several stores may share."""

    def __init__(self, ctx: Context, tasks: Path | None = None) -> None:
        self.ctx = ctx
        self.tasks = tasks or ctx.layout.root.parent / f"{ctx.layout.root.name}-tasks"

    def task(self, name: str) -> Path:
        path = self.tasks / name
        return path if path.is_dir() else make_task(self.tasks, name)

    def submit(
        self,
        tasks: list[str],
        agents: list[dict[str, Any]],
        sweep: dict[str, Any] | None = None,
        name: str = "table.json",
        **more: Any,
    ) -> str:
        """A sweep over tasks, ingested; the batch id.

        Args:
            sweep: what else the sweep says.
            name: of the table's file.
            more: what else the table says.
        """
        for task in tasks:
            self.task(task)
        own = self.tasks / f"set-{'-'.join(tasks)}"
        if not own.is_dir():
            own.mkdir()
            for task in tasks:
                (own / task).symlink_to(self.tasks / task)
        own_sweep = {"path": str(own), "agents": agents, "environment": TEMP, **(sweep or {})}
        data = table(sweep=own_sweep, **more)
        return submit(self.ctx, data, name=name, folders=[CHECKOUT], again=True).batch_id

    def go_on(self, left: Callable[[str, int], Left | None], most: int = 100) -> int:
        """Run up to ``most`` attempts, one after the other, each settled before the next starts; how many ran.

        Args:
            left: of ``batch/job/step`` and the attempt's number: what the worker leaves, or None for an attempt that
                goes on running.
        """
        count = 0
        while count < most and (path := self._next()) is not None:
            if not self._run(path, left):
                break
            count += 1
        return count

    def _next(self) -> Path | None:
        ctx = self.ctx
        with locks.held(ctx.layout.tick_lock):
            settle.settle_ended(ctx)
            delayed.promote_due(ctx.layout, time.time() + 10 * 365 * 86400, _refuse)
            gate = launch.Gate(ctx)
            keys = QueueKeys(ctx)
            found = [
                lane
                for line in line_up(ctx, gate.may_start, _refuse)
                if line.queue_key and keys.may_start(line.queue_key)
                for lane in line._rest
            ]
        return min((lane.head for lane in found if lane.head), default=None)

    def _run(self, path: Path, left: Callable[[str, int], Left | None]) -> bool:
        ctx = self.ctx
        ticket = tickets.read(path)
        needed = needs(batches.read_step(ctx.layout, ticket)[1])
        with locks.held(ctx.layout.tick_lock), mock.patch.object(launch, "_loaded", {needed}):  # nothing is started
            lane = SimpleNamespace(key=key_dir(ticket.queue_key))
            claimed = launch._claim(ctx, path, lane, launch.Gate(ctx), HostSlots(ctx, 0, set()), [])
            if claimed is None:
                return True
            launch._record(ctx, claimed.meta, claimed.assignment.attempt, claimed.step)
        attempt = self._attempt(claimed)
        name = f"{ticket.batch_id}/{ticket.job_id}/{ticket.step_id}"
        state = attempts.read_state(attempt.dir)
        state = state.model_copy(update={"status": "running", "started_at": state.heartbeat.at})
        attempts.write_state(attempt.dir, state)
        end = WorkerEnd(0, "exited")
        if attempt.step.kind == "trial":
            found = left(name, attempt.number)
            if found is None:
                os.close(claimed.lock)
                return False
            leave(attempt, found)
            end = WorkerEnd(0 if found.reason == "exited" else None, found.reason)  # type: ignore[arg-type]
        else:
            kind_of(attempt.step.kind).work(attempt)
        finish._write_end(attempt, kind_of(attempt.step.kind), end, state, lambda: ctx.config.retry, was_full=False)
        seal.seal(attempt.dir, {})
        with locks.held(ctx.layout.tick_lock):
            tickets.end_running(ctx.layout, claimed.assignment.key_dir, claimed.assignment.ticket)
            os.close(claimed.lock)
            settle.settle_ended(ctx)
        return True

    def _attempt(self, claimed: launch._Claimed) -> StepAttempt:
        meta = claimed.meta
        job_dir = self.ctx.layout.job(meta.batch_id, meta.job_id)
        return StepAttempt(
            dir=claimed.assignment.attempt_dir(self.ctx.layout),
            job_dir=job_dir,
            batch_id=meta.batch_id,
            job_id=meta.job_id,
            run_id=meta.run_id,
            number=meta.number,
            step=batches.read_job(job_dir).step(meta.step_id),
            stand_in=False,
        )

    def end_running(self) -> None:
        """Have the attempts that were left running be found dead, as a tick finds them."""
        tick(self.ctx)


def leave(attempt: StepAttempt, found: Left) -> None:
    """Write Harbor's ``result.json`` of a trial."""
    config = attempt.step.spec["config"]
    agent = config["agent"]
    usage = {
        "n_input_tokens": found.tokens[0],
        "n_cache_tokens": found.tokens[1],
        "n_output_tokens": found.tokens[2],
        "cost_usd": found.cost_usd,
    }
    name = agent.get("name") or agent["import_path"].rpartition(":")[2]
    result = {
        "trial_name": attempt.run_id,
        "task_name": attempt.step.spec.get("task_name"),
        "task_checksum": found.checksum,
        "config": config,
        "agent_info": {"name": name, "version": found.version, "model_info": _model(agent.get("model_name"))},
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:05Z",
        "agent_execution": {"started_at": "2026-01-01T00:00:01Z", "finished_at": "2026-01-01T00:00:04Z"},
        "agent_result": None if found.steps else usage,
    }
    if found.rewards is not None:
        result["verifier_result"] = {"rewards": dict(found.rewards)}
    if found.exception is not None:
        kind, message = found.exception
        result["exception_info"] = {"exception_type": kind, "exception_message": message}
    if found.steps:
        result["step_results"] = list(found.steps)
    folder = attempt.dir / "trial"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))


def _model(name: str | None) -> dict[str, str] | None:
    if name is None:
        return None
    provider, _, rest = name.rpartition("/")
    return {"name": rest, "provider": provider}


def _refuse(path: Path, error: Exception) -> None:
    raise AssertionError(f"{path}: {error}")
