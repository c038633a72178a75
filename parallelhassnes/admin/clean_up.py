"""``doctor --reap``: what dead attempts of this store have left on this host, found and removed.

Repair removes what an attempt leaves as it ends it. This finds what repair could not find: an engine that was
down, a batch's folder that somebody deleted. Ours is what bears this store's mark or the run id of one of
its attempts, and belongs to none that lives; nothing else is looked at twice.

What exists is listed before what lives, so that an attempt that starts in between is not taken for dead.
"""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from parallelhassnes import packed, walk
from parallelhassnes.execute import processes
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import shared_images
from parallelhassnes.steps.trial import image, leftovers, remote
from parallelhassnes.steps.trial.task import LABEL
from parallelhassnes.steps.trial_data import remote_sandboxes
from parallelhassnes.store import attempts, members
from parallelhassnes.store.identity import store_id
from parallelhassnes.store.queue import tickets

type What = Literal[leftovers.EngineThing, "process", "folder", "sandbox"]

_PROJECT = re.compile(r"(?:^|__)([a-z0-9]{12})__")
"""Where the run id is in the name of a trial's Compose project."""


class Left(BaseModel):
    """One thing that a dead attempt left."""

    what: What
    name: str
    """Name in Docker or Podman, process id, path, or environment and id of a sandbox at a provider's."""
    engine: Literal["docker", "podman"] | None = None
    """Where it is; null for what is in no engine."""
    run_id: str = ""
    """The attempt's; empty for an image that trials shared."""
    size_bytes: int | None = None
    """Of an image that trials shared, with the layers that others may have, too."""
    removed: bool = False


class _Candidate(NamedTuple):
    what: What
    name: str
    run_id: str
    ours: bool
    """It bears this store's mark; without a mark the run id decides."""
    engine: Literal["docker", "podman"] | None = None


def find(ctx: Context) -> list[Left]:
    """Tell what is left; nothing is changed."""
    candidates = [
        *_in_docker(ctx),
        *_in_projects("docker"),
        *_in_projects("podman"),
        *_processes(ctx),
        *_sandboxes(ctx),
    ]
    live = _live(ctx)
    known: dict[str, bool] = {}
    found = []
    for one in candidates:
        if one.run_id in live:
            continue
        if not one.ours:
            if one.run_id not in known:
                known[one.run_id] = _is_of_this_store(ctx, one.run_id)
            if not known[one.run_id]:
                continue
        found.append(Left(what=one.what, name=one.name, run_id=one.run_id, engine=one.engine))
    return [*found, *_shared_images(ctx), *_folders(ctx, live)]


def reap(ctx: Context) -> list[Left]:
    """Remove what is left; each with whether that went well."""
    return [left.model_copy(update={"removed": _remove(ctx, left)}) for left in find(ctx)]


def _in_docker(ctx: Context) -> Iterator[_Candidate]:
    if shutil.which("docker") is None:
        return
    mine = store_id(ctx.layout.runs)
    store, run = f"{LABEL}.store", f"{LABEL}.run"
    shown = leftovers.docker(
        "container",
        "ls",
        "--all",
        "--filter",
        f"label={run}",
        "--format",
        f'{{{{.Names}}}}\t{{{{.Label "{store}"}}}}\t{{{{.Label "{run}"}}}}',
    )
    for line in (shown or "").splitlines():
        name, its_store, run_id = line.split("\t")
        yield _Candidate("container", name, run_id, its_store == mine, "docker")


def _in_projects(engine: Literal["docker", "podman"]) -> Iterator[_Candidate]:
    if shutil.which(engine) is None:
        return
    for what, name, project in leftovers.of_projects(engine):
        if found := _PROJECT.search(project):
            yield _Candidate(what, name, found[1], ours=False, engine=engine)


def _shared_images(ctx: Context) -> Iterator[Left]:
    """Yield the images of this store that no job needs any more, or that nobody has a record of."""
    if shutil.which("docker") is None:
        return
    needed = shared_images.needed(ctx)
    mine = image.repository(ctx.layout.runs)
    shown = leftovers.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", mine)
    for tag in (shown or "").split():
        if tag not in needed:
            size = leftovers.docker("image", "inspect", "--format", "{{.Size}}", tag)
            yield Left(what="image", name=tag, engine="docker", size_bytes=int(size) if size else None)


def _processes(ctx: Context) -> Iterator[_Candidate]:
    inside = f"PARALLELHASSNES_ATTEMPT_DIR={ctx.layout.runs}/".encode()
    mark = f"{processes.RUN_ID_VARIABLE}=".encode()
    for pid, environment in processes.environments():
        run_id = next((v.removeprefix(mark) for v in environment if v.startswith(mark)), None)
        if run_id and any(variable.startswith(inside) for variable in environment):
            yield _Candidate("process", str(pid), run_id.decode("ascii", "replace"), ours=True)


def _sandboxes(ctx: Context) -> Iterator[_Candidate]:
    for each in remote_sandboxes.every(ctx.layout.runs):
        yield _Candidate("sandbox", each.text, each.run_id, ours=True)


def _folders(ctx: Context, live: set[str]) -> Iterator[Left]:
    """Temporary folders of sealed attempts, where the seal does not speak of them."""
    for folder in ctx.layout.runs.glob("*/*/steps/*/attempts/*/tmp"):
        run_id = folder.parent.name.rpartition("_")[2]
        if folder.is_symlink() or not folder.is_dir():  # the worker's doing, and in the seal
            continue
        if run_id not in live and attempts.is_sealed(folder.parent) and not any(folder.iterdir()):
            yield Left(what="folder", name=str(folder), run_id=run_id)


def _live(ctx: Context) -> set[str]:
    """Run ids of the attempts that have not been sealed: they live, or the next tick ends them."""
    found = set()
    for entry in tickets.running(ctx.layout):
        with members.apart(entry.path):
            ticket = tickets.read(entry.path)
            ref = attempts.newest(ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id))
            if ref is not None and not attempts.is_sealed(ref.dir):
                found.add(ref.name.rpartition("_")[2])
    return found


def _is_of_this_store(ctx: Context, run_id: str) -> bool:
    if any(ctx.layout.runs.glob(f"*/*/steps/*/attempts/*_{run_id}")):
        return True
    archives = (packed.of(index.parent) for index in ctx.layout.runs.glob(f"*/{packed.INDEX}"))
    return any(place.endswith(f"_{run_id}") for pack in archives if pack for place in pack.attempts)


def _remove(ctx: Context, left: Left) -> bool:
    match left.what:
        case "sandbox":
            return remote.remove(ctx.layout.runs, left.run_id)
        case "process":
            return processes.send(int(left.name), None, signal.SIGKILL)
        case "folder":
            with contextlib.suppress(OSError):
                walk.remove_tree(left.name)
            return not os.path.lexists(Path(left.name))
        case "image" if not left.run_id:
            return image.remove(left.name)
        case "container" | "network" | "volume" | "pod" | "image":
            return leftovers.remove(left.what, left.name, left.engine or "docker")
