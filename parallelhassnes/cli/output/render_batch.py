"""The scoreboard of a batch as text: what went wrong and what waits first, then the results."""

from collections.abc import Iterator

from rich.text import Text

from parallelhassnes import formatting
from parallelhassnes.cli.output.console import Page, Part, at_most, line
from parallelhassnes.cli.output.grid import Grid
from parallelhassnes.cli.output.render_system import SHORT, STYLES, counts_cells, counts_text, shown_states, tally
from parallelhassnes.views.scoreboard_models import (
    BatchScoreboard,
    BlockedGroup,
    BrokenTask,
    Cell,
    FailedStep,
    JobLine,
    RunningStep,
)

MOST_ROWS = 40
MOST_LIST = 10
MOST_COLUMNS = 8


def render(board: BatchScoreboard) -> Page:
    """Return the whole, ready to print."""
    return Page(*_parts(board))


def _parts(board: BatchScoreboard) -> Iterator[Part]:
    yield _head(board)
    if board.stand_in:
        yield Text(
            "DRY RUN: no agent was called, their answers are made up, and these results mean nothing.",
            style="bold yellow",
        )
    if board.held:
        yield Text(f"held: {board.held}", style="yellow")
    for warning in board.warnings[: at_most(MOST_LIST)]:
        yield Text(f"warning: {warning}", style="yellow")
    if board.failures:
        yield from _failures(board.failures)
    if board.blocked:
        yield from _blocked(board.blocked)
    if board.running:
        yield from _running(board.running)
    yield Text()
    yield _jobs(board)
    yield from _foot(board)


def _head(board: BatchScoreboard) -> Text:
    head = Text(f"{board.batch_id} ", style="bold")
    head.append(board.state, style=STYLES[board.state])
    if board.name:
        head.append(f"  {board.name}")
    head.append(f"\n{formatting.counted(board.jobs_total, 'job')}, ")
    head.append_text(tally(board.trials, board.other_steps, board.counts))
    return head


def _more(count: int) -> Iterator[Text]:
    if count > 0:
        yield Text(f"… and {count} more; --json has all of them", style="dim")


def _failures(failures: list[FailedStep]) -> Iterator[Part]:
    yield Text()
    groups: dict[tuple[str, ...], list[FailedStep]] = {}
    for failed in failures:
        groups.setdefault((failed.status, failed.failure_class, failed.line, str(failed.retry_at)), []).append(failed)
    for failed, *same in [*groups.values()][: at_most(MOST_LIST)]:
        again = f", again in {formatting.until(failed.retry_at)}" if failed.retry_at else ""
        text = Text(f"{failed.status} ", style=STYLES[failed.status])
        text.append(failed.step, style="bold")
        text.append(f" and {formatting.counted(len(same), 'more step')}" if same else "")
        text.append(
            f" ({formatting.failure_class(failed.failure_class, failed.guessed)}, attempt {failed.number}{again}): {failed.line}"
        )
        yield text
        yield line(f"    {failed.attempt}", style="dim")
    yield from _more(len(groups) - at_most(MOST_LIST))


def _blocked(groups: list[BlockedGroup]) -> Iterator[Part]:
    yield Text()
    for group in groups[: at_most(MOST_LIST)]:
        shown = ", ".join(group.steps[:3]) + (" …" if group.count > 3 else "")
        text = Text("blocked ", style="red" if group.final else "yellow")
        yield text.append(f"{group.count}: {group.reason} ({shown})")
    yield from _more(len(groups) - at_most(MOST_LIST))


def _running(running: list[RunningStep]) -> Iterator[Part]:
    yield Text()
    yield running_table(running[: at_most(MOST_LIST)])
    telling = [step for step in running[: at_most(MOST_LIST)] if step.item or step.tokens]
    if telling:
        yield Text()
        yield doing_table(telling)
    yield from _more(len(running) - at_most(MOST_LIST))


def running_table(running: list[RunningStep]) -> Grid:
    """Return live attempts: how long they run, and since when their heartbeat stands still."""
    table = Grid("running")
    table.add_column("phase", rank=2)
    table.add_column("label", rank=1)
    for name in ("try", "age", "heartbeat"):
        table.add_column(name, right=True, rank=int(name == "age"))
    for step in running:
        beat = formatting.duration(step.heartbeat_age_sec)
        dead = step.alive is False
        phase = Text(step.phase.replace("_", " "))
        if step.stuck_since is not None:
            phase.append(f" STUCK since {step.stuck_since[:16]}Z", style="red")
        table.add_row(
            step.step,
            phase,
            step.label,
            str(step.number),
            formatting.duration(step.age_sec),
            Text(f"{beat} DEAD" if dead else beat, style="red" if dead else ""),
        )
    return table


def doing_table(running: list[RunningStep]) -> Grid:
    """Tell what live attempts do, and what they have used so far, where their kind can tell."""
    table = Grid("doing")
    table.add_column("item", rank=1)
    for name in ("tokens", "cost"):
        table.add_column(name, right=True)
    for step in running:
        used = formatting.number(step.tokens), formatting.money(step.cost_usd)
        table.add_row(step.step, Text(step.item or ""), *used)
    return table


# --- results ------------------------------------------------------------------------------------------


def _jobs(board: BatchScoreboard) -> Grid:
    columns, most = board.columns[: at_most(MOST_COLUMNS)], at_most(MOST_ROWS)
    states = shown_states([job.counts for job in board.jobs])
    table = Grid("job")
    for column in columns:
        table.add_column(column, right=True)
    if not columns:
        for name in states:
            table.add_column(SHORT[name], right=True)
    others = bool(columns) and any(not job.cells for job in board.jobs)
    if others:
        table.add_column("steps")
    judged = bool(board.verdicts)
    if judged:
        table.add_column("task", rank=1)
    rows = sorted(board.jobs, key=_trouble)
    for job in rows[:most]:
        cells = [_cell(job.cells.get(column)) for column in columns] or counts_cells(job.counts, states)
        table.add_row(
            job.job_id,
            *cells,
            *([Text() if job.cells else counts_text(job.counts)] if others else []),
            *([_task(job)] if judged else []),
        )
    if len(rows) > most:
        table.add_row(Text(f"… and {len(rows) - most} more", style="dim"))
    if columns and len(rows) > 1:
        table.add_row(Text("all", style="bold"), *(_cell(board.totals[column]) for column in columns))
    return table


def _trouble(job: JobLine) -> int:
    bad = job.counts.failed + job.counts.lost + job.counts.needs_attention
    broken = job.verdict is not None and job.verdict.task_broken is True
    return 0 if bad or broken else 1


def _task(job: JobLine) -> Text:
    if job.verdict is None:
        return Text("–", style="dim")
    return {
        "broken": Text("BROKEN", style="red"),
        "needs_review": Text("review", style="yellow"),
        "good": Text("good", style="green"),
        "unknown": Text("not judged", style="dim"),
    }[job.verdict.task_quality]


def _cell(cell: Cell | None) -> Text:
    """Return ``2/3`` passes of scored trials, then what is not scored: ``+1 run``, ``+1 fail``; a mean between 0 and 1."""
    if cell is None:
        return Text("")
    text = Text()
    if cell.scored:
        decided = cell.scored - cell.undecided
        style = "green" if cell.passes == decided else "red" if not cell.passes else "yellow"
        if decided:
            text.append(f"{cell.passes}/{decided}", style=style)
        if cell.mean_reward is not None and cell.mean_reward != cell.passes / (decided or 1):
            text.append(f" ({formatting.reward(cell.mean_reward)})")
    for count, name, style in (
        (cell.undecided, "undecided", "yellow"),
        (cell.failed, "fail", "red"),
        (cell.unscored, "unscored", "yellow"),
        (cell.running, "run", "blue"),
        (cell.waiting, "wait", "dim"),
        (cell.canceled, "canc", "dim"),
    ):
        if count:
            text.append(f"{' ' if text else ''}+{count} {name}", style=style)
    if cell.again:
        text.append(f", {cell.again} again", style="dim")
    return text


def _broken(task: BrokenTask) -> Text:
    """Return ``broken: flaky-tests: the task's own solution does not pass every time. Make the tests …``."""
    text = Text("broken: ", style="red").append(task.job, style="bold")
    text.append(f": {task.why or 'its verdict gives no reason'}", style="not bold default")
    return text.append(f". {task.to_do}" if task.to_do else "", style="not bold default")


def _foot(board: BatchScoreboard) -> Iterator[Part]:
    if board.columns:
        again = any(cell.again for cell in board.totals.values())
        more = ", again: scored and to be tried once more" if again else ""
        yield Text(f"passes/scored (mean reward), + what is not scored{more}", style="dim")
    yield from _more(len(board.columns) - at_most(MOST_COLUMNS))
    said = []
    if board.unscored:
        said.append(f"{len(board.unscored)} unscored")
    broken = board.verdicts.get("broken", 0)
    for task in board.broken_tasks[: at_most(MOST_LIST)]:
        yield _broken(task)
    yield from _more(broken - len(board.broken_tasks[: at_most(MOST_LIST)]))
    if broken:
        said.append(f"{formatting.counted(broken, 'task')} broken")
    review = board.verdicts.get("needs_review", 0)
    if review:
        said.append(f"{formatting.counted(review, 'task')} to review")
    spent = board.spent
    if spent.cost_usd is not None:
        said.append(f"cost {formatting.money(spent.cost_usd, at_least=spent.cost_unknown > 0)}")
    if spent.cost_unknown:
        said.append(f"cost of {formatting.counted(spent.cost_unknown, 'attempt')} unknown")
    if spent.input is not None or spent.output is not None:
        cached = f" ({formatting.number(spent.cache)} cached)" if spent.cache else ""
        said.append(f"tokens {formatting.number(spent.input)} in{cached}, {formatting.number(spent.output)} out")
    if spent.attempts_known and spent.attempts_unknown:
        said.append(f"of {formatting.counted(spent.attempts_unknown, 'attempt')} unknown")
    if said:
        yield Text("; ".join(said))
