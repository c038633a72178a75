"""``errors``: every attempt that failed, grouped by failure class and what its message has in common with others.

Taken from what the ledgers say of every end (``views.projection``). Exceptions that stand beside a reward are no failures of an attempt; they
are listed as well, because they tell of one that was cut short.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from parallelhassnes import places
from parallelhassnes.results import collect
from parallelhassnes.results.collect import Choice, TrialRow
from parallelhassnes.steps.step_types import Failure
from parallelhassnes.store import members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.views import projection
from parallelhassnes.views.batch_status import BatchStatus
from parallelhassnes.views.projection import Fold
from parallelhassnes.views.scoreboard_models import View

BESIDE = "beside a score"
MAX_MESSAGE = 300

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"(?<![\w.>])/(?:[\w.@+-]+/)+"), "…/"),
    (re.compile(r"\S*…$"), "…"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?=[a-z_-]*[0-9])[a-z]+[_-][A-Za-z0-9_-]{12,}\b"), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<![\w<])\d+(\.\d+)?"), "N"),
)
"""What differs between two tellings of one failure: times, folders, a word that was cut, ids, numbers; in this order."""


class ErrorGroup(View):
    """Failures of one class that say the same."""

    failure_class: str
    message: str
    """The first line, without times, ids, folders and numbers."""
    attempts: int
    """Attempts that ended so."""
    steps: int
    """Steps that these belong to."""
    open: int
    """Of these the steps whose newest attempt is one of them: nothing has come of them since."""
    beside_a_score: bool
    """The trials were scored all the same."""
    guessed: bool = False
    """Nobody named the cause: the class is told from where the attempts stood."""
    agents: list[str]
    """Of the trials among them."""
    example: str
    """What one of them says, as it is."""
    attempt: str
    """The folder of that attempt, relative to the root."""


class Errors(View):
    """What ``errors --json`` prints."""

    schema_version: Literal[1] = 1
    at: str
    of: str
    batches: list[str]
    attempts: int
    """Attempts that failed."""
    passed_over: list[str] = []
    """What of the store could not be read and is not in here, a line each."""
    groups: list[ErrorGroup]
    """Most attempts first."""


class _FailedAttempt(NamedTuple):
    failure: Failure
    step: str
    attempt: str
    newest: bool
    beside: bool
    agent: str | None


def normalise(message: str) -> str:
    """Return the first line of a message without what differs between two tellings of one failure."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    for pattern, instead in _RULES:
        line = pattern.sub(instead, line)
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def errors(
    layout: Layout,
    chosen: Choice,
    rows: Sequence[TrialRow] | None = None,
    statuses: dict[str, BatchStatus] | None = None,
) -> Errors:
    """Return the failures of the choice.

    Args:
        rows: its trials, where the caller has read them.
        statuses: of its batches, as ``collect.read`` has read them on the way.
    """
    found: list[_FailedAttempt] = []
    with members.collecting() as passed_over:
        statuses = {} if statuses is None else statuses
        rows = collect.read(layout, chosen, statuses=statuses) if rows is None else rows
        agents = {row.step: row.facts.agent for row in rows}
        for batch_id in chosen.batch_ids:
            with chosen.apart(layout, batch_id):
                status = statuses.get(batch_id)
                fold = projection.load(layout.batch(batch_id)) if status is None else status.fold
                found += _of_batch(fold, batch_id, agents)
    return Errors(
        passed_over=[*chosen.passed_over, *passed_over],
        at=now_text(),
        of=chosen.said,
        batches=list(chosen.batch_ids),
        attempts=len(found),
        groups=grouped([*found, *_beside(rows)]),
    )


def grouped(failures: Sequence[_FailedAttempt]) -> list[ErrorGroup]:
    """Return the failures by class and normalised message."""
    groups: dict[tuple[str, str, bool, bool], list[_FailedAttempt]] = {}
    for one in failures:
        key = (one.failure.failure_class, normalise(one.failure.line), one.beside, one.failure.guessed)
        groups.setdefault(key, []).append(one)
    lines = [
        ErrorGroup(
            failure_class=failure_class,
            message=message,
            attempts=len(own),
            steps=len({one.step for one in own}),
            open=0 if beside else len({one.step for one in own if one.newest}),
            beside_a_score=beside,
            agents=sorted({one.agent for one in own if one.agent}),
            example=own[-1].failure.line,
            attempt=own[-1].attempt,
            guessed=guessed,
        )
        for (failure_class, message, beside, guessed), own in groups.items()
    ]
    return sorted(lines, key=lambda line: (line.beside_a_score, -line.attempts))


def _of_batch(fold: Fold, batch_id: str, agents: dict[str, str | None]) -> Iterator[_FailedAttempt]:
    for run_id, (key, attempt, failure_class, line, guessed) in fold.failures.items():
        yield _FailedAttempt(
            Failure(failure_class, line, guessed=guessed),
            f"{batch_id}/{key}",
            f"runs/{batch_id}/{places.step_key(key).attempt(attempt)}",
            fold.last_ended[key] == run_id,
            False,
            agents.get(f"{batch_id}/{key}"),
        )


def _beside(rows: Sequence[TrialRow]) -> Iterator[_FailedAttempt]:
    for row in rows:
        if row.scored and row.facts.exception is not None and row.attempt is not None:
            found = row.facts
            yield _FailedAttempt(
                Failure(found.exception_class or "agent_error", row.facts.exception, guessed=found.exception_guessed),
                row.step,
                row.attempt,
                True,
                True,
                row.facts.agent,
            )
