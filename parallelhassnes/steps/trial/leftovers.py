"""Removing what a dead worker left in Docker: containers, networks and volumes of its Compose projects.

They are found by the label that Compose gives them and the trial's name, which ends in the run id
and so belongs to this attempt alone. So does the image that Compose built under the project's name.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths
from parallelhassnes.store import atomic

CALL_SEC = 30.0
"""How long one call of the docker program may take; an engine that hangs must not hang a tick."""
PROJECT_LABEL = "com.docker.compose.project"
REMOVING: dict[str, tuple[str, ...]] = {
    "container": ("rm", "--force", "--volumes"),
    "network": ("rm",),
    "volume": ("rm", "--force"),
    "image": ("rm", "--no-prune"),
}
LISTINGS = (("container", ("ls", "--all")), ("network", ("ls",)), ("volume", ("ls",)))
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
    if trial_paths.environment_of(config) != "docker" or shutil.which("docker") is None:
        return []
    prefix = project_prefix(trial_paths.trial_name(attempt))
    removed: list[str] = []
    for what, listing in LISTINGS:
        removed += [
            f"{what} {name}"
            for name, project in projects(what, listing)
            if project.startswith(prefix) and remove(what, name)
        ]
    images = docker("image", "ls", "--filter", f"reference={prefix}*", "--format", "{{.Repository}}:{{.Tag}}")
    removed += [f"image {name}" for name in (images or "").split() if name.startswith(prefix) and remove("image", name)]
    return removed


def project_prefix(trial_name: str) -> str:
    """Tell what the names of a trial's Compose projects begin with: its environment's and its verifiers'."""
    name = re.sub(r"[^a-z0-9_-]", "-", trial_name.lower())
    return (name if re.match(r"[a-z0-9]", name) else "0" + name) + "__"


def projects(what: str, listing: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name, Compose project) of every container, network or volume that has one."""
    name = "{{.Names}}" if what == "container" else "{{.Name}}"
    shown = docker(
        what, *listing, "--filter", f"label={PROJECT_LABEL}", "--format", f'{name}\t{{{{.Label "{PROJECT_LABEL}"}}}}'
    )
    rows = (line.partition("\t") for line in (shown or "").splitlines())
    return [(name, project) for name, _, project in rows]


def remove(what: str, name: str) -> bool:
    """Remove one thing from Docker; whether that went well."""
    return docker(what, *REMOVING[what], name) is not None


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
