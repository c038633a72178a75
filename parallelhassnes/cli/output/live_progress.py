"""The live display of ``run`` and ``tick --until-idle``, on stderr.

On a terminal a few lines that are redrawn; elsewhere a line per ended attempt and a summary now and
then. No thread: the process around it forks supervisors, and a fork must find one thread only. For the
same reason nothing takes the place of ``sys.stdout`` and ``sys.stderr``, which the forked ones inherit.
"""

import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.drawing import console
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.cli.output.live_keys import Choices, Keyboard
from parallelhassnes.cli.output.render_system import STYLES, style_of
from parallelhassnes.schedule.context import Context
from parallelhassnes.states import TERMINAL
from parallelhassnes.views.outcome import trials_text
from parallelhassnes.views.scoreboard_models import RunningStep
from parallelhassnes.views.watch_model import Ended, Follower, KeyUse, Look

REDRAW_SEC = 0.3
SUMMARY_SEC = 30.0
LINES_SEC = 1.0
MOST_KEYS = 6
MOST_RUNNING = 200
"""Live attempts that are looked into: those that a filter is to find."""


class LiveProgress:
    """``with Progress(ctx, batch_ids) as progress: while …: progress.update()``.

    Args:
        batch_ids: the batches to show; None for every one that has something in the queue, from now on.
        enabled: False shows nothing and looks at nothing.
        stream: where to write, stderr unless said otherwise.
    """

    def __init__(
        self,
        ctx: Context,
        batch_ids: Iterable[str] | None = None,
        *,
        enabled: bool = True,
        stream: IO[str] | None = None,
    ) -> None:
        self._enabled = enabled
        self._follower = Follower(ctx, batch_ids if enabled else ())
        self._concurrency = ctx.concurrency
        self._console = console(stream or sys.stderr)
        self._live: Live | None = None
        self._began = time.monotonic()
        self._due = 0.0
        self._summary_due = self._began + SUMMARY_SEC
        self._said = -1
        self._held: list[str] = []
        self._told: dict[str, str] = {}  # what went wrong → the first step of which it was told
        self._keyboard = Keyboard()
        self._choices = Choices(ctx, [*(batch_ids or ())])
        self._lines: dict[str, str] = {}  # attempt → what it said last
        self._lines_due = 0.0
        self.last = Look()
        """What the last look saw."""

    @property
    def keeps_open(self) -> bool:
        """Whether something waits for the key that lets it go on, as another has paused it."""
        return self.last.waiting > 0 and self._keyboard.is_there and self._choices.keeps_open

    def __enter__(self) -> Self:
        if self._enabled and self._console.is_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            self._keyboard.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._enabled:
            return
        try:
            self.update(now=True)
        finally:
            self._keyboard.stop()
            if self._live is not None:
                self._live.stop()
                self._live = None
        self._console.print(summary(self.last, self._elapsed()), soft_wrap=True)

    def update(self, *, now: bool = False) -> None:
        """Look and show, if it is time to; call as often as you like.

        Args:
            now: whether it is time or not.
        """
        moment = time.monotonic()
        if not self._enabled:
            return
        for key in self._keyboard.pressed() if self._keyboard.is_there else ():
            self._choices.press(key, self.last.running)
            now = True
        if moment < self._due and not now:
            return
        self.last = look = self._follower.look(MOST_RUNNING)
        if self._live is not None:
            self._live.update(self._draw(look), refresh=True)
        else:
            self._print(look, moment)
        self._due = time.monotonic() + REDRAW_SEC

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    # --- plain lines ------------------------------------------------------------------------------

    def _print(self, look: Look, moment: float) -> None:
        over = look.over - sum(ended.retry_at is None for ended in look.ended)
        trials = look.trials.over - sum(ended.is_trial and ended.retry_at is None for ended in look.ended)
        for ended in look.ended:
            over += ended.retry_at is None
            trials += ended.is_trial and ended.retry_at is None
            place = f"{trials}/{look.trials.total} trials" if look.trials.total else f"{over}/{look.total}"
            said = f"{ended.outcome.text} {ended.line}"
            self._console.print(ended_line(ended, place, self._told.setdefault(said, ended.step)), soft_wrap=True)
        told = [*(f"held: {line}" for line in look.held), *look.slowed]
        for line in told:
            if line not in self._held:
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        self._held = told
        if moment >= self._summary_due and look.over != self._said:
            self._console.print(summary(look, self._elapsed()), soft_wrap=True)
            self._summary_due, self._said = moment + SUMMARY_SEC, look.over

    # --- a terminal -------------------------------------------------------------------------------

    def _draw(self, look: Look) -> RenderableType:
        height = self._console.size.height
        parts: list[RenderableType] = [_bar(look), summary(look, self._elapsed())]
        if look.keys:
            parts.append(_keys(look.keys, look.live, self._concurrency))
        parts += [_one_line(Text(f"held: {line}", style="yellow")) for line in look.held[:3]]
        parts += [_one_line(Text(line, style="yellow")) for line in look.slowed[:3]]
        foot = [self._choices.foot()] if self._keyboard.is_there else []
        room = max(1, height - len(parts) - min(len(look.failures), 3) - len(foot) - 3)
        if self._choices.log is not None:
            parts += [_one_line(Text(line)) for line in self._choices.log_lines(room)]
        elif look.running:
            shown = self._choices.shown(look.running)
            parts.append(self._running(shown[:room]))
            hidden = look.live - len(shown[:room])
            parts += [Text(f"… and {hidden} more", style="dim")] if hidden > 0 else []
        parts += [_one_line(ended_line(ended)) for ended in look.failures[:3]]
        return Group(*parts, *foot)

    def _running(self, shown: list[RunningStep]) -> RenderableType:
        """Draw live attempts: phase, age, and what each said last, read once a second."""
        moment = time.monotonic()
        if moment >= self._lines_due or any(step.attempt not in self._lines for step in shown):
            self._lines = {step.attempt: self._choices.last_line(step) for step in shown}
            self._lines_due = moment + LINES_SEC
        chosen = self._choices.chosen(shown) if self._keyboard.is_there else None
        table = Grid("running")
        table.add_column("phase", rank=3)
        table.add_column("age", right=True, rank=2)
        table.add_column("said last", rank=1)
        room = self._console.size.width - max([len(step.step) for step in shown], default=0) - 34
        for step in shown:
            late = step.alive is False or step.stuck_since is not None
            phase = Text(step.phase.replace("_", " "), style="red" if late else "")
            phase.append(" DEAD" if step.alive is False else " STUCK" if step.stuck_since is not None else "")
            phase.append(f", try {step.number}" if step.number > 1 else "")
            name = Text(step.step, style="reverse" if step is chosen else "")
            said = Text(self._lines.get(step.attempt, ""), style="dim")
            said.truncate(max(16, room), overflow="ellipsis")
            table.add_row(name, phase, formatting.duration(step.age_sec), said)
        return table


def summary(look: Look, elapsed: float) -> Text:
    """Return ``12/40 trials: 8 passed, 2 scored without passing …; 3.2 steps a minute, about 7m left, 4m10s so far``.

    Where there are no trials, ``12/40 steps: 10 succeeded, 2 failed …``; where there are, other steps are told behind them.
    """
    trials = look.trials
    if not look.total:
        return Text("nothing runs and nothing waits", style="bold")
    if trials.total:
        text = Text(f"{trials.over}/{formatting.counted(trials.total, 'trial')} done", style="bold")
        told = [(count, style) for count, style in trials_text(trials) if style not in ("running", "waiting")]
    else:
        text = Text(f"{look.over}/{formatting.counted(look.total, 'step')} done", style="bold")
        told = [(f"{look.tally[name]} {name.replace('_', ' ')}", name) for name in TERMINAL if look.tally[name]]
    for place, (said, style) in enumerate(told):
        text.append(f"{', ' if place else ': '}{said}", style=f"not bold {STYLES[style]}")
    others = look.total - trials.total
    if trials.total and others:
        text.append(f"; {look.over - trials.over} of {formatting.counted(others, 'other step')} done", style="not bold")
    if look.live:
        text.append(f"; {look.live} running", style=f"not bold {STYLES['running']}")
    if look.waiting > look.blocked:
        text.append(f"; {look.waiting - look.blocked} waiting", style="not bold dim")
    if look.blocked:
        text.append(f"; {look.blocked} blocked", style=f"not bold {STYLES['blocked']}")
    said_of_time = []
    if look.live and look.per_minute:
        said_of_time.append(f"{look.per_minute:,.{0 if look.per_minute >= 10 else 1}f} steps a minute")
    if look.left_sec is not None and look.over < look.total:
        said_of_time.append(f"about {formatting.duration(look.left_sec)} left")
    said_of_time.append(
        f"{formatting.duration(elapsed)} so far" if look.over < look.total else f"in {formatting.duration(elapsed)}"
    )
    text.append("; " + ", ".join(said_of_time), style="not bold")
    if look.stand_in:
        text.append("; DRY RUN: no agent is called, their answers are made up", style="not bold yellow")
    return text


def ended_line(ended: Ended, place: str = "", first: str = "") -> Text:
    """Return one ended attempt; of a failed one also what went wrong and where.

    Args:
        first: the step of which the same was told before, or this one.
    """
    text = Text(f"{datetime.now(UTC):%H:%M:%S} " if place else "")
    text.append(ended.outcome.text, style=style_of(ended.outcome.standing, ended.outcome.text))
    text.append(f" {ended.step}")
    if ended.line and first not in ("", ended.step):
        text.append(f": as {first}")
    elif ended.line:
        said = ended.line.partition(": ")[2] if ended.outcome.standing == "no_score" else ended.line
        text.append(f" {said}" if said else "")
    if ended.retry_at:
        text.append(f", again in {formatting.until(ended.retry_at)}", style="yellow")
    if place:
        text.append(f" [{place}]", style="dim")
    if ended.line:
        text.append(f" {ended.attempt}", style="dim")
    return text


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _bar(look: Look) -> RenderableType:
    row = Table.grid(expand=True)  # the bar alone would not end its line
    row.add_row(ProgressBar(total=max(1, look.total), completed=look.over, width=None))
    return row


def _keys(keys: list[KeyUse], live: int, concurrency: int) -> RenderableType:
    row = Table.grid(padding=(0, 3, 0, 0))
    cells = [Text(f"live {live}/{concurrency}")]
    for use in keys[:MOST_KEYS]:
        full = use.limit is not None and use.live >= use.limit
        limit = "" if use.limit is None else f"/{use.limit}"
        cells.append(Text(f"{use.queue_key} {use.live}{limit}", style="yellow" if full else ""))
    row.add_row(*cells)
    return row
