"""``tail``: the last things that an attempt said or did, a line each.

An agent's events are told as what it did and said; any other output is shown line by line.
"""

from collections import deque
from collections.abc import Iterator

from parallelhassnes.attempt_data.follow_logs import Logs, open_logs
from parallelhassnes.plan import AgentPlan
from parallelhassnes.steps.agent.adapters.agent_cli import EventReader
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.store import batches
from parallelhassnes.store.layout import Layout

EVENTS = ".events.jsonl"


def tail(layout: Layout, text: str, count: int, *, follow: bool) -> Iterator[str | None]:
    """The last lines of the (newest) attempt that an id names, then, with ``follow``, those that come until it ends.

    None stands for a look that found nothing new.

    Raises:
        UnknownId: the id names nothing, or something that was never attempted.
    """
    logs = open_logs(layout, text)
    teller = _Teller(layout, logs)
    yield from deque((line for piece in logs.new() for line in teller.lines(piece.file, piece.text)), count)
    if not follow:
        return
    yield None
    for piece in logs.follow():
        if piece is None:
            yield None
        else:
            yield from teller.lines(piece.file, piece.text)


class _Teller:
    """Turns what the logs have got into lines to read."""

    def __init__(self, layout: Layout, logs: Logs) -> None:
        self._reader = _reader(layout, logs)
        self._item: str | None = None
        self._message: str | None = None

    def lines(self, file: str, text: str) -> Iterator[str]:
        if self._reader is None or not file.endswith(EVENTS):
            yield from text.splitlines()
            return
        for line in text.splitlines(keepends=True):
            self._reader.feed(line.encode("utf-8", "surrogateescape"))
            said = self._reader.transcript
            if said.current_item not in (None, self._item):
                yield f"· {said.current_item}"
            if said.message not in (None, self._message):
                yield from (said.message or "").splitlines()
            if said.failure is not None:
                yield f"! {said.failure.line}"
            self._item, self._message = said.current_item, said.message


def _reader(layout: Layout, logs: Logs) -> EventReader | None:
    """The reader of an agent's events; None where the attempt is of another kind."""
    found = logs.found
    job = batches.read_job(layout.job(found.batch_id, found.job_id or ""))
    step = job.step(found.step_id or "")
    if step.kind != "agent":
        return None
    plan = AgentPlan.model_validate(step.spec)
    return agent(plan.agent, plan.command, plan.program).reader()
