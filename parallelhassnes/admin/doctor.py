"""``doctor``: is this host fit to run attempts, and is the store in order.

Each check is one line: what, how it is, what to do. Nothing is changed but by ``--rebuild`` and ``--reap``.
"""

import getpass
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from parallelhassnes import formatting
from parallelhassnes.admin.clean_up import Left, find, reap
from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher
from parallelhassnes.schedule import health, quarantine
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.process import archiving, timer
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import try_pass
from parallelhassnes.steps.agent.adapters.agent_cli import NotInstalled
from parallelhassnes.steps.agent.adapters.by_name import BUILT_IN, agent
from parallelhassnes.steps.trial import leftovers
from parallelhassnes.store import attempts, batches, earlier_batches, hosts, locks, members, space
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.views import host_lines


class Check(BaseModel):
    """One finding."""

    name: str
    state: Literal["ok", "note", "trouble"]
    text: str
    """How it is and, where that is not well, what to do."""


class Diagnosis(BaseModel):
    """All findings; ``ok`` where none is trouble."""

    ok: bool
    rebuilt_batches: int | None = None
    left: list[Left] = []
    """What dead attempts have left on this host."""
    checks: list[Check]


def diagnose(ctx: Context, *, rebuild_first: bool = False, reap_first: bool = False) -> Diagnosis:
    """Run every check, after rebuilding what is derived and removing what is left, where that is asked for."""
    if rebuild_first or reap_first:
        check_host.check(ctx)
    rebuilt = rebuild(ctx) if rebuild_first else None
    if rebuild_first:
        timer.ensure(ctx, try_pass)
    left = reap(ctx) if reap_first else find(ctx)
    checks = [*_host(ctx), *_store(ctx), _left(left)]
    return Diagnosis(
        ok=all(check.state != "trouble" for check in checks), rebuilt_batches=rebuilt, left=left, checks=checks
    )


def _left(found: list[Left]) -> Check:
    open_ends = sum(1 for left in found if not left.removed)
    if not open_ends:
        return Check(name="leftovers", state="ok", text="dead attempts have left nothing on this host")
    text = f"{formatting.counted(open_ends, 'thing')} of dead attempts; remove them by doctor --reap"
    return Check(name="leftovers", state="note", text=text)


def _host(ctx: Context) -> Iterator[Check]:
    yield Check(name="python", state="ok", text=f"{platform.python_version()} at {sys.executable}")
    yield _harbor()
    yield from _agents()
    yield _docker(ctx)
    yield from _build_cache(ctx)
    yield _sandbox()
    how = "forked from the tick" if launcher.fork_is_safe() else "spawned as fresh interpreters (slower)"
    yield Check(name="supervisors", state="ok", text=how)


def _harbor() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check(name="harbor", state="ok", text=version("harbor"))
    except PackageNotFoundError:
        return Check(name="harbor", state="trouble", text="is not installed; pip install harbor")


def _agents() -> Iterator[Check]:
    """Yield the command lines that agent steps run."""
    for name in BUILT_IN:
        try:
            yield Check(name=name, state="ok", text=agent(name).version(os.environ))
        except NotInstalled as error:
            yield Check(name=name, state="note", text=f"{error}; only agent steps need it")


def _docker(ctx: Context) -> Check:
    text = docker_trouble()
    if text is None:
        return Check(name="docker", state="ok", text="engine and Compose answer")
    state: Literal["note", "trouble"] = "trouble" if ctx.config.environment == "docker" else "note"
    return Check(name="docker", state=state, text=f"{text}; or use environment: sandbox")


def _build_cache(ctx: Context) -> Iterator[Check]:
    """Yield what builds have left in an engine in which trials of this store have run: it has no owner, so ``reap`` leaves it alone."""
    if not space.docker_root(ctx.layout.runs).exists():
        return
    shown = leftovers.docker("system", "df", "--format", "{{.Type}}\t{{.Size}}\t{{.Reclaimable}}") or ""
    for kind, size, unused in (line.split("\t") for line in shown.splitlines() if line.count("\t") == 2):
        if kind == "Build Cache" and not unused.startswith("0B"):
            text = f"{size}, {unused} of it unused, of all who build here, as Docker does not say whose; to be rid of it, `docker builder prune`"
            yield Check(name="build cache", state="note", text=text)


def _no_right() -> str:
    who = getpass.getuser()
    return f"{who} may not use the Docker engine's socket; have root type `usermod -aG docker {who}`, and log in anew"


def docker_trouble() -> str | None:
    """Tell why Docker trials cannot run here, in one line with what to do; None where they can."""
    if shutil.which("docker") is None:
        return "there is no docker program; install Docker Engine"
    for command, missing in (
        (["docker", "info", "--format", "{{.ServerVersion}}"], "the Docker engine does not answer; start it"),
        (["docker", "compose", "version", "--short"], "Docker has no Compose v2; install its compose plugin"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return missing
        if done.returncode:
            return _no_right() if b"permission denied" in done.stderr.lower() else missing
    return None


def _sandbox() -> Check:
    from parallelhassnes.sandbox import network
    from parallelhassnes.sandbox.engines.choice import probe

    found = probe()
    if found.engine is None:
        text = f"{found.lines[-1]}; or use environment: docker"
        return Check(name="sandbox", state="note", text=text)
    if not network.has_pasta():
        return Check(name="sandbox", state="note", text=f"by {found.engine}; {network.NO_PASTA}, or set network: host")
    return Check(name="sandbox", state="ok", text=f"by {found.engine}")


def _store(ctx: Context) -> Iterator[Check]:
    yield _disk(ctx)
    yield _locks(ctx)
    yield from _hosts(ctx)
    yield _secrets(ctx)
    yield _notify(ctx)
    yield _archive(ctx)
    yield _closed(ctx)
    yield from _damage(ctx)
    trouble = health.troubles(ctx.layout)
    text = "; ".join(trouble) or "no wish for a pass is unserved"
    yield Check(name="passes", state="trouble" if trouble else "ok", text=text)
    dead = sum(1 for entry in tickets.running(ctx.layout) if _is_dead(ctx, entry))
    yield Check(
        name="attempts",
        state="note" if dead else "ok",
        text=f"{dead} dead, to be ended by the next tick" if dead else f"{len(tickets.running(ctx.layout))} live",
    )
    rejected = sum(1 for path in ctx.layout.rejected.glob("*.error.json"))
    yield Check(
        name="tables",
        state="note" if rejected else "ok",
        text=f"{rejected} rejected, see {ctx.layout.rejected}" if rejected else "none rejected",
    )


def _damage(ctx: Context) -> Iterator[Check]:
    found = quarantine.every(ctx.layout)
    known = ctx.layout.batch_ids()
    for batch_id in known:
        place = ctx.layout.batch(batch_id)
        errors: list[Exception] = []
        with members.apart(place, errors.append):
            for job_dir in batches.job_dirs(ctx.layout, batch_id):
                batches.read_job(job_dir)
            batches.read_control(place)
            ledger.check_readable(place)
            batches.judged(place)
        for error in errors:
            if isinstance(error, earlier_batches.EarlierBatch):
                yield Check(name=f"batch {batch_id}", state="note", text=earlier_batches.HELD)
            else:
                found.setdefault(batch_id, quarantine.describe(error))
    for name in batches.strangers(ctx.layout, known):
        found.setdefault(
            name,
            f"damaged: {ctx.layout.batch(name) / batches.META}: is gone; put the file back, or remove the folder of the batch",
        )
    for batch_id, reason in sorted(found.items()):
        yield Check(name=f"batch {batch_id}", state="trouble", text=reason)


def _is_dead(ctx: Context, entry: tickets.Running) -> bool:
    """Tell whether nobody has an attempt any more; those of other hosts are looked after by the one that decides."""
    if hosts.is_shared(ctx.layout) and entry.name not in handed.taken(ctx.layout, ctx.layout.runner or "."):
        return False
    with members.apart(entry.path, lambda _: None):
        ticket = tickets.read(entry.path)
        step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
        ref = attempts.newest(step_dir)
        return ref is None or not locks.is_held(step_dir / "step.lock")
    return False


def _disk(ctx: Context) -> Check:
    low = ctx.shortage()
    text = low or f"{space.free_disk(ctx.layout.runs) / 1e9:.1f} GB free for runs/"
    return Check(name="space", state="trouble" if low else "ok", text=text)


def _locks(ctx: Context) -> Check:
    """Tell whether the file system's locks keep a second process out."""
    path = ctx.layout.system / "doctor.lock"
    handle = locks.hold(path)
    if handle is None:
        return Check(name="locks", state="note", text="another doctor is at it")
    try:
        code = "import sys; from parallelhassnes.store import locks; sys.exit(not locks.is_held(sys.argv[1]))"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(path)],
            check=False,
            capture_output=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    finally:
        locks.release(handle)
    apart = [name for name, each in hosts.members_of(ctx.layout).items() if not each.locks_cross]
    if done.returncode == 0 and apart:
        text = (
            f"keep two processes of one host apart, and do not reach from host to host ({', '.join(apart)}): operators' "
            "commands work on the host that decides"
        )
        return Check(name="locks", state="note", text=text)
    if done.returncode == 0:
        return Check(name="locks", state="ok", text="this file system keeps two processes apart")
    text = "this file system does not lock files between processes; put the root on a local one"
    return Check(name="locks", state="trouble", text=text)


def _hosts(ctx: Context) -> Iterator[Check]:
    """Who works on the root besides this host, and whether this one may; nothing on a root of one host."""
    try:
        check_host.check(replace(ctx, starts_attempts=False))
    except hosts.SecondHost as error:
        yield Check(name="hosts", state="trouble", text=str(error))
    for name, line in host_lines.every(ctx.layout).items():
        does = "decides" if line.decides else "runs what it is handed"
        text = "; ".join([f"{line.host} {does}, sees files within {line.cache_sec:g} s", *line.trouble])
        yield Check(name=f"host {name}", state="note" if line.trouble else "ok", text=text)


def _archive(ctx: Context) -> Check:
    """Tell whether what ends gets to the archive."""
    if not ctx.config.archive_while_running:
        return Check(name="archive", state="ok", text=ctx.config.archive or "no archive is named")
    if trouble := archiving.last_trouble(ctx.layout):
        return Check(name="archive", state="trouble", text=f"nothing is sent: {trouble}")
    return Check(name="archive", state="ok", text=f"what ends is sent to {ctx.config.archive}")


def _notify(ctx: Context) -> Check:
    """Tell whether people can be told of what happens; no message is sent."""
    if not ctx.config.notify.to:
        return Check(name="notify", state="ok", text="nobody is to be told of events")
    from parallelhassnes.admin import notifications

    try:
        found = notifications.services(ctx)
    except UserError as error:
        return Check(name="notify", state="trouble", text="; ".join(error.lines()))
    if trouble := [service.trouble for service in found if service.trouble]:
        return Check(name="notify", state="trouble", text="; ".join(trouble))
    names = ", ".join(f"{service.name} ({service.kind})" for service in found)
    if last := notifications.last_trouble(ctx.layout):
        return Check(name="notify", state="note", text=f"{names}; last: {last}; try `parallelhassnes notify --test`")
    return Check(name="notify", state="ok", text=names)


def _closed(ctx: Context) -> Check:
    """Tell whether other users of the host can read what holds secrets: ``runs/``, the tokens, the ``env_file``."""
    layout, config = ctx.layout, ctx.config
    places = [layout.runs] if config.private else []
    if _is_open(layout.runs):  # else nobody gets to what is below
        places += sorted(layout.tokens.glob("*.json"))
    if config.env_file:
        places.append(layout.root / config.env_file)
    open_ones = [f"{place} (chmod go-rwx {place})" for place in places if _is_open(place)]
    if open_ones:
        text = f"can be read by other users: {', '.join(open_ones)}"
        return Check(name="privacy", state="trouble", text=text)
    return Check(name="privacy", state="ok", text="secrets, tokens and runs are closed to other users")


def _is_open(place: Path) -> bool:
    """Tell whether users other than the owner may read it; what is not there is closed."""
    try:
        return bool(place.stat().st_mode & 0o055)
    except OSError:
        return False


def _secrets(ctx: Context) -> Check:
    missing: dict[str, None] = {}
    wanted = False
    for batch_id in sorted({entry[1] for entry in tickets.ready_folders(ctx.layout)}):
        with members.apart(batch_id, lambda _: None):  # which is another finding
            try:
                known = credentials.given(ctx, batch_id)
            except BadEnvFile as error:
                return Check(name="secrets", state="trouble", text=str(error))
            wanted = wanted or bool(known.named)
            if (why := credentials.why_missing(ctx, batch_id, known)) is not None:
                missing[f"{batch_id}: {why}" if known.bound else why] = None
    if missing:
        return Check(name="secrets", state="trouble", text="; ".join(missing))
    return Check(name="secrets", state="ok", text="every named one is set" if wanted else "none named")
