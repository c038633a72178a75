"""What a trial's task says about itself, read from ``task.toml`` without making a Harbor task of it."""

import tomllib
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read

MAX_TOML_BYTES = 4 * 1024 * 1024


def task_dir(config: dict[str, Any]) -> Path | None:
    """The task's directory on this machine; None where it cannot be told.

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
    """The content of ``task.toml``; empty where it is missing or does not parse."""
    directory = task_dir(config)
    data = directory and safe_read.read_bytes(directory / "task.toml", MAX_TOML_BYTES)
    if not data:
        return {}
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}


def takes_overlay(config: dict[str, Any]) -> bool:
    """Whether a Compose overlay changes nothing for this task but what the overlay says.

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
