"""The commands that do an attempt's work again: within the store, and without it."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.plan import StepSpec
from parallelhassnes.refs import Found
from parallelhassnes.store import batches
from parallelhassnes.store.layout import Layout


class Command(NamedTuple):
    """One way to do it again."""

    what: str
    line: str
    """For a POSIX shell."""


def commands(layout: Layout, found: Found) -> list[Command]:
    """Of an attempt: as a new attempt of its step, then by itself where that can be said in a line.

    Raises:
        FileNotFoundError: the job is gone.
    """
    step_id = "/".join(found.parts[:3])
    step = batches.read_job(layout.job(found.batch_id, found.job_id or "")).step(found.step_id or "")
    root = shlex.quote(str(layout.root))
    made = [Command("as a new attempt", f"parallelhassnes retry {shlex.quote(step_id)} --root {root}")]
    alone = _alone(found.folder(layout), step)
    return [*made, Command("by itself", alone)] if alone else made


def _alone(attempt_dir: Path, step: StepSpec) -> str:
    spec: dict[str, Any] = step.spec
    if step.kind == "command":
        env = [f"{name}={value}" for name, value in step.env.items()]
        return shlex.join([*(["env", *env] if env else []), *spec["command"]])
    config = attempt_dir / "trial" / "config.json"
    if step.kind == "trial" and config.is_file():
        return f"harbor trial start -c {shlex.quote(str(config))} --trials-dir again"
    return ""
