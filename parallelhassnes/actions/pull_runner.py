"""``runner``: run in the foreground what this host is handed, on any host that sees the root.

    runners/<runner>/job.json     the job of a cluster that the runner is in; removed at its end

A host that has not joined does so first, by the probe of ``doctor --hosts``. Two runners may live on one host: one without a name of
its own takes the next free one, ``name-2``, so that the names of a cluster are those of its nodes, however many jobs come and go.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from parallelhassnes import names
from parallelhassnes.admin.host_probe import join
from parallelhassnes.admin.init import ensure
from parallelhassnes.errors import UserError
from parallelhassnes.execute import slurm
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.store import atomic, hosts, identity, locks
from parallelhassnes.store.layout import Layout

JOB = "job.json"
_MOST_NAMES = 64


def pull(
    root: Path,
    *,
    name: str | None = None,
    capacity: int | None = None,
    idle_sec: float | None = None,
    left_sec: float | None = None,
) -> None:
    """Run what this host is handed, until it is told to end, or has had no work for long.

    SIGTERM and SIGINT have it take nothing more and end when what it runs has ended, or has been stopped after its grace; what was stopped so uses no
    attempt of its step.

    Args:
        name: of the runner; None for this host's.
        capacity: attempts at once; None for the configured number.
        idle_sec: time without work after which it ends; None for never.
        left_sec: time until this host ends it; None for no end, or that of the job of Slurm that this process is in.

    Raises:
        UserError: this host cannot join, or another runner has the name.
    """
    from parallelhassnes.schedule.tick import run_loop

    left = slurm.own_left_sec() if left_sec is None else left_sec
    until = None if left is None else time.monotonic() + left
    ctx = _joined(root, name)
    with _in_job(ctx):
        run_loop(ctx, capacity=capacity, idle_sec=math.inf if idle_sec is None else idle_sec, until=until)


def _joined(root: Path, name: str | None) -> Context:
    """Open the root as a runner that has joined."""
    layout = Layout(root.absolute())
    os.environ[hosts.NAME_VARIABLE] = names.check_id(name, "name of a runner") if name else _free_name(layout)
    ctx = open_context(root)
    identity.check(ctx.layout)
    if not ctx.layout.runner:
        join(ctx)
        ctx = open_context(root)
    ensure(ctx)
    return ctx


def _free_name(layout: Layout) -> str:
    """This host's name, or with a number where a runner of that name lives on this host.

    Raises:
        UserError: there are dozens.
    """
    own = hosts.own_name()
    for number in range(1, _MOST_NAMES + 1):
        found = own if number == 1 else f"{own}-{number}"
        if not locks.is_held(layout.runners / found / "loop.lock"):
            return found
    raise UserError(
        f"{_MOST_NAMES} runners of the name {own} live on this host", fix="give this one a name: --name NAME"
    )


@contextlib.contextmanager
def _in_job(ctx: Context) -> Iterator[None]:
    """Note the job that this process is in, for the block."""
    job_id = os.environ.get(slurm.JOB_VARIABLE)
    if job_id is None:
        yield
        return
    path = ctx.layout.runners / ctx.runner_id / JOB
    atomic.write_json(path, {"schema_version": 1, "engine": "slurm", "job_id": job_id})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
