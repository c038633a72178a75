"""The folder ``agent`` of an attempt: which files are there, and who writes them.

    agent/run.json              A  the worker, before each phase: phase, version, workspace, what is resumed
    agent/asked.txt             W  the prompt: its texts put together, files read, templates filled in
    agent/prompt.txt               what the agent was told last: the same, or that its report was not valid
    agent/schema.json              what its report must fit
    agent/home/                    the agent's own: settings while it runs, its sessions for ever
    agent/<name>.events.jsonl   L  the agent's own standard output
    agent/agent.stderr.log      L  and standard error
    agent/last_message.txt         its last message, whole
    agent/git_*  touched_files.json   of an isolated workspace: see ``worktree``
    agent/artifacts/<name>/…       copies of the artifacts that were expected
    agent/outcome.json          W  the worker, last: what the run came to

A worker that was killed leaves no ``outcome.json``; what is told then comes from the events.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallelhassnes import walk
from parallelhassnes.steps.safe_read import read_object
from parallelhassnes.steps.step_types import Failure
from parallelhassnes.steps.usage import StoredTokens, Tokens

MOST_TEXT = 4000
"""Characters of the last message that ``outcome.json`` has."""
EARLIER_NAMES = {
    "codex_home": "agent/home",
    "codex.events.jsonl": "agent/codex.events.jsonl",
    "codex.stdout.txt": "agent/codex.events.jsonl",
    "codex.stderr.txt": "agent/agent.stderr.log",
    "git_diff.patch": "agent/git_diff.patch",
    "git_head.txt": "agent/git_head.txt",
    "git_status.txt": "agent/git_status.txt",
    "files_touched.json": "agent/touched_files.json",
}
"""Files of an attempt as the earlier ParallelHassnes called them → where they are now; others are where they were."""
MADE_AFTER = frozenset({"meta.json", "state.json", "final.json", "final.txt", "handoff.json"})
"""Files that every attempt has or gets once its worker has ended."""
FOLDER, RUN, OUTCOME, ARTIFACTS, ASKED = ("agent", "run.json", "outcome.json", "artifacts", "asked.txt")

type Phase = Literal["starting", "waiting_for_directory", "workspace", "agent", "repair", "capture"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class WorkspaceFacts(_Document):
    """Where the agent worked."""

    mode: Literal["shared", "isolated"]
    directory: str
    """Absolute."""
    repository: str | None = None
    """Of an isolated one: the top folder of the repository it was made from."""
    worktree: str | None = None
    """Its top folder."""
    base: str | None = None
    """The commit that it started from."""
    head: str | None = None
    """The commit that it ended at; another than ``base`` if the agent committed."""
    touched: list[str] | None = None
    """Files changed since ``base``, relative to the worktree; the whole list is in ``touched_files.json``."""
    patch: str | None = None
    """The patch since ``base``, relative to the attempt."""
    made: bool = False
    """The worktree was made whole."""
    kept: bool = True
    """The worktree is still there."""
    problem: str | None = None
    """Why its changes could not be captured; it is kept then."""


class Resumed(_Document):
    """Whose conversation was continued."""

    step: str
    """``job_id/step_id``."""
    run_id: str
    thread_id: str
    tokens_before: StoredTokens = Field(default_factory=Tokens)
    """What the conversation had used by then."""


class RunFacts(_Document):
    """``run.json``."""

    schema_version: Literal[1] = 1
    phase: Phase = "starting"
    version: str = ""
    """Of the agent's program."""
    prompt_sha256: str = ""
    workspace: WorkspaceFacts | None = None
    resumed: Resumed | None = None


class ArtifactFacts(_Document):
    """An artifact that was expected."""

    name: str
    paths: list[str]
    """Of the copies, relative to the attempt."""
    problems: list[str]
    """Why it does not count; empty where it counts."""


class OutcomeFacts(_Document):
    """``outcome.json``."""

    schema_version: Literal[1] = 1
    complete: bool
    """False where the worker was told to stop before the agent had ended."""
    failure: Failure | None = None
    report: Any = None
    """The agent's report: the JSON of its last message, valid or not."""
    problems: list[str] = []
    """Every way in which it is not valid."""
    text: str = ""
    """The last message's beginning."""
    thread_id: str | None = None
    model: str | None = None
    tokens: StoredTokens = Field(default_factory=Tokens)
    cost_usd: float | None = None
    tool_calls: int = 0
    turns: int = 0
    exit_code: int | None = None
    seconds: float = 0.0
    artifacts: list[ArtifactFacts] = []


def read_run(attempt_dir: Path) -> RunFacts:
    """Return ``run.json``; an empty one where there is none that can be read."""
    try:
        return RunFacts.model_validate(read_object(folder(attempt_dir) / RUN) or {})
    except ValidationError:
        return RunFacts()


def read_outcome(attempt_dir: Path) -> OutcomeFacts | None:
    """Return ``outcome.json``, where there is one that can be read."""
    try:
        return OutcomeFacts.model_validate(read_object(folder(attempt_dir) / OUTCOME))
    except ValidationError:
        return None


def folder(attempt_dir: Path) -> Path:
    """Return the agent's folder of an attempt."""
    return attempt_dir / FOLDER


def clear(path: Path) -> None:
    """Remove what an agent has left in a place where we write: a link would have us write to any file of the user's."""
    walk.remove_tree(path)


def by_earlier_name(name: str) -> str:
    """Return where a file of an attempt is that the earlier ParallelHassnes had under this name."""
    first, _, rest = name.partition("/")
    return "/".join(part for part in (EARLIER_NAMES.get(first, first), rest) if part)
