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
from parallelhassnes.cli.output.console import console
from parallelhassnes.cli.output.render_batch import running_table
from parallelhassnes.cli.output.render_system import STYLES
from parallelhassnes.schedule.context import Context
from parallelhassnes.views.outcome import trials_text
from parallelhassnes.views.watch_model import OVER, Ended, Follower, KeyUse, Look

REDRAW_SEC = 0.3
SUMMARY_SEC = 30.0
MOST_KEYS = 6


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
        self.last = Look()
        """What the last look saw."""

    def __enter__(self) -> Self:
        if self._enabled and self._console.is_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._enabled:
            return
        try:
            self.update(now=True)
        finally:
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
        if not self._enabled or (moment < self._due and not now):
            return
        self.last = look = self._follower.look()
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
            self._console.print(ended_line(ended, place), soft_wrap=True)
        for line in look.held:
            if line not in self._held:
                self._console.print(f"held: {line}", soft_wrap=True, highlight=False, markup=False)
        self._held = look.held
        if moment >= self._summary_due and look.over != self._said:
            self._console.print(summary(look, self._elapsed()), soft_wrap=True)
            self._summary_due, self._said = moment + SUMMARY_SEC, look.over

    # --- a terminal -------------------------------------------------------------------------------

    def _draw(self, look: Look) -> RenderableType:
        height = self._console.size.height
        parts: list[RenderableType] = [_bar(look), summary(look, self._elapsed())]
        if look.keys:
            parts.append(_keys(look.keys, look.live, self._concurrency))
        parts += [Text(f"held: {line}", style="yellow", overflow="ellipsis", no_wrap=True) for line in look.held[:3]]
        if look.running:
            room = max(1, height - len(parts) - min(len(look.failures), 3) - 4)
            parts.append(running_table(look.running[:room]))
            if look.live > len(look.running[:room]):
                parts.append(Text(f"… and {look.live - len(look.running[:room])} more", style="dim"))
        parts += [_one_line(ended_line(ended)) for ended in look.failures[:3]]
        return Group(*parts)


def summary(look: Look, elapsed: float) -> Text:
    """Return ``12/40 trials: 8 passed, 2 scored without passing …; 3.2/min, about 7m left, 4m10s so far``.

    Where there are no trials, ``12/40 steps: 10 succeeded, 2 failed …``; where there are, other steps are told behind them.
    """
    trials = look.trials
    if trials.total:
        text = Text(f"{trials.over}/{formatting.counted(trials.total, 'trial')} done", style="bold")
        told = [(count, style) for count, style in trials_text(trials) if style not in ("running", "waiting")]
    else:
        text = Text(f"{look.over}/{formatting.counted(look.total, 'step')} done", style="bold")
        told = [(f"{look.tally[name]} {name.replace('_', ' ')}", name) for name in OVER if look.tally[name]]
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


def ended_line(ended: Ended, place: str = "") -> Text:
    """Return one ended attempt; of a failed one also what went wrong and where."""
    text = Text(f"{datetime.now(UTC):%H:%M:%S} " if place else "")
    text.append(ended.outcome.text, style=STYLES.get(ended.outcome.standing, ""))
    text.append(f" {ended.step}")
    if ended.line:
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
