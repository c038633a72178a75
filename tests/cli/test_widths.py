"""Each view at each width, with long, wide and odd names: every fact is there, or the line that names what is left out has its column."""

import io
import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from parallelhassnes.cli.output import render_batch, render_results, render_show, render_system
from parallelhassnes.results.error_groups import ErrorGroup, Errors
from parallelhassnes.results.text_tables import Sheet
from parallelhassnes.views.scoreboard_models import (
    BatchLine,
    BatchScoreboard,
    Cell,
    Counts,
    FailedStep,
    JobLine,
    QueueLine,
    RunningStep,
    Spent,
    SystemScoreboard,
    TrialCounts,
)
from parallelhassnes.views.show import ShowDocument, StepLine

WIDTHS = (40, 60, 80, 100, 200)
ODD = {
    "long": "a-task-with-a-name-that-is-very-much-longer-than-any_reasonable_name.should/be/at/all",
    "wide": "任务名称很长而且没有空格可以断开的地方就这样一直写下去",
    "emoji": "🚀🚀🚀-emoji-👩‍💻-task",
    "one word": "x" * 90,
    "markup": "[bold]markup[/bold]",
}
BATCH = "20261128T121921Z-t77bziuk"
AT = "2026-11-28T12:00:00.000000Z"


def line_of(name: str) -> BatchLine:
    return BatchLine(
        batch_id=BATCH,
        state="attention",
        trouble=True,
        jobs_total=1,
        steps_total=12345,
        counts=Counts(
            succeeded=11, failed=22, running=33, blocked=44, lost=55, canceled=66, ready=77, needs_attention=88
        ),
        trials=TrialCounts(total=3, passed=1, no_score=2),
        name=name,
        created_at=AT,
        stamp="",
    )


def system(name: str) -> tuple[RenderableType, list[str], dict[str, str]]:
    board = SystemScoreboard(
        at=AT,
        concurrency=8,
        live=1,
        counts=Counts(failed=22),
        incoming=0,
        rejected=0,
        queue=[QueueLine(queue_key=name, live=901, limit=902, limit_why="configured", ready=903, delayed=904)],
        runners=[],
        batches=[line_of(name)],
    )
    columns = {"state": "attention", "steps": "12345", "name": name, "live": "901", "limit": "902", "ready": "903"}
    columns |= {"delayed": "904", "ok": "11", "fail": "22", "run": "33", "block": "44", "lost": "55", "canc": "66"}
    return render_system.render(board), [BATCH, name], columns | {"attn": "88"}


def running(name: str) -> RunningStep:
    return RunningStep(
        step=f"{name}/s",
        label="labelled",
        queue_key="k",
        number=7,
        phase="environment_setup",
        age_sec=3723,
        heartbeat_age_sec=41,
        alive=True,
        host="h",
        attempt="runs/b/j/steps/s/attempts/a",
    )


def batch(name: str) -> tuple[RenderableType, list[str], dict[str, str]]:
    columns = [f"{name} · openai/gpt-5.2", "oracle"]
    cell = Cell(n=9, scored=7, passes=5, mean_reward=0.654, failed=2)
    board = BatchScoreboard(
        at=AT,
        batch_id=BATCH,
        state="running",
        name=name,
        experiment="",
        goal="",
        labels={},
        source_name="",
        created_at=AT,
        stand_in=False,
        held="",
        jobs_total=2,
        steps_total=9,
        counts=Counts(running=1),
        columns=columns,
        totals=dict.fromkeys(columns, cell),
        jobs=[JobLine(job_id=name, counts=Counts(failed=2), cells=dict.fromkeys(columns, cell))],
        running=[running(name)],
        blocked=[],
        failures=[
            FailedStep(
                step=f"{name}/bad",
                status="failed",
                failure_class="agent_error",
                line="ended with exit code 3: boom",
                number=2,
                ended_at=AT,
                attempt="runs/b/j/steps/bad/attempts/a",
            )
        ],
        failure_classes={},
        unscored=[],
        verdicts={},
        attempts=1,
        spent=Spent(cost_usd=1.25, input=1000, output=50, attempts_known=1),
        warnings=[],
    )
    facts = [BATCH, name, f"{name}/bad", "agent_error", "boom", "$1.25", "runs/b/j/steps/bad/attempts/a"]
    heads = {"phase": "environment setup", "label": "labelled", "try": "7", "age": "1h02m", "heartbeat": "41s"}
    return render_batch.render(board), facts, heads | {"oracle": "5/7 (0.65) +2 fail"}


def show(name: str) -> tuple[RenderableType, list[str], dict[str, str]]:
    step = StepLine(
        step=f"{name}/s",
        kind="trial",
        label="agent",
        state="failed",
        outcome="no score: rate_limit",
        standing="no_score",
        attempts=13,
        queue_key="k",
        failure="rate_limit: slow down",
        depends_on=[],
    )
    document = ShowDocument(
        what="batch", id=BATCH, state="attention", path=f"runs/{BATCH}", counts=Counts(failed=1), steps=[step]
    )
    heads = {"kind": "trial", "tries": "13", "what happened": "rate_limit: slow down"}
    return render_show.render(document), [BATCH, f"{name}/s", "no score: rate_limit"], heads


def results(name: str) -> tuple[RenderableType, list[str], dict[str, str]]:
    heads = ("task", "agent", "tasks", "passes/scored", "pass rate", "cost", "tokens in", "out")
    row = (name, "oracle", "1", "0/2", "0 % (0–66)", "$1.00", "12.3k", "950")
    sheet = Sheet("Results", heads, [row], ("a note",), 2, 1)
    return render_results.render(sheet), [name, "oracle", "a note"], dict(zip(heads[2:], row[2:], strict=True))


def errors(name: str) -> tuple[RenderableType, list[str], dict[str, str]]:
    group = ErrorGroup(
        failure_class="agent_error",
        message=f"lost {name}",
        attempts=4,
        steps=3,
        open=2,
        agents=[name],
        attempt="runs/b/j",
        example="b/j",
        beside_a_score=False,
    )
    found = Errors(at=AT, of=BATCH, batches=[BATCH], attempts=4, groups=[group])
    return (
        render_results.errors(found),
        [BATCH, name, "agent_error", "runs/b/j"],
        {"attempts": "4", "steps": "3", "open": "2", "agents": name},
    )


VIEWS: dict[str, Callable[[str], tuple[RenderableType, list[str], dict[str, str]]]] = {
    "system": system,
    "batch": batch,
    "show": show,
    "results": results,
    "errors": errors,
}


def printed(renderable: RenderableType, width: int) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(renderable, crop=False)
    return stream.getvalue().splitlines()


def is_there(fact: str, said: str) -> bool:
    """Whether every part of a fact that is never broken is there; wide characters and long words may stand in several lines."""
    said = f"{said} {said.replace('\n', '')}"
    for part in re.findall(r"[^\s\-/._,]+", fact):
        if part not in said and not (len(part) > 30 or not part.isascii()):
            return False
        if part not in said and any(char not in said for char in part):
            return False
    return True


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("view", VIEWS)
def test_every_fact_is_there_or_its_column_is_named_as_left_out(view: str, name: str, width: int) -> None:
    renderable, facts, columns = VIEWS[view](ODD[name])
    lines = printed(renderable, width)
    said = "\n".join(lines)
    gone = " ".join(" ".join(lines[at : at + 4]) for at, line in enumerate(lines) if "no room for" in line)
    for fact in facts:
        assert is_there(fact, said), fact
    for head, value in columns.items():
        assert is_there(value, said) or is_there(head, gone), f"{head}: neither {value!r} is shown nor the column named"
    paths = [line for line in lines if "runs/" in line]  # they are to be copied, and never broken
    assert max(cell_len(line) for line in lines if line not in paths and BATCH not in line) <= width


@pytest.mark.parametrize("view", VIEWS)
def test_where_nothing_limits_the_width_nothing_is_left_out(view: str) -> None:
    renderable, facts, columns = VIEWS[view](ODD["long"])
    said = "\n".join(printed(renderable, 100_000))
    assert "no room for" not in said
    assert all(fact in said for fact in [*facts, *columns.values()])
