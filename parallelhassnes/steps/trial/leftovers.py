"""Removing what a dead worker left in Docker or Podman: containers, networks, volumes and pods of its Compose projects.

They are found by the label that Compose gives them and the trial's name, which ends in the run id
and so belongs to this attempt alone. So does the image that Compose built under the project's name.

Singularity has no engine: a container is the child of the worker that started it, and ends with it. What may be left is an image that was being
converted, in the folder where trials share images.
"""

import contextlib
import glob
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths
from parallelhassnes.store import atomic

CALL_SEC = 30.0
"""How long one call of the docker program may take; an engine that hangs must not hang a tick."""
PROJECT_LABEL = "com.docker.compose.project"
PROGRAMS = {"docker": "docker", "podman": "podman"}
"""Environment → the program that speaks with its engine."""
EngineThing = Literal["container", "network", "volume", "pod", "image"]
_REMOVING: dict[EngineThing, tuple[str, ...]] = {
    "container": ("rm", "--force", "--volumes"),
    "network": ("rm",),
    "volume": ("rm", "--force"),
    "pod": ("rm", "--force"),
    "image": ("rm", "--no-prune"),
}
_AT_ONCE: dict[tuple[str, EngineThing], tuple[str, ...]] = {
    ("podman", "container"): ("--time", "0"),
    ("podman", "pod"): ("--time", "0"),
}
"""Podman waits ten seconds for what does not stop, Docker does not."""
_LISTINGS: dict[EngineThing, tuple[str, ...]] = {"container": ("ls", "--all"), "network": ("ls",), "volume": ("ls",)}
NAMED_BY = frozenset({"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"})
"""Variables that name the engine."""
_SOCKET = "/var/run/docker.sock"
_PATIENCE_SEC = 2.0


def sweep(attempt: StepAttempt) -> list[str]:
    """Remove what is left of the attempt's trial in Docker; one line per thing removed.

    Nothing is called where the trial's environment is another, and nothing raised where Docker is
    absent, down or slow: the next sweep, or ``doctor --reap``, finds the rest.
    """
    config = dict(safe_read.mapping(attempt.step.spec.get("config")))
    environment = trial_paths.environment_of(config)
    if environment == "singularity":
        return list(_half_converted(config, trial_paths.trial_name(attempt) + "__"))
    program = PROGRAMS.get(environment)
    if program is None or shutil.which(program) is None:
        return []
    prefix = project_prefix(trial_paths.trial_name(attempt))
    return [
        f"{what} {name}"
        for what, name, project in of_projects(program)
        if project.startswith(prefix) and remove(what, name, program)
    ]


def _half_converted(config: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Remove what a dead trial has not come to the end of converting: ``<image>.sif.tmp.<session>`` of the shared folder."""
    kwargs = safe_read.mapping(safe_read.mapping(config.get("environment")).get("kwargs"))
    folder = kwargs.get("singularity_image_cache_dir")
    if not isinstance(folder, str) or not folder:
        return
    for path in Path(folder).glob(f"*.sif.tmp.{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):
            path.unlink()
            yield f"image {path.name}"


def project_prefix(trial_name: str) -> str:
    """Tell what the names of a trial's Compose projects begin with: its environment's and its verifiers'."""
    name = re.sub(r"[^a-z0-9_-]", "-", trial_name.lower())
    return (name if re.match(r"[a-z0-9]", name) else "0" + name) + "__"


def of_projects(program: str) -> Iterator[tuple[EngineThing, str, str]]:
    """Yield (what, name, Compose project) of whatever an engine has that is a project's; of an image and a pod by their names."""
    for what, listing in _LISTINGS.items():
        rows = _in_podman(what, listing) if program == "podman" else _in_docker(what, listing)
        yield from ((what, name, project) for name, project in rows)
    if program == "podman":
        yield from (("pod", name, name.removeprefix("pod_")) for name, _ in _in_podman("pod", ("ls",), labelled=False))
    for name in (engine(program, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}") or "").split():
        yield "image", name, name.removeprefix("localhost/")


def _in_docker(what: EngineThing, listing: Iterable[str]) -> list[tuple[str, str]]:
    name = "{{.Names}}" if what == "container" else "{{.Name}}"
    shown = docker(
        what, *listing, "--filter", f"label={PROJECT_LABEL}", "--format", f'{name}\t{{{{.Label "{PROJECT_LABEL}"}}}}'
    )
    rows = (line.partition("\t") for line in (shown or "").splitlines())
    return [(name, project) for name, _, project in rows]


def _in_podman(what: EngineThing, listing: Iterable[str], *, labelled: bool = True) -> list[tuple[str, str]]:
    """As of Docker; which fields there are, and how they are spelt, differs from kind to kind."""
    only = ("--filter", f"label={PROJECT_LABEL}") if labelled else ()
    try:
        rows = json.loads(engine("podman", what, *listing, *only, "--format", "json") or "[]")
    except (ValueError, RecursionError):
        return []
    found = []
    for row in rows if isinstance(rows, list) else ():
        facts = {key.lower(): value for key, value in safe_read.mapping(row).items()}
        name = facts.get("names") or facts.get("name")
        name = name[0] if isinstance(name, list) and name else name
        found.append((str(name), str(safe_read.mapping(facts.get("labels")).get(PROJECT_LABEL, ""))))
    return found


def remove(what: EngineThing, name: str, program: str = "docker") -> bool:
    """Remove one thing from an engine; whether that went well."""
    return engine(program, what, *_REMOVING[what], *_AT_ONCE.get((program, what), ()), name) is not None


def docker(*arguments: str) -> str | None:
    """Return the standard output of a docker command; None if it failed or took too long."""
    return engine("docker", *arguments)


def engine(program: str, *arguments: str) -> str | None:
    """Return the standard output of a command of an engine's program; None if it failed or took too long."""
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def engine_trouble(environ: Mapping[str, str]) -> str | None:
    """Tell why the Docker engine that trials would use does not answer, in one line; None where it does or where that cannot be told.

    Only a socket on this host is asked, without the Docker command. Of an engine elsewhere the trials find out themselves.

    Args:
        environ: what the Docker command would go by.
    """
    place = _engine_socket(environ)
    if place is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(_PATIENCE_SEC)
            engine.connect(place)
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = engine.recv(256)
    except TimeoutError:
        return f"the Docker engine at {place} has said nothing for {_PATIENCE_SEC:g} s"
    except OSError as error:
        if error.errno is None:  # a path that is too long to ask
            return None
        return f"no Docker engine answers at {place}: {error.strerror}"
    status = answer.partition(b"\r\n")[0].decode("ascii", "replace")
    return None if " 200 " in f"{status} " else f"the Docker engine at {place} says {status!r}"


def _engine_socket(environ: Mapping[str, str]) -> str | None:
    """Return the path of the engine's socket; None where it is another kind of place."""
    host = environ.get("DOCKER_HOST", "")
    if host:
        return host.removeprefix("unix://") if host.startswith("unix://") else None
    context = environ.get("DOCKER_CONTEXT")
    if context is None:
        folder = environ.get("DOCKER_CONFIG") or f"{environ.get('HOME', '')}/.docker"
        context = str(atomic.read_derived(f"{folder}/config.json").get("currentContext", ""))
    return _SOCKET if context in ("", "default") else None
