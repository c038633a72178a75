"""What one host tells others of itself, so that they can say what differs."""

import os
import shutil
import subprocess
from typing import Any

from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import hosts, members, process_identity
from parallelhassnes.version import __version__

_ANSWER_SEC = 5.0
"""Time that an engine has to say that it runs."""


class Side(hosts.RunnerFacts):
    """One host, as it sees itself and the root, and what differs from host to host."""

    config_sha256: str
    uid: int
    secrets: tuple[str, ...]
    """Names of the configured secrets that have a value there."""
    missing: tuple[str, ...]
    """Names of those that have none."""
    sandbox: str
    """What sandboxes are made with there; empty where user namespaces do not allow it."""
    docker: bool
    podman: bool
    apptainer: bool
    inside: bool
    """It works on the root already: alone, or as one that has joined."""


def of_this_host(ctx: Context) -> Side:
    """Gather the facts of this host; takes as long as its container engines take to answer, some seconds at most."""
    from parallelhassnes.sandbox.engines.choice import probe

    try:
        given = ctx.secrets()
    except BadEnvFile:
        given = dict(os.environ)
    return Side(
        **runner(ctx),
        config_sha256=ctx.config.sha256(),
        uid=os.getuid(),
        secrets=tuple(name for name in ctx.config.secrets if given.get(name)),
        missing=tuple(name for name in ctx.config.secrets if not given.get(name)),
        sandbox=probe().engine or "",
        docker=_answers("docker", "version", "--format", "{{.Server.Version}}"),
        podman=_answers("podman", "--version"),
        apptainer=_answers("apptainer", "--version") or _answers("singularity", "--version"),
        inside=is_inside(ctx),
    )


def runner(ctx: Context) -> dict[str, Any]:
    """Gather what this host is as a runner: the fields of ``hosts.RunnerFacts``."""
    here = hosts.machine()
    return {
        "name": ctx.layout.runner or hosts.own_name(),
        "boot_id": here.boot_id,
        "machine_id": here.machine_id,
        "namespace": process_identity.namespace(),
        "host": here.host,
        "root": str(ctx.layout.root),
        "mount": hosts.mount_of(ctx.layout),
        "version": __version__,
    }


def is_inside(ctx: Context) -> bool:
    """Tell whether this host belongs to the root by what is on disk: it has joined, be it under an earlier start, or ticks alone."""
    if ctx.layout.runner:
        return True
    if hosts.members_of(ctx.layout):
        mine = hosts.member(ctx.layout, hosts.own_name())
        return mine is not None and hosts.is_same_machine(mine.boot_id, mine.machine_id, mine.host)
    return is_ticked(ctx) and not hosts.strangers(ctx.layout)


def is_ticked(ctx: Context) -> bool:
    """Tell whether any host has ticked the root, or joined."""
    folders = [ctx.layout.runners / name for name in members.names(ctx.layout.runners)]
    return any((folder / kept).exists() for folder in folders for kept in (hosts.NOTE, hosts.MEMBER))


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        return subprocess.run(command, capture_output=True, timeout=_ANSWER_SEC, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
