"""Whether Harbor's own regrade can judge a stored trial by the tests of a task: by what the trial's record of artifacts has.

Harbor itself asks the same when the trial has begun; here it is asked when the regrade is, so that a trial that cannot be judged is
named with its reason and nothing is queued for it. What Harbor alone can know (a compose file, an image) it still says then.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parallelhassnes import walk
from parallelhassnes.steps import safe_read

_OUTPUTS = ("agent", "artifacts", "steps")
"""What Harbor copies of a trial that it judges again, with what links in it lead to."""


def why_not(task_dir: Path, trial: Path, artifacts: Sequence[Any]) -> str:
    """Tell why Harbor cannot judge a trial again; empty where it can.

    Args:
        task_dir: the task whose tests judge.
        trial: Harbor's folder of the trial.
        artifacts: what the trial's own settings have Harbor collect.
    """
    from harbor.models.task.task import Task
    from harbor.trial.regrade import check_task_regradable

    try:
        if check_task_regradable(task_dir) is not None:
            return "the tests run in the agent's own environment"
        task = Task(task_dir)
    except (OSError, ValueError):
        return "Harbor cannot read the task"
    result = safe_read.read_object(trial / "result.json") or {}
    named = safe_read.text(result.get("task_name"), 1000)
    if named != task.name:
        return f"Harbor knows the trial's task as {named or 'nothing'} and this one as {task.name}"
    steps = {step.name: [*task.config.artifacts, *artifacts, *step.artifacts] for step in task.config.steps or []}
    ran = [safe_read.mapping(step).get("step_name") for step in safe_read.sequence(result.get("step_results"))]
    if list(steps) != ran:
        return f"it was run in {_steps(ran)}, and the task has {_steps(list(steps))}"
    parts = steps or {"": [*task.config.artifacts, *artifacts]}
    lacks = (_lacking(trial, name, declared) for name, declared in parts.items())
    return next(filter(None, lacks), "") or _leads_out(trial)


def _steps(names: Sequence[object]) -> str:
    return f"the steps {', '.join(map(str, names))}" if names else "no steps"


def _lacking(trial: Path, step: str, declared: Sequence[Any]) -> str:
    """Tell which artifact that the tests are given is not in the record of a trial, or of a step of one."""
    from harbor.constants import MAIN_SERVICE_NAME
    from harbor.models.task.artifacts import effective_artifact_service, with_convention_entry
    from harbor.models.trial.paths import EnvironmentPaths

    of_step = f" of its step {step}" if step else ""
    place = f"steps/{step}/artifacts" if step else "artifacts"
    data = safe_read.read_bytes(trial / place / "manifest.json", safe_read.MAX_JSON_BYTES)
    record = safe_read.object_of(b'{"entries": %s}' % data) if data else None
    if record is None:
        return f"Harbor has kept no record of artifacts{of_step}"
    have = {
        (entry.get("service") or MAIN_SERVICE_NAME, str(entry.get("source")).rstrip("/"))
        for entry in _entries(record)
        if entry.get("status") in ("ok", "empty")
    }
    for artifact in with_convention_entry(declared, convention_source=EnvironmentPaths().artifacts_dir.as_posix()):
        if (effective_artifact_service(artifact), artifact.source.rstrip("/")) not in have:
            return f"Harbor has not collected {artifact.source}{of_step}"
    return ""


def _entries(record: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return map(safe_read.mapping, safe_read.sequence(record.get("entries")))


def _leads_out(trial: Path) -> str:
    """Name a link by which Harbor would copy what is not the trial's, or nothing."""
    whole = trial.resolve()
    for name in _OUTPUTS:
        if not (trial / name).is_dir():
            continue
        top = walk.open_folder(trial / name)
        try:
            for entry in walk.walk(top):
                if entry.is_link and not _is_inside(trial / name / entry.path, whole):
                    return f"its link {name}/{entry.path} leads to nothing of the trial's, and Harbor follows it"
        finally:
            os.close(top)
    return ""


def _is_inside(link: Path, whole: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(whole)
    except (OSError, RuntimeError):
        return False
