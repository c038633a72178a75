"""A root that several hosts have joined, as its files say it: this process is one of them, the others are words on disk."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from stores import context, job, put, shell, table

from parallelhassnes import key_names, names
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import attempt_process
from parallelhassnes.store import atomic, attempts, decider, hosts
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import AttemptMeta, AttemptState, Heartbeat, dump, now_text


def three(root: Path, toml: str = "", steps: int = 1) -> Context:
    """Have h1, which is this host, h2 and h3 join; a step of a batch is ready, or several."""
    alone = context(root, toml)
    put(alone, table(*(job(f"j{n or ''}", shell("s", "true")) for n in range(steps))))
    for name in ("h1", "h2", "h3"):
        hosts.join(
            alone.layout, member(alone.layout, name, hosts.machine().boot_id if name == "h1" else f"boot-{name}")
        )
    return replace(alone, layout=Layout(root, "h1"))


def member(layout: Layout, name: str, boot_id: str) -> hosts.Member:
    return hosts.Member(
        name=name,
        boot_id=boot_id,
        machine_id="m",
        namespace="0",
        host=hosts.machine().host if boot_id == hosts.machine().boot_id else f"{name}.example",
        root=str(layout.root),
        mount=hosts.mount_of(layout),
        version="1",
        locks_cross=False,
        cache_sec=0.2,
        joined_at=now_text(),
    )


def as_host(ctx: Context, name: str) -> Context:
    return replace(ctx, layout=Layout(ctx.layout.root, name))


def beats(ctx: Context, name: str, count: int) -> None:
    boot_id = hosts.machine().boot_id if name == "h1" else f"boot-{name}"
    hosts.write_beat(ctx.layout, hosts.Beat(name=name, boot_id=boot_id, count=count, at=now_text(), capacity=4))


def has_right(ctx: Context, epoch: int, runner: str, **more: object) -> Path:
    path = ctx.layout.hosts / "right" / f"{epoch:08d}.json"
    right = decider.Right(epoch=epoch, runner=runner, boot_id=f"boot-{runner}", at=now_text())
    atomic.write_json(path, {**dump(right), **more})
    return path


class Made(NamedTuple):
    """An attempt that stands on disk as a host has left it."""

    dir: Path
    step_dir: Path
    ticket: str
    assignment: attempt_process.Assignment


def attempt(ctx: Context, runner: str, *, status: str = "running", at: datetime | None = None) -> Made:
    """An attempt of the step, made for a runner, with its ticket in ``running/``."""
    found = list(ctx.layout.ready.rglob("*.command")) or [each.path for each in tickets.running(ctx.layout)]
    path = found[0]
    ticket = tickets.read(path)
    run_id, moment = names.new_run_id(), at or datetime.now(UTC)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    meta = AttemptMeta(
        run_id=run_id,
        batch_id=ticket.batch_id,
        job_id=ticket.job_id,
        step_id=ticket.step_id,
        kind="command",
        queue_key=ticket.queue_key,
        number=1,
        created_at=now_text(),
        runner_id=runner,
        host=f"{runner}.example",
        harness_version="1",
        config_sha256=ctx.config.sha256(),
        ticket=path.name,
    )
    state = AttemptState(
        status=status,
        run_id=run_id,
        heartbeat=Heartbeat(count=3, at=now_text()),
        host=meta.host,
        pid=7,
        pid_table="boot-x/1",
    )
    name = names.attempt_name(run_id, moment)
    folder = attempts.create(step_dir, name, meta, state)
    key = key_names.key_dir(ticket.queue_key)
    if ctx.layout.ready in path.parents:
        tickets.start_running(ctx.layout, path, key)
    assignment = attempt_process.Assignment(
        root=str(ctx.layout.root),
        batch_id=ticket.batch_id,
        job_id=ticket.job_id,
        step_id=ticket.step_id,
        attempt=name,
        key_dir=key,
        ticket=path.name,
    )
    return Made(folder, step_dir, path.name, assignment)
