"""What an isolated workspace begins with: the changes that the job has made so far.

They are those of the attempt whose conversation is continued, else of the last step that this one depends on, of the
same job, that worked isolated in the same repository. Their patch is since their own base, so changes add up along a job.
"""

from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.steps.agent.resume import Origin
from parallelhassnes.steps.safe_read import mapping, read_object
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import attempts


class Changes(NamedTuple):
    """Another attempt's changes."""

    repository: str
    """The top folder of the repository that they were made in."""
    base: str
    patch: Path


def changes(attempt: StepAttempt, origin: Origin | None) -> Changes | None:
    """The changes to begin with; None to begin at the base."""
    if origin is not None:
        return _of(origin.dir, origin.agent)
    for reference in reversed(attempt.step.depends_on):
        job_id, _, step_id = reference.partition("/")
        if job_id == attempt.job_id:
            found = _of_step(attempt.job_dir / "steps" / step_id)
            if found is not None:
                return found
    return None


def _of_step(step_dir: Path) -> Changes | None:
    """Those of the step's newest attempt that succeeded."""
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        report = read_object(folder / attempts.FINAL) or {}
        if attempts.is_sealed(folder) and report.get("status") == "succeeded":
            return _of(folder, dict(mapping(report.get("agent"))))
    return None


def _of(attempt_dir: Path, agent: dict[str, Any]) -> Changes | None:
    place = mapping(agent.get("workspace"))
    patch = place.get("patch")
    if not patch or not (attempt_dir / str(patch)).is_file():
        return None
    return Changes(str(place.get("repository")), str(place.get("base")), attempt_dir / str(patch))
