"""What a trial's task says about itself, read from ``task.toml`` without a Harbor task, and the Compose overlay it gets."""

import json
import tomllib
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store.identity import store_id

MAX_TOML_BYTES = 4 * 1024 * 1024


def task_dir(config: dict[str, Any]) -> Path | None:
    """Return the task's directory on this machine; None where it cannot be told.

    A task of a git repository or a package lies in Harbor's cache, which only Harbor can name.
    """
    task = safe_read.mapping(config.get("task"))
    path = task.get("path")
    if isinstance(path, str) and not task.get("git_url"):
        return Path(path)
    try:
        from harbor.models.trial.config import TaskConfig

        return Path(TaskConfig.model_validate(dict(task)).get_local_path())
    except (ValueError, OSError):
        return None


def task_toml(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``task.toml``; empty where it is missing or does not parse."""
    directory = task_dir(config)
    data = directory and safe_read.read_bytes(directory / "task.toml", MAX_TOML_BYTES)
    if not data:
        return {}
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}


def takes_overlay(config: dict[str, Any]) -> bool:
    """Tell whether a Compose overlay changes nothing for this task but what the overlay says.

    An overlay alone makes Harbor accept a task without a definition of its environment, and refuse
    to stream; Windows containers stop in their own way.
    """
    directory = task_dir(config)
    if directory is None or safe_read.mapping(config.get("environment")).get("stream"):
        return False
    environment = safe_read.mapping(task_toml(config).get("environment"))
    if str(environment.get("os", "linux")).lower() != "linux":
        return False
    defined = ("Dockerfile", "docker-compose.yaml")
    return bool(environment.get("docker_image")) or any(
        (directory / "environment" / name).is_file() for name in defined
    )


LABEL = "parallelhassnes"
_NOT_BUILT = "\0not built"


def labels(attempt: StepAttempt) -> dict[str, str]:
    """Return the labels of an attempt's main container, by which ``doctor --reap`` and who reads ``docker ps`` know whose it is."""
    return {
        f"{LABEL}.store": store_id(attempt.job_dir.parent.parent),
        f"{LABEL}.batch": attempt.batch_id,
        f"{LABEL}.job": attempt.job_id,
        f"{LABEL}.step": attempt.step.step_id,
        f"{LABEL}.run": attempt.run_id,
    }


def overlay(attempt: StepAttempt, image: str | None) -> str:
    """Return the Compose overlay that every Docker trial gets; JSON is YAML, but for the tag that takes a key of an earlier file away.

    PID 1 of a task's container ignores SIGTERM, so that a stop with a grace period would wait ten seconds for nothing. Where
    the store provides the image, the service is not built again.
    """
    main: dict[str, Any] = {"stop_grace_period": "0s", "labels": labels(attempt)}
    if image is not None:
        main |= {"image": image, "pull_policy": "never", "build": _NOT_BUILT}
    document = json.dumps({"services": {"main": main}}) + "\n"
    return document.replace(json.dumps(_NOT_BUILT), "!reset null")


def write_overlay(attempt: StepAttempt, directory: Path, image: str | None = None) -> Path:
    """Write the overlay into ``directory``; its path.

    Args:
        image: the tag to start from; None to have Compose build one for this trial.
    """
    path = directory / "compose-overlay.yaml"
    path.write_text(overlay(attempt, image), encoding="utf-8")
    return path
