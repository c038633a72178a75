"""What ``run --json`` prints when all is over: the batch's scoreboard, and what a CI job decides by."""

from pathlib import Path

from parallelhassnes.errors import UserError
from parallelhassnes.report import figures
from parallelhassnes.results.collect import Choice, TrialRow, read
from parallelhassnes.states import TaskQuality
from parallelhassnes.steps.verdict import discrimination, judge
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.scoreboard_models import BatchScoreboard, View


class TaskCount(View):
    """One task, over all agents."""

    task: str
    job: str
    task_quality: TaskQuality | None
    """Null where the job has no verdict."""
    n: int
    """Trials planned."""
    scored: int
    undecided: int
    """Of the scored ones those with several rewards and no main one."""
    passes: int
    mean_reward: float | None
    """Of the main rewards."""


class RunDone(BatchScoreboard):
    """A batch that was run to its end."""

    exit_code: int
    """Of the command, by ``--fail-on``."""
    tasks: list[TaskCount]
    report: str | None
    """The report that ``--report`` asked for, absolute."""


def check_report(path: Path) -> None:
    """Refuse a report that cannot be written before anything is run for it.

    Raises:
        UserError: its folder is not there, or what draws its pictures is not installed.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(f"--report {path}: its folder is not there", fix="make it first")
    if path.suffix.lower() not in (".html", ".htm", ".md", ".markdown"):
        raise UserError(f"--report {path}: is neither HTML nor Markdown", fix="end its name with .html or .md")
    if not _is_markdown(path):
        figures.require()


def write_report(layout: Layout, batch_id: str, path: Path) -> str:
    """Write the report of a batch: Markdown where the name ends so, else HTML; its absolute path."""
    from parallelhassnes.report import write

    chosen = Choice((batch_id,), batch_id)
    if _is_markdown(path):
        write.markdown(layout, chosen, path)
    else:
        write.html(layout, chosen, path)
    return str(path.absolute())


def _is_markdown(path: Path) -> bool:
    return path.suffix.lower() in (".md", ".markdown")


def run_done(layout: Layout, batch_id: str, exit_code: int, report: str | None) -> RunDone:
    """Return the batch as of now."""
    board = batch_scoreboard(layout, batch_id)
    jobs: dict[str, list[TrialRow]] = {}
    for row in read(layout, Choice((batch_id,), batch_id)):
        jobs.setdefault(row.job_id, []).append(row)
    tasks = [_count(layout, batch_id, job_id, rows) for job_id, rows in jobs.items()]
    return RunDone(**dict(board), exit_code=exit_code, tasks=tasks, report=report)


def _count(layout: Layout, batch_id: str, job_id: str, rows: list[TrialRow]) -> TaskCount:
    verdict = judge.read(layout.job(batch_id, job_id))
    rewards = [row.facts.reward for row in rows if row.scored and row.facts.reward is not None]
    return TaskCount(
        task=rows[0].task,
        job=job_id,
        task_quality=verdict["task_quality"] if verdict else None,
        n=len(rows),
        scored=sum(row.scored for row in rows),
        undecided=sum(row.scored and not row.facts.decided for row in rows),
        passes=sum(row.facts.passed is True for row in rows),
        mean_reward=discrimination.mean(rewards),
    )
