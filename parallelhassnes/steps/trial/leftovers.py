"""Removing what a dead worker left in Docker: containers, networks and volumes of its Compose projects.

They are found by the label that Compose gives them and the trial's name, which ends in the run id
and so belongs to this attempt alone. So does the image that Compose built under the project's name.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths

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
    """What the names of a trial's Compose projects begin with: its environment's and its verifiers'."""
    name = re.sub(r"[^a-z0-9_-]", "-", trial_name.lower())
    return (name if re.match(r"[a-z0-9]", name) else "0" + name) + "__"


def projects(what: str, listing: Iterable[str]) -> list[tuple[str, str]]:
    """(name, Compose project) of every container, network or volume that has one."""
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
    """The standard output of a docker command; None if it failed or took too long."""
    return engine("docker", *arguments)


def engine(program: str, *arguments: str) -> str | None:
    """The standard output of a command of an engine's program; None if it failed or took too long."""
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
