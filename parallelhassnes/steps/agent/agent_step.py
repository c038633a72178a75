"""The kind ``agent``: a coding agent's command line, run with a prompt, ending with a report.

The worker's side is ``work``; here is what its supervisor, or a repair, asks. The files are those of ``files``.
"""

from pydantic import ValidationError

from parallelhassnes.plan import AgentPlan, StepSpec
from parallelhassnes.steps.agent import conclude, files
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import HOME
from parallelhassnes.steps.agent.conclude import EventFollower
from parallelhassnes.steps.step_types import Outcome, StepAttempt, WorkerEnd
from parallelhassnes.store.records import LiveRecord

DEADLINE_SEC = 4 * 3600.0
"""Where a step names none: an agent whose server is down would wait for ever."""


class AgentKind:
    """Runs an agent; one object serves one supervisor, and remembers how far it has read the events."""

    name = "agent"

    def __init__(self) -> None:
        self._follower: EventFollower | None = None

    def preload(self, step: StepSpec) -> None:  # noqa: ARG002 - all agents need the same
        import jsonschema  # noqa: F401 - to check the report

        import parallelhassnes.steps.agent.work
        import parallelhassnes.tables.expanders.templates  # noqa: F401

    def deadline_sec(self, attempt: StepAttempt) -> float | None:
        return 60.0 if attempt.stand_in else DEADLINE_SEC

    def work(self, attempt: StepAttempt) -> int:
        if attempt.stand_in:
            return 0
        from parallelhassnes.steps.agent.work import work

        return work(attempt)

    def phase(self, attempt: StepAttempt) -> str | None:
        if attempt.stand_in:
            return "stand_in"
        return files.read_run(attempt.dir).phase

    def live(self, attempt: StepAttempt) -> LiveRecord | None:
        if attempt.stand_in or not files.folder(attempt.dir).is_dir():
            return None
        if self._follower is None:
            try:
                self._follower = EventFollower(attempt)
            except ValidationError:  # its worker says so, and ends
                return None
        said = self._follower.look()
        if said.thread_id is None:
            return None
        return LiveRecord(
            item=said.current_item,
            thread_id=said.thread_id,
            input_tokens=said.used.tokens.input,
            output_tokens=said.used.tokens.output,
            cost_usd=said.used.cost_usd,
            tool_calls=said.tool_calls,
        )

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        if attempt.stand_in:
            return conclude.stand_in(attempt, end)
        return conclude.conclude(attempt, end)

    def sweep(self, attempt: StepAttempt) -> list[str]:
        """Tidy up the home, capture and remove the worktree of a worker that was killed before it had done so."""
        folder = files.folder(attempt.dir)
        if not folder.is_dir() or (folder / files.OUTCOME).exists():
            return []
        try:
            plan = AgentPlan.model_validate(attempt.step.spec)
        except ValidationError:  # nothing was started
            return []
        agent(plan.agent, plan.command, plan.program).tidy(folder / HOME)
        facts = files.read_run(attempt.dir)
        if facts.workspace is None or facts.workspace.worktree is None:
            return []
        from parallelhassnes.steps.agent.work import close_workspace
        from parallelhassnes.store import atomic

        removed = close_workspace(folder, facts, plan.workspace_policy.keep, success=False)
        document = facts.model_dump(mode="json", exclude_none=True)
        atomic.write_json(folder / files.RUN, document, durable=False)
        return removed
