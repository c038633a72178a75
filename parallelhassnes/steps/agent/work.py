"""The worker's side of an agent step: workspace, conversation, report, artifacts; in this order, each noted in ``run.json``.

SIGTERM ends the agent, and then what there is by then is captured all the same.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPlan, ArtifactExpected
from parallelhassnes.steps import final_report, safe_read
from parallelhassnes.steps.agent import files, prompt, reports, resume, worktree
from parallelhassnes.steps.agent.adapters.agent_cli import AgentCli
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import HOME, AgentAnswer, Conversation, request_of
from parallelhassnes.steps.agent.conclude import judge
from parallelhassnes.steps.agent.files import ARTIFACTS, ArtifactFacts
from parallelhassnes.steps.caps import CapWatch
from parallelhassnes.steps.step_types import Failure, StepAttempt
from parallelhassnes.store import atomic, locks
from parallelhassnes.store.layout import Layout

TOLD_TO_STOP = 143
MOST_PROBLEMS = 1000
"""Violations of its schema that are kept of a report."""


class Stopped(BaseException):
    """SIGTERM came."""


def work(attempt: StepAttempt) -> int:
    """Do an agent step; the exit code only says whether it was done to its end."""
    signal.signal(signal.SIGTERM, _stop)
    job = _AgentWork(attempt)
    stopped = False
    try:
        try:
            job.run()
        except UserError as error:
            job.failure = Failure("task_definition", str(error))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except Stopped:
        stopped = True
    job.end(complete=not stopped)
    return TOLD_TO_STOP if stopped else 0


def _stop(_signum: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


class _AgentWork:
    """One attempt's work."""

    def __init__(self, attempt: StepAttempt) -> None:
        self.attempt = attempt
        self.dir = files.folder(attempt.dir)
        self.dir.mkdir(exist_ok=True)
        self.facts = files.RunFacts()
        self.plan = AgentPlan()
        self.cli: AgentCli | None = None
        self.conversation: Conversation | None = None
        self.answer: AgentAnswer | None = None
        self.failure: Failure | None = None
        self.turns = 0
        self.artifacts: list[files.ArtifactFacts] = []
        self.layout = Layout(attempt.job_dir.parent.parent.parent)

    def run(self) -> None:
        self.note("starting")
        self.plan = _plan(self.attempt)
        self.cli = agent(self.plan.agent, self.plan.command, self.plan.program)
        self.facts.version = self.cli.version(os.environ)
        asked = prompt.whole(self.attempt, self.plan)
        atomic.write_text(self.dir / files.ASKED, asked, durable=False)
        self.facts.prompt_sha256 = hashlib.sha256(asked.encode("utf-8", "surrogateescape")).hexdigest()
        origin = None
        if self.plan.resume_from is not None:
            origin = resume.find(self.attempt, self.plan.resume_from)
        elif self.plan.retries_resume:
            origin = resume.before(self.attempt)
        with self.workspace(origin) as directory:
            self.converse(self.cli, asked, directory, origin)
            if self.answer is not None and self.answer.failure is None:
                files.clear(self.dir / files.ARTIFACTS)
                self.artifacts = [
                    _artifact(each, directory, self.dir, self.attempt.dir) for each in self.plan.artifacts_expected
                ]

    def converse(self, cli: AgentCli, asked: str, directory: Path, origin: resume.Origin | None) -> None:
        schema = self.plan.output_schema or reports.SCHEMAS[self.plan.report_version]
        request = replace(
            request_of(asked, directory, self.dir, schema, os.environ),
            policy=self.plan.execution_policy,
            model=self.plan.model,
        )
        if origin is not None:
            resume.copy_session(cli, origin, request.home)
            before = cli.thread_tokens(request.home, origin.thread_id)
            self.facts.resumed = files.Resumed(
                step=origin.step, run_id=origin.run_id, thread_id=origin.thread_id, tokens_before=before
            )
            request = replace(request, thread_id=origin.thread_id)
        self.note("agent")
        self.conversation = Conversation(cli, self.dir, request, CapWatch(self.attempt))
        self.answer = self.turn(asked)
        for _ in range(self.plan.repair):
            if self.answer.failure or not self.answer.problems or not self.answer.thread_id:
                break
            self.note("repair")
            self.answer = self.turn(prompt.repair(self.answer.problems, schema))

    def turn(self, said: str) -> AgentAnswer:
        assert self.conversation is not None  # noqa: S101 - converse has just made it
        self.turns += 1
        return self.conversation.turn(said, None)

    # --- workspace ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def workspace(self, origin: resume.Origin | None) -> Iterator[Path]:
        policy = self.plan.workspace_policy
        own = self.plan.working_directory
        directory = Path(own) if own else self.attempt.dir / "work"
        if not own:
            directory.mkdir(exist_ok=True)
        if policy.mode == "isolated":
            self.isolate(directory, policy.base, origin)
            assert self.facts.workspace is not None  # noqa: S101 - isolate has just made it
            yield Path(self.facts.workspace.directory)
            return
        if not directory.is_dir():
            raise UserError(f"folder {directory} does not exist", fix="correct working_directory")
        self.facts.workspace = files.WorkspaceFacts(mode="shared", directory=str(directory))
        if not policy.exclusive:
            yield directory
            return
        lock = self.layout.directory_lock(directory)
        lock.parent.mkdir(parents=True, exist_ok=True)
        self.note("waiting_for_directory")
        with locks.held(lock, math.inf):  # whoever works there may do so for hours
            yield directory

    def isolate(self, directory: Path, base: str, origin: resume.Origin | None) -> None:
        """Make the worktree, with the changes that the job has made so far in it."""
        source = worktree.look(directory, base)
        before = resume.changes(self.attempt, origin)
        if before is not None and before.repository == str(source.top):
            source = worktree.look(directory, before.base)
        else:
            before = None
        path = self.layout.worktrees / self.attempt.batch_id / self.attempt.run_id
        self.facts.workspace = files.WorkspaceFacts(
            mode="isolated",
            directory=str(path / source.inside),
            repository=str(source.top),
            worktree=str(path),
            base=source.base,
        )
        self.note("workspace")
        worktree.add(source, path)
        self.facts.workspace.made = True
        self.note("workspace")
        if before is not None:
            worktree.apply(path, before.patch)

    # --- the end --------------------------------------------------------------------------------------

    def end(self, *, complete: bool) -> None:
        """Capture the workspace, write ``outcome.json``, tidy up."""
        self.note("capture")
        if self.conversation is not None and (self.answer is None or not complete):
            self.answer = self.conversation.so_far()
        answer = self.answer or AgentAnswer("")
        facts = files.OutcomeFacts(
            complete=complete,
            failure=self.failure or answer.failure,
            report=answer.document,
            problems=answer.problems[:MOST_PROBLEMS],
            text=answer.text[: files.MOST_TEXT],
            thread_id=answer.thread_id,
            model=answer.model,
            tokens=answer.used.tokens,
            cost_usd=answer.used.cost_usd,
            tool_calls=answer.tool_calls,
            turns=self.turns,
            exit_code=answer.exit_code,
            seconds=round(answer.seconds, 3),
            artifacts=self.artifacts,
        )
        success = complete and judge(facts)[0] == "succeeded"
        keep = self.plan.workspace_policy.keep
        close_workspace(self.dir, self.facts, keep, success=success, patience_sec=math.inf)
        if self.facts.workspace and self.facts.workspace.problem and facts.failure is None:
            line = f"what it changed could not be captured: {self.facts.workspace.problem}"
            facts.failure = Failure("infrastructure", line)
        if self.cli is not None:
            self.cli.tidy(self.dir / HOME)
        self.note("capture")
        atomic.write_json(self.dir / files.OUTCOME, facts.model_dump(mode="json"), durable=False)

    def note(self, phase: files.Phase) -> None:
        self.facts.phase = phase
        document = self.facts.model_dump(mode="json", exclude_none=True)
        atomic.write_json(self.dir / files.RUN, document, durable=False)


def close_workspace(
    into: Path, facts: files.RunFacts, keep: str, *, success: bool, patience_sec: float | None = None
) -> list[str]:
    """Capture what changed in an isolated workspace, and remove it if that is the policy; a line per thing removed.

    Args:
        patience_sec: how long to wait for others that make or remove worktrees of the repository; see ``locks.held``.
    """
    place = facts.workspace
    if place is None or place.worktree is None or place.repository is None or not place.kept:
        return []
    path = Path(place.worktree)
    if place.made and place.base is not None and place.patch is None:
        try:
            place.head, touched = worktree.capture(path, place.base, into)
        except UserError as error:
            place.problem = f"{error}; {path} is kept"
            return []
        place.touched = touched[:1000]
        place.patch = f"{files.FOLDER}/{worktree.PATCH}"
    if place.made and (keep == "always" or (keep == "on_failure" and not success)):
        return []
    there = worktree.remove(Path(place.repository), path, patience_sec)
    place.kept = False
    return [f"worktree {path}"] if there else []


def _plan(attempt: StepAttempt) -> AgentPlan:
    try:
        return AgentPlan.model_validate(attempt.step.spec)
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(map(str, first["loc"]))
        raise UserError(f"the step's plan is not valid: {place}: {first['msg']}") from None


MOST_FILES = 100
MOST_BYTES = 256 << 20
"""Of one file; a larger one counts, and is not copied."""


def _artifact(expected: ArtifactExpected, workspace: Path, into: Path, attempt_dir: Path) -> ArtifactFacts:
    """Look for an artifact and copy what is found, so that it outlives the workspace.

    Args:
        into: the agent's folder of the attempt.

    Raises:
        UserError: its glob leads out of the workspace.
    """
    if expected.of_attempt:
        return _of_attempt(expected, attempt_dir)
    if Path(expected.glob).is_absolute() or ".." in Path(expected.glob).parts:
        raise UserError(f"artifacts_expected: {expected.glob} leads out of the workspace", fix="name files below it")
    found = [path for path in sorted(workspace.glob(expected.glob)) if _is_inside(path, workspace)]
    facts = ArtifactFacts(name=expected.name, paths=[], problems=[])
    if not found:
        facts.problems.append(f"no file fits {expected.glob}")
    for path in found[:MOST_FILES]:
        relative = path.relative_to(workspace)
        facts.problems += [f"{relative}: {line}" for line in _problems_of(expected, path)]
        if path.stat().st_size <= MOST_BYTES:
            target = into / ARTIFACTS / expected.name / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            facts.paths.append(str(target.relative_to(attempt_dir)))
    return facts


def _of_attempt(expected: ArtifactExpected, attempt_dir: Path) -> ArtifactFacts:
    """Look for a file of the attempt itself, by the name that it had in the earlier ParallelHassnes."""
    facts = ArtifactFacts(name=expected.name, paths=[], problems=[])
    path = files.by_earlier_name(expected.glob)
    if path not in files.MADE_AFTER and not os.path.lexists(attempt_dir / path):
        facts.problems.append(f"the attempt has no file {expected.glob}")
    elif (attempt_dir / path).is_file():
        facts.paths.append(path)
    return facts


def _is_inside(path: Path, workspace: Path) -> bool:
    """Return a regular file that lies in the workspace, also where links are followed."""
    return path.is_file() and path.resolve().is_relative_to(workspace.resolve())


def _problems_of(expected: ArtifactExpected, path: Path) -> list[str]:
    if expected.non_empty and path.stat().st_size == 0:
        return ["is empty"]
    if expected.json_schema is None:
        return []
    if path.stat().st_size > MOST_BYTES:
        return ["is too large to be looked into"]
    try:
        document = json.loads(safe_read.read_bytes(path, MOST_BYTES) or b"")
    except (ValueError, RecursionError):
        return ["is not JSON"]
    return final_report.problems(document, expected.json_schema)
