"""Removing what a dead worker left in Docker: containers, networks and volumes of its Compose projects.

They are found by the label that Compose gives them and the trial's name, which ends in the run id
and so belongs to this attempt alone. So does the image that Compose built under the project's name.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable

from parallelhassnes.steps import trial_paths, untrusted
from parallelhassnes.steps.kinds import Attempt

CALL_SEC = 30.0
"""How long one call of the docker program may take; an engine that hangs must not hang a tick."""
PROJECT_LABEL = "com.docker.compose.project"
KINDS = (
    ("container", ("ls", "--all"), ("rm", "--force", "--volumes")),
    ("network", ("ls",), ("rm",)),
    ("volume", ("ls",), ("rm", "--force")),
)


def sweep(attempt: Attempt) -> list[str]:
    """Remove what is left of the attempt's trial in Docker; one line per thing removed.

    Nothing is called where the trial's environment is another, and nothing raised where Docker is
    absent, down or slow: the next sweep finds the rest.
    """
    config = dict(untrusted.mapping(attempt.step.spec.get("config")))
    if trial_paths.environment_of(config) != "docker" or shutil.which("docker") is None:
        return []
    prefix = project_prefix(trial_paths.trial_name(attempt))
    removed: list[str] = []
    for kind, listing, removing in KINDS:
        removed += [
            f"{kind} {name}"
            for name in _names(kind, listing, prefix)
            if _docker(kind, *removing, name) is not None
        ]
    images = _docker(
        "image", "ls", "--filter", f"reference={prefix}*", "--format", "{{.Repository}}:{{.Tag}}"
    )
    removed += [
        f"image {name}"
        for name in (images or "").split()
        if _docker("image", "rm", "--no-prune", name) is not None
    ]
    return removed


def project_prefix(trial_name: str) -> str:
    """What the names of a trial's Compose projects begin with: its environment's and its verifiers'."""
    name = re.sub(r"[^a-z0-9_-]", "-", trial_name.lower())
    return (name if re.match(r"[a-z0-9]", name) else "0" + name) + "__"


def _names(kind: str, listing: Iterable[str], prefix: str) -> list[str]:
    name = "{{.Names}}" if kind == "container" else "{{.Name}}"
    shown = _docker(
        kind, *listing, "--filter", f"label={PROJECT_LABEL}", "--format",
        f'{name}\t{{{{.Label "{PROJECT_LABEL}"}}}}',
    )  # fmt: skip
    rows = (line.partition("\t") for line in (shown or "").splitlines())
    return [name for name, _, project in rows if project.startswith(prefix)]


def _docker(*arguments: str) -> str | None:
    """The standard output of a docker command; None if it failed or took too long."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CALL_SEC,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
