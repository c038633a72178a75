"""Pilots: jobs of a cluster that are runners of this root. ``schedule/cluster/pilot_jobs.py`` has their files.

A job's name holds the pilot's, so a crash between the first write and the second loses nothing: one look at the user's jobs
finds it. The job is a shell that becomes ``parallelhassnes runner``. What Slurm keeps of it is the script, in which no secret stands: the
submitter's environment stays here, and a runner takes values from ``env_file`` or from its node.
"""

import secrets
import shlex
import sys
import time
from collections.abc import Sequence

from parallelhassnes.actions.attribution import ActionResult
from parallelhassnes.errors import UserError
from parallelhassnes.execute import slurm
from parallelhassnes.schedule.cluster import pilot_jobs
from parallelhassnes.schedule.cluster.pilot_jobs import OVER, Pilot, PilotWord
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text
from parallelhassnes.views.runners import pilot_line
from parallelhassnes.views.scoreboard_models import PilotLine

_KEPT_SEC = 86_400.0
"""Pilots that are over are forgotten after so long."""


class PilotsAsked(ActionResult):
    """Pilots that were asked for."""

    ok: bool = True
    pilots: list[PilotLine]
    command: list[str]
    """How each was submitted; its script goes to standard input."""
    script: str
    dry_run: bool

    def lines(self) -> list[str]:
        if self.dry_run:
            return [f"$ {shlex.join(self.command)} <<'END'", *self.script.splitlines(), "END"]
        return [f"job {each.job_id} is submitted; what its runner says goes to {each.log}" for each in self.pilots]


class PilotsCanceled(ActionResult):
    """Pilots that were told to end."""

    ok: bool = True
    jobs: list[str]

    def lines(self) -> list[str]:
        return [f"job {job_id} is told to end" for job_id in self.jobs] or ["no pilot is pending or running"]


def submit(
    ctx: Context,
    count: int,
    *,
    partition: str | None = None,
    cpus: int | None = None,
    capacity: int | None = None,
    time_limit: str | None = None,
    idle_sec: float = 120.0,
    more: Sequence[str] = (),
    dry_run: bool = False,
) -> PilotsAsked:
    """Submit single-node jobs, each a runner of this root.

    Args:
        cpus: of each; None for a whole node, so that there is one on each node.
        capacity: attempts at once of each; None for the CPUs that it was given.
        time_limit: as Slurm takes it.
        idle_sec: time without work after which each ends.
        more: further options of sbatch.

    Raises:
        UserError: Slurm refuses, or does not answer; the pilots before it stay submitted.
    """
    script = _script(ctx, capacity, idle_sec)
    wanted = [f"--partition={partition}"] if partition else []
    wanted += [f"--time={time_limit}"] if time_limit else []
    wanted += ["--exclusive"] if cpus is None else [f"--cpus-per-task={cpus}"]
    if not dry_run:
        _forget_old(ctx.layout)
    made, options = [], []
    for _ in range(1 if dry_run else count):
        pilot = secrets.token_hex(4)
        options = [*_options(ctx, pilot), *wanted, *more]
        if dry_run:
            break
        record = Pilot(pilot=pilot, asked_at=now_text(), options=tuple(options))
        path = ctx.layout.pilots / f"{pilot}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, dump(record))
        try:
            job_id = slurm.submit(script, options)
        except slurm.Refused:
            path.unlink()
            raise
        atomic.write_json(path, dump(record.model_copy(update={"job_id": job_id})))
        made.append(pilot_line(ctx.layout, record, PilotWord(job_id, OVER)))
    return PilotsAsked(pilots=made, command=["sbatch", "--parsable", *options], script=script, dry_run=dry_run)


def _options(ctx: Context, pilot: str) -> list[str]:
    log = ctx.layout.pilots / f"{pilot}.log"
    return slurm.batch_options(
        f"{pilot_jobs.PREFIX}{pilot}", ctx.layout.root, log, slurm.before_end_sec(ctx.config.grace_sec)
    )


def _script(ctx: Context, capacity: int | None, idle_sec: float) -> str:
    argv = [sys.executable, "-m", "parallelhassnes", "runner", "--root", str(ctx.layout.root), f"--idle={idle_sec:g}"]
    given = f"--capacity={capacity}" if capacity else '--capacity="${SLURM_CPUS_ON_NODE:-1}"'
    what = f"A runner of {shlex.quote(str(ctx.layout.root))}, asked for by `parallelhassnes pilot slurm`."
    return slurm.script(what, f"{shlex.join(argv)} {given}")


def every(layout: Layout) -> tuple[list[PilotLine], bool]:
    """List all pilots that are remembered, the oldest first, by one look at this user's jobs; and whether anybody answered it.

    Nobody is asked where there are no pilots.
    """
    records = pilot_jobs.records(layout)
    jobs = slurm.jobs() if records else []
    if jobs is None:
        return [pilot_line(layout, each, PilotWord(each.job_id, "")) for each in records], False
    found = {job.name: job for job in jobs}
    return [pilot_line(layout, each, pilot_jobs.word_on(each, found)) for each in records], True


def cancel(ctx: Context, *, at_once: bool = False) -> PilotsCanceled:
    """Have every pilot of this root end: pending ones go, running ones end what they run, within its grace.

    Args:
        at_once: running ones are ended by Slurm, which gives them less time.

    Raises:
        UserError: Slurm does not answer, or refuses.
    """
    lines, answered = every(ctx.layout)
    if not answered:
        raise UserError("Slurm does not answer", fix="try again later, or run this where squeue works")
    jobs = [line.job_id for line in lines if line.job_id and line.state not in (OVER, None)]
    if jobs:
        slurm.cancel(jobs, at_once=at_once)
    return PilotsCanceled(jobs=jobs)


def _forget_old(layout: Layout) -> None:
    """Remove the files of pilots that have been over for long; nothing where Slurm does not answer."""
    lines, answered = every(layout)
    if not answered:
        return
    for line in lines:
        path = layout.pilots / f"{line.pilot}.json"
        with members.apart(path):
            if line.state == OVER and time.time() - path.stat().st_mtime > _KEPT_SEC:
                path.with_suffix(".log").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
