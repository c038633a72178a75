"""Going on with another attempt's conversation, and with the changes that the job has made so far.

The session's files, and nothing else, are copied from the other attempt's home into this one's: the other is only
read, and any number of attempts may go on from it without meeting.

An isolated workspace begins with the changes of the attempt whose conversation is continued, else of the last step that
this one depends on, of the same job, that worked isolated in the same repository. Their patch is since their own base, so
changes add up along a job.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import places, walk
from parallelhassnes.errors import UserError
from parallelhassnes.plan import ResumeFrom
from parallelhassnes.steps.agent import files
from parallelhassnes.steps.agent.adapters.agent_cli import AgentCli
from parallelhassnes.steps.agent.ask import HOME
from parallelhassnes.steps.safe_read import mapping, read_object, text
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.layout import Layout


class Origin(NamedTuple):
    """An attempt to go on from."""

    dir: Path
    step: str
    run_id: str
    thread_id: str
    agent: dict[str, Any]
    """What its report says of the agent."""


def find(attempt: StepAttempt, wanted: ResumeFrom) -> Origin | None:
    """Return the attempt that is meant; None for a step that goes on from itself and begins (the first round of a loop).

    Raises:
        UserError: there is none, or it left no conversation.
    """
    named = wanted.step_id if "/" in wanted.step_id else f"{attempt.job_id}/{wanted.step_id}"
    job_id, step_id = places.step_key(named)
    layout = Layout(attempt.job_dir.parent.parent.parent)
    step_dir = layout.step(attempt.batch_id, job_id, step_id)
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        if not attempts.is_sealed(folder):
            continue
        state = mapping(atomic.read_json_or_none(folder / attempts.STATE))
        if wanted.selector == "latest_successful" and state.get("status") != "succeeded":
            continue
        if wanted.selector == "run_id" and state.get("run_id") != wanted.run_id:
            continue
        return _origin(folder, named, str(state.get("run_id")), wanted.thread_id)
    if named == f"{attempt.job_id}/{attempt.step.step_id}":
        return None
    which = {
        "latest_successful": "no successful attempt",
        "latest": "no attempt that has ended",
        "run_id": f"no attempt {wanted.run_id}",
    }
    raise UserError(f"there is nothing to resume: {named} has {which[wanted.selector]}")


def before(attempt: StepAttempt) -> Origin | None:
    """Return the newest attempt of the same step that left a conversation; None without one."""
    named = f"{attempt.job_id}/{attempt.step.step_id}"
    step_dir = attempt.dir.parent.parent
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        if folder == attempt.dir or not attempts.is_sealed(folder):
            continue
        run_id = str(mapping(atomic.read_json_or_none(folder / attempts.STATE)).get("run_id"))
        with contextlib.suppress(UserError):
            return _origin(folder, named, run_id, None)
    return None


def _origin(folder: Path, step: str, run_id: str, thread: str | None) -> Origin:
    report = read_object(folder / attempts.FINAL) or {}
    agent = dict(mapping(report.get("agent")))
    thread_id = thread or text(agent.get("thread_id"), 200)
    if not thread_id:
        raise UserError(f"there is nothing to resume: attempt {run_id} of {step} has no conversation")
    return Origin(folder, step, run_id, thread_id, agent)


def copy_session(cli: AgentCli, origin: Origin, home: Path) -> None:
    """Copy the conversation's files into the home of the attempt that goes on with it.

    Raises:
        UserError: they are not there; another agent made them.
    """
    theirs = files.folder(origin.dir) / HOME
    found = cli.sessions(theirs, origin.thread_id)
    if not found:
        what = f"attempt {origin.run_id} of {origin.step} has no session of {cli.name}"
        raise UserError(f"there is nothing to resume: {what}")
    for path in found:
        target = home / path.relative_to(theirs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)  # its content alone: a sealed file may not be written


class Changes(NamedTuple):
    """Another attempt's changes."""

    repository: str
    """The top folder of the repository that they were made in."""
    base: str
    patch: Path


def changes(attempt: StepAttempt, origin: Origin | None) -> Changes | None:
    """Return the changes to begin with; None to begin at the base."""
    if origin is not None:
        return _of(origin.dir, origin.agent)
    for reference in reversed(attempt.step.depends_on):
        job_id, step_id = places.step_key(reference)
        if job_id == attempt.job_id:
            found = _of_step(attempt.job_dir / "steps" / step_id)
            if found is not None:
                return found
    return None


def _of_step(step_dir: Path) -> Changes | None:
    """Return those of the step's newest attempt that succeeded."""
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        report = read_object(folder / attempts.FINAL) or {}
        if attempts.is_sealed(folder) and report.get("status") == "succeeded":
            return _of(folder, dict(mapping(report.get("agent"))))
    return None


def _of(attempt_dir: Path, agent: dict[str, Any]) -> Changes | None:
    place = mapping(agent.get("workspace"))
    patch = place.get("patch")
    if not patch or walk.kind(attempt_dir / str(patch)) != "file":
        return None
    return Changes(str(place.get("repository")), str(place.get("base")), attempt_dir / str(patch))
