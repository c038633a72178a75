"""The runners of a root: what each can take, what it runs, and whether its beat moves.

Whether a runner lives is told by its counter alone, and by the reader's own clock: a look takes as long as one beat at most, unless it is
to be quick. One that is not seen to move in that time is not dead yet; the host that decides waits for six beats.
"""

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from parallelhassnes.config import Config
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, decider, hosts, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.views.scoreboard_models import JobNow, PilotLine, RunnerLine, SlurmNow, View

if TYPE_CHECKING:
    from parallelhassnes.schedule.cluster.pilot_jobs import Pilot, PilotWord

_LOOK_SEC = 0.1
_SLACK_SEC = 0.5


class RunnerNow(View):
    """One runner."""

    name: str
    host: str
    version: str
    capacity: int | None
    """Attempts at once at most; null where it has not said."""
    live: int | None
    draining: bool
    """It starts nothing new."""
    decides: bool
    """It says what is to run where."""
    beats: int | None
    """Its counter; null where it has none, as on a root of one host."""
    moves: bool | None
    """Whether the counter moved while we looked; null where nobody waited for it, or there is none."""
    watched_sec: float
    """For how long we looked at the counter."""
    left_sec: float | None
    """Time until it ends, as it said last; null for no end."""
    runs: list[str]
    """``batch/job/step`` of what it runs."""
    handed: int
    """What waits for it to be taken."""
    job_id: str | None = None
    """The cluster's job that it is in."""


class RunnersNow(View):
    """Every runner of a root."""

    ok: bool = True
    shared: bool
    """Whether several hosts have joined."""
    decider: str | None
    """Who says what is to run where; null where nobody does now."""
    runners: list[RunnerNow]


def runners(layout: Layout, *, quick: bool = False) -> RunnersNow:
    """Tell of every runner, by name.

    Args:
        quick: do not wait for a beat.

    Raises:
        UserError: the configuration cannot be read.
    """
    config = configuration.in_force(layout).config
    ctx, shared = Context(layout, config), hosts.is_shared(layout)
    right = decider.right(layout) if shared else None
    who = right.runner if right and not right.given_up else None
    running = {entry.name: entry.path for entry in tickets.running(layout)}
    names = members.names(layout.runners)
    before = {name: hosts.beat_of(layout, name) for name in names} if shared else {}
    moved, watched = ({}, 0.0) if quick else _watch(layout, config, before)
    found = [_joined(ctx, name, before[name], running, who) if shared else _only(ctx, name, running) for name in names]
    for each in found:
        each.moves, each.watched_sec = moved.get(each.name), watched if each.name in moved else 0.0
    return RunnersNow(shared=shared, decider=who, runners=found)


def _watch(layout: Layout, config: Config, before: dict[str, hosts.Beat | None]) -> tuple[dict[str, bool], float]:
    """Runner → whether its counter moved; looks until all have, or for a beat and what caches may hold back."""
    began = time.monotonic()
    end = began + config.heartbeat_sec + hosts.cache_sec(layout) + _SLACK_SEC
    moved = {name: False for name, beat in before.items() if beat is not None}
    while not all(moved.values()) and time.monotonic() < end:
        time.sleep(_LOOK_SEC)
        for name in [name for name, did in moved.items() if not did]:
            now, then = hosts.beat_of(layout, name), before[name]
            moved[name] = (
                now is not None and then is not None and (now.boot_id, now.count) != (then.boot_id, then.count)
            )
    return moved, round(time.monotonic() - began, 2)


def _joined(
    ctx: Context, name: str, beat: hosts.Beat | None, running: dict[str, Path], decider: str | None
) -> RunnerNow:
    layout = ctx.layout
    member = hosts.member(layout, name)
    runs = run_by(ctx, name, running, shared=True)
    return RunnerNow(
        name=name,
        host=member.host if member else "",
        version=hosts.version_of(member, beat) if member else "",
        capacity=beat.capacity if beat else None,
        live=len(runs),
        draining=bool(beat and beat.draining) or members.is_there(layout.runners / name / "drain"),
        decides=name == decider,
        beats=beat.count if beat else None,
        moves=None,
        watched_sec=0.0,
        left_sec=beat.left_sec if beat else None,
        runs=[step_of(running[ticket]) for ticket in runs],
        handed=len(handed.handed(layout, name)),
        job_id=atomic.read_derived(layout.runners / name / "job.json").get("job_id"),
    )


def _only(ctx: Context, name: str, running: dict[str, Path]) -> RunnerNow:
    """Tell of the runner of a root that one host works on."""
    runs = run_by(ctx, name, running, shared=False)
    health = atomic.read_derived(ctx.layout.runners / name / "health.json")
    return RunnerNow(
        name=name,
        host=health.get("host", ""),
        version=health.get("harness_version", ""),
        capacity=health.get("capacity"),
        live=len(runs),
        draining=members.is_there(ctx.layout.runners / name / "drain"),
        decides=True,
        beats=None,
        moves=None,
        watched_sec=0.0,
        left_sec=None,
        runs=[step_of(running[ticket]) for ticket in runs],
        handed=0,
    )


def run_by(ctx: Context, name: str, running: Collection[str], *, shared: bool) -> list[str]:
    """Return which of the running tickets are a runner's: on a root that one host works on, all are that host's own runner's."""
    if shared:
        return [ticket for ticket in handed.taken(ctx.layout, name) if ticket in running]
    return list(running) if name == ctx.runner_id else []


def with_what_they_run(ctx: Context, lines: list[RunnerLine]) -> list[RunnerLine]:
    """Return the runners, each with the steps that it runs."""
    running = {entry.name: entry.path for entry in tickets.running(ctx.layout)}
    return [
        line.model_copy(
            update={
                "runs": [
                    step_of(running[ticket])
                    for ticket in run_by(ctx, line.runner_id, running, shared=line.joined is not None)
                ]
            }
        )
        for line in lines
    ]


def jobs_of(layout: Layout) -> list[JobNow]:
    """Tell of every job of Slurm that is an attempt, as Slurm had it when it was asked last."""
    from parallelhassnes.schedule.cluster import cluster_jobs

    return [
        JobNow(
            step=f"{each.batch_id}/{each.job_id}/{each.step_id}",
            attempt=each.attempt,
            slurm_id=each.slurm_id,
            state=each.state or None,
            reason=each.reason if each.state == "PENDING" else "",
            node=each.node,
            trouble=each.trouble,
            line=cluster_jobs.line_of(layout, each),
        )
        for each in cluster_jobs.records(layout)
    ]


def pilot_line(layout: Layout, record: "Pilot", word: "PilotWord") -> PilotLine:
    """Tell of a pilot by what Slurm says of its job."""
    return PilotLine(
        pilot=record.pilot,
        job_id=word.job_id,
        state=word.state or None,
        reason=word.reason,
        node=word.node,
        log=str(layout.pilots / f"{record.pilot}.log"),
    )


def slurm_now(layout: Layout) -> SlurmNow | None:
    """Tell of all jobs of Slurm, as the host that decides has had it last; None on a root without any."""
    if not any(map(members.is_there, (layout.pilots, layout.runners / handed.JOBS / "jobs"))):
        return None
    from parallelhassnes.schedule.cluster import cluster_jobs, pilot_jobs

    pilots, words = pilot_jobs.records(layout), pilot_jobs.words(layout)
    jobs = jobs_of(layout)
    if not pilots and not jobs:
        return None
    lines = [pilot_line(layout, each, words.get(each.pilot, pilot_jobs.PilotWord(each.job_id, ""))) for each in pilots]
    return SlurmNow(
        answers=cluster_jobs.has_answered(layout), pilots=[p for p in lines if p.state != pilot_jobs.OVER], jobs=jobs
    )


def step_of(path: Path) -> str:
    """``batch/job/step`` of a running ticket; its batch alone where it has just ended or cannot be read."""
    try:
        ticket = tickets.read(path)
    except (OSError, atomic.CorruptFile):
        return tickets.parse_name(path.name).batch_id
    return f"{ticket.batch_id}/{ticket.job_id}/{ticket.step_id}"
