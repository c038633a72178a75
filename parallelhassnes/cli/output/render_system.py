"""The system scoreboard as text: a line per batch, trouble first."""

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.console import Page, Part, at_most
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.views.outcome import TASK, trials_text
from parallelhassnes.views.scoreboard_models import BatchLine, Counts, QueueLine, SystemScoreboard, TrialCounts

MOST_BATCHES = 40
MOST_KEYS = 12
STYLES = {
    "blocked": "yellow",
    "ready": "cyan",
    "running": "blue",
    "succeeded": "green",
    "passed": "green",
    "scored": "yellow",
    "no_score": "red",
    "failed": "red",
    "needs_attention": "magenta",
    "canceled": "dim",
    "lost": "red",
    "waiting": "cyan",
    "attention": "red",
    "done": "green",
}
_OF_TASKS = {TASK["broken"]: "red", TASK["needs_review"]: "yellow", TASK["unknown"]: "yellow"}
SHORT = {
    "running": "run",
    "ready": "ready",
    "blocked": "block",
    "succeeded": "ok",
    "failed": "fail",
    "needs_attention": "attn",
    "lost": "lost",
    "canceled": "canc",
}
"""Heads of the columns; the states in the order in which they are shown."""


def style_of(standing: str, text: str) -> str:
    """Return the style of what a step has come to; of a verdict, that of what it says of the task."""
    return _OF_TASKS.get(text, STYLES.get(standing, ""))


def render(board: SystemScoreboard) -> Page:
    """Return the whole, ready to print."""
    return Page(*_parts(board, at_most(MOST_BATCHES)))


def _parts(board: SystemScoreboard, most: int) -> Iterator[Part]:
    yield _head(board)
    for reason in board.waiting:
        yield Text(reason, style="red")
    if not board.batches:
        yield Text("No batch yet: `parallelhassnes run PATH` makes one.")
        return
    if board.shortage:
        yield Text(f"nothing starts: {board.shortage}", style="red")
    yield Text()
    yield _batches(board.batches[:most])
    if len(board.batches) > most:
        yield Text(f"… and {len(board.batches) - most} more; --json has all of them", style="dim")
    for line in [line for line in board.batches[:most] if line.held][:5]:
        yield Text(f"{line.batch_id} is held: {line.held}", style="yellow")
    for key in [key for key in board.queue if key.paused]:
        yield Text(key.paused, style="yellow")
    if board.queue:
        yield Text()
        yield _queue(board)


def _head(board: SystemScoreboard) -> Text:
    head = Text(f"{formatting.counted(len(board.batches), 'batch')}, ")
    trials, others = sum_trials(board.batches), Counts()
    for batch in board.batches:
        for name in SHORT:
            setattr(others, name, getattr(others, name) + getattr(batch.other_steps, name))
    head.append_text(tally(trials, others, board.counts))
    head.append(f"; {board.live} of {board.concurrency} live")
    if board.incoming:
        head.append(f"; {formatting.counted(board.incoming, 'table')} incoming", style="cyan")
    if board.rejected:
        head.append(f"; {formatting.counted(board.rejected, 'table')} rejected", style="red")
    for runner in board.runners:
        if runner.draining:
            head.append(f"; runner {runner.runner_id} is draining", style="yellow")
    return head


def counts_text(counts: Counts) -> Text:
    """Return ``3 running, 2 failed …``: the states that occur, in one line."""
    found = [(name, getattr(counts, name)) for name in SHORT if getattr(counts, name)]
    text = Text("nothing" if not found else "")
    for place, (name, count) in enumerate(found):
        text.append(f"{', ' if place else ''}{count} {name.replace('_', ' ')}", style=STYLES[name])
    return text


def sum_trials(batches: list[BatchLine]) -> TrialCounts:
    """Return the trials of all batches together."""
    total: Counter[str] = Counter()
    for batch in batches:
        total.update(dict(batch.trials or ()))
    return TrialCounts(**total)


def tally(trials: TrialCounts | None, others: Counts, counts: Counts) -> Text:
    """Return ``36 trials: 15 passed, 21 scored without passing; 9 other steps: 9 succeeded``."""
    steps = sum(dict(counts).values())
    if trials is None or not trials.total:
        return Text(f"{formatting.counted(steps, 'step')}: ").append_text(counts_text(counts))
    text = Text(f"{formatting.counted(trials.total, 'trial')}: ")
    for place, (said, style) in enumerate(trials_text(trials)):
        text.append(f"{', ' if place else ''}{said}", style=STYLES[style])
    if steps > trials.total:
        text.append(f"; {formatting.counted(steps - trials.total, 'other step')}: ").append_text(counts_text(others))
    return text


def shown_states(all_counts: list[Counts]) -> list[str]:
    """Return the states that deserve a column: those that occur, and always ``succeeded`` and ``failed``."""
    return [
        name for name in SHORT if name in ("succeeded", "failed") or any(getattr(counts, name) for counts in all_counts)
    ]


def counts_cells(counts: Counts, states: list[str]) -> list[Text]:
    """Return one right-aligned cell per state; a zero is a dot, so that numbers stand out."""
    return [
        Text(str(count), style=STYLES[name]) if (count := getattr(counts, name)) else Text("·", style="dim")
        for name in states
    ]


def _batches(lines: list[BatchLine]) -> Grid:
    states = shown_states([line.counts for line in lines])
    table = Grid("batch")
    table.add_column("state", rank=3)
    table.add_column("steps", right=True, rank=2)
    for name in states:
        table.add_column(SHORT[name], right=True, rank=1)
    table.add_column("last", right=True)
    table.add_column("name", rank=2)
    for line in lines:
        state = Text(line.state, style=STYLES[line.state])
        label = " ".join(filter(None, ("DRY RUN" if line.stand_in else "", line.name)))
        table.add_row(
            line.batch_id,
            state,
            str(line.steps_total),
            *counts_cells(line.counts, states),
            formatting.ago(line.last_event_at or line.created_at),
            label,
        )
    return table


def _queue(board: SystemScoreboard) -> Grid:
    table = Grid("queue key")
    for name in ("live", "limit", "ready", "delayed"):
        table.add_column(name, right=True, rank=1)
    table.add_column("notes", rank=2)
    most = at_most(MOST_KEYS)
    for line in board.queue[:most]:
        full = line.limit is not None and line.live >= line.limit
        table.add_row(
            line.queue_key,
            Text(str(line.live), style="yellow" if full else ""),
            "–" if line.limit is None else str(line.limit),
            str(line.ready),
            str(line.delayed),
            _note(line),
        )
    if len(board.queue) > most:
        table.add_row(Text(f"… and {len(board.queue) - most} more", style="dim"))
    return table


def _note(line: QueueLine) -> Text:
    """Tell what is special about a key: paused, or its limit lowered, with the last change."""
    if line.limit == 0:
        return Text(f"nothing starts: {line.limit_why}", style="yellow")
    if line.paused:
        return Text("paused" if line.breaker == "closed" else f"paused ({line.breaker})", style="yellow")
    if line.ceiling is None or not line.changes:
        return Text("")
    at, _, what = line.changes[0].partition(" ")
    return Text(f"of {line.ceiling}; {formatting.ago(at)} ago: {what}", style="yellow")
