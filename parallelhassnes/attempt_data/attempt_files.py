"""``artifact``, ``diff`` and ``open``: what one attempt has left, by the names that a user knows, and how to do it again.

Below the attempt's folder: ``agent/artifacts/<name>/…`` and ``trial/artifacts/…`` are artifacts, ``agent/git_diff.patch`` is
the patch of an isolated workspace. An id that names a step, a job or a batch means its newest attempt.
"""

import os
import shlex
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel

from parallelhassnes import names, walk
from parallelhassnes.attempt_data.safe_open import FileName, open_below
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.formatting import counted
from parallelhassnes.plan import StepSpec
from parallelhassnes.refs import Found, newest_attempt
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.evidence import removals
from parallelhassnes.store.layout import Layout

AGENT_ARTIFACTS, TRIAL_ARTIFACTS = "agent/artifacts", "trial/artifacts"
PATCH = "agent/git_diff.patch"


class AttemptFile(NamedTuple):
    """A file below an attempt's folder, which programs under test have written to."""

    folder: Path
    relative: str

    @property
    def path(self) -> Path:
        return self.folder / self.relative

    def open(self) -> BinaryIO:
        """Raises UnknownId where it is no regular file, or a link is on the way to it."""
        return os.fdopen(open_below(self.folder, self.relative), "rb")


class ArtifactFile(BaseModel):
    """One file of an artifact."""

    name: FileName
    """Of the artifact; of a trial's the path below ``trial/artifacts``."""
    path: FileName
    """Relative to the attempt's folder."""
    size: int
    """Bytes."""


class Artifacts(BaseModel):
    """The artifacts of an attempt."""

    schema_version: Literal[1] = 1
    ok: bool = True
    id: str
    files: list[ArtifactFile]
    removed: str = ""
    """When and by which rule of ``[retention]`` the attempt's files were removed; empty if all are there."""


def artifacts(layout: Layout, text: str) -> Artifacts:
    """Tell what there is.

    Raises:
        UnknownId: the id names nothing, or something that was never attempted.
    """
    found = newest_attempt(layout, text)
    folder = found.folder(layout)
    files = [
        ArtifactFile(name=_name(path), path=path, size=size)
        for place in (AGENT_ARTIFACTS, TRIAL_ARTIFACTS)
        for path, size in walk.files(folder, place)
    ]
    gone = removals.of_attempt(folder)
    return Artifacts(id=str(found), files=files, removed=gone.line if gone else "")


def _name(path: str) -> str:
    inside = path.split("/")
    return inside[2] if inside[0] == "agent" else "/".join(inside[2:])


def artifact(layout: Layout, text: str, name: str) -> AttemptFile:
    """Return the one file that a name means: an artifact's name, the end of its path, or any path in the attempt.

    Raises:
        UnknownId: there is none of that name, with the nearest one.
        UserError: the artifact has several files.
    """
    found = newest_attempt(layout, text)
    folder = found.folder(layout)
    files = artifacts(layout, str(found)).files
    fitting = [file for file in files if file.name == name]
    fitting = fitting or [file for file in files if f"/{file.path}".endswith(f"/{name}")]
    if len(fitting) == 1:
        return AttemptFile(folder, fitting[0].path)
    if fitting:
        shown = ", ".join(file.path for file in fitting[:5]) + (" …" if len(fitting) > 5 else "")
        raise UserError(f"{name} is {counted(len(fitting), 'file')}: {shown}", fix="name one by its path")
    try:
        with AttemptFile(folder, name).open():
            return AttemptFile(folder, name)
    except UnknownId:
        known = [file.name for file in files]
    fix = names.suggestion(name, known, "it has")
    if not attempts.is_sealed(folder):
        fix += "; it has not ended yet"
    elif (gone := removals.of_attempt(folder)) is not None:
        fix = gone.line
    raise UnknownId(f"{found} has no artifact {name}", fix=fix)


def patch(layout: Layout, text: str) -> tuple[Found, bytes | None]:
    """Return the attempt that is meant and the patch of its isolated workspace; None where it had none."""
    found = newest_attempt(layout, text)
    try:
        with AttemptFile(found.folder(layout), PATCH).open() as stream:
            return found, stream.read()
    except UnknownId:
        return found, None


class Command(NamedTuple):
    """One way to do it again, or to look at it with other programs."""

    what: str
    line: str
    """For a POSIX shell."""


def commands(layout: Layout, found: Found) -> list[Command]:
    """Of an attempt: as a new attempt of its step, then by itself where that can be said in a line; of a trial Harbor's viewer.

    Raises:
        FileNotFoundError: the job is gone.
    """
    step_id = "/".join(found.parts[:3])
    step = batches.read_job(layout.job(found.batch_id, found.job_id or "")).step(found.step_id or "")
    root = shlex.quote(str(layout.root))
    made = [Command("as a new attempt", f"parallelhassnes retry {shlex.quote(step_id)} --root {root}")]
    alone = _alone(found.folder(layout), step)
    if alone:
        made.append(Command("by itself", alone))
    if step.kind == "trial" and walk.kind(found.folder(layout) / "trial" / "result.json") == "file":
        line = f"parallelhassnes export {shlex.quote(found.batch_id)} --to view --root {root} && harbor view view"
        made.append(Command("in Harbor's viewer, with the other trials of the batch", line))
    return made


def _alone(attempt_dir: Path, step: StepSpec) -> str:
    spec: dict[str, Any] = step.spec
    if step.kind == "command":
        env = [f"{name}={value}" for name, value in step.env.items()]
        return shlex.join([*(["env", *env] if env else []), *spec["command"]])
    config = attempt_dir / "trial" / "config.json"
    if step.kind == "trial" and walk.kind(config) == "file":
        return f"harbor trial start -c {shlex.quote(str(config))} --trials-dir again"
    return ""
