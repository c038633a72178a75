"""What ``show`` has found, as text."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.console import Page, Part, at_most, line
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.cli.output.render_system import STYLES, style_of, tally
from parallelhassnes.steps.verdict.judge import upgraded
from parallelhassnes.views.scoreboard_models import Counts
from parallelhassnes.views.show import ShowDocument

MOST_STEPS = 40
MOST_FILES = 40
QUIET = frozenset(
    {"schema_version", "retry", "batch_id", "job_id", "step_id", "warnings", "harbor_job", "spec", "steps_total"}
)
"""Keys of records that say nothing more here, or too much for a terminal."""


def render(document: ShowDocument) -> Page:
    """Return the whole, ready to print."""
    return Page(*_parts(document))


def _parts(document: ShowDocument) -> Iterator[Part]:
    head = Text(f"{document.what} {document.id} ", style="bold")
    shown = document.standing or document.state
    yield line(head.append(document.outcome or document.state, style=STYLES.get(shown, "")))
    yield line(document.path, style="dim")
    if document.counts is not None:
        yield tally(document.trials, document.other_steps or Counts(), document.counts)
    if document.failure:
        yield Text(document.failure, style="red")
    if document.summary:
        yield Text(document.summary)
    yield from _record(document.record)
    if document.counts is not None:
        yield from _steps(document)
    elif document.steps[0].reason:
        yield Text(f"blocked: {document.steps[0].reason}", style="yellow")
    if document.attempts:
        yield from _attempts(document)
    if document.verdict is not None:
        yield from _verdict(document.verdict)
    if document.files:
        yield from _files(document)


def _record(record: dict[str, Any]) -> Iterator[Part]:
    said = {key: value for key, value in record.items() if key not in QUIET and value not in ("", {}, [], None, False)}
    if said:
        yield Text()
        width = max(map(len, said))
        for key, value in said.items():
            shown = value if isinstance(value, str) else _plain(value)
            yield Text(f"{key.replace('_', ' '):{width}}  {shown}", overflow="fold")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def _steps(document: ShowDocument) -> Iterator[Part]:
    yield Text()
    table = Grid("step")
    table.add_column("outcome", key=True)
    table.add_column("kind")
    table.add_column("tries", right=True)
    table.add_column("what happened", rank=1)
    most = at_most(MOST_STEPS)
    for step in document.steps[:most]:
        said = step.reason or step.failure or step.label
        if step.retry_at:
            said = f"again in {formatting.until(step.retry_at)}; {said}"
        state = Text(step.outcome, style=style_of(step.standing, step.outcome))
        table.add_row(step.step, state, step.kind, str(step.attempts), said)
    yield table
    if len(document.steps) > most:
        yield Text(f"… and {len(document.steps) - most} more; --json has all of them", style="dim")


def _attempts(document: ShowDocument) -> Iterator[Part]:
    yield Text()
    for attempt in document.attempts:
        text = Text(f"attempt {attempt.number} ")
        text.append(attempt.outcome, style=STYLES.get(attempt.standing, ""))
        if attempt.taken_from:
            text.append(f", taken over from {attempt.taken_from}")
        if attempt.imported:
            text.append(f", imported: {attempt.imported}")
        if attempt.started_at:
            text.append(f", started {formatting.ago(attempt.started_at)} ago")
        if attempt.started_at and attempt.ended_at:
            text.append(f", took {formatting.between(attempt.started_at, attempt.ended_at)}")
        if attempt.failure:
            text.append(f": {attempt.failure}")
        yield text
        yield line(f"    {attempt.attempt}", style="dim")
        if attempt.removed:
            yield line(f"    {attempt.removed}", style="dim")


def _verdict(verdict: dict[str, Any]) -> Iterator[Part]:
    found = upgraded(verdict)
    said, style = {
        "broken": ("broken", "red"),
        "good": ("good", "green"),
        "needs_review": ("to be reviewed", "yellow"),
    }.get(found["task_quality"], ("not known to be good", "yellow"))
    text = Text("\nverdict: the task is ").append(said, style=style)
    if found["confidence"]:
        text.append(f", confidence {found['confidence']:.2f}")
    yield text
    if found["prose"]:
        yield Text(f"  {found['prose']['text']} (written by {found['prose']['engine']})")
    for reason in found["reasons"]:
        yield Text(f"  because {reason}")
    for recommendation in found["recommendations"]:
        yield Text(f"  to do: {recommendation}")
    if found["analyses"]["missing"]:
        yield Text(f"  analyses missing: {', '.join(found['analyses']['missing'])}", style="dim")


def _files(document: ShowDocument) -> Iterator[Part]:
    yield Text()
    table = Grid("file")
    table.add_column("size", right=True)
    most = at_most(MOST_FILES)
    for file in document.files[:most]:
        table.add_row(file.path, formatting.size(file.size))
    yield table
    more = len(document.files) - most
    more = max(0, more) + document.more_files
    if more:
        yield Text(f"… and {formatting.counted(more, 'more file')}", style="dim")
