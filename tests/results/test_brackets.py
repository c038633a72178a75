"""Every rate with its worst and best case; what makes two sides unequal is named, task by task."""

import json

import pytest
from stores import context, program, read
from written import NO_REWARD, ZERO, Left, Writer

from parallelhassnes.report import write
from parallelhassnes.results import text_tables
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.compare import compare
from parallelhassnes.steps.verdict.discrimination import bracket

MODEL = {"name": "terminus-2", "model_name": "openai/x"}
SEVERAL = Left({"a": 1, "b": 0})


@pytest.fixture
def writer(root):
    return Writer(context(root, "durable = false\n"))


def in_turn(*ends):
    """The n-th trial of an agent ends as the n-th of these."""
    left: dict[str, Left] = {}
    return lambda name, _number: left.setdefault(name, ends[len(left) % len(ends)])


def test_the_bracket_is_over_all_that_was_due():
    assert bracket(238, 405, 438) == (238, 271, 438)
    assert bracket(0, 0, 0) == (0, 0, 0)


def test_every_view_has_the_worst_and_best_case_over_what_is_unscored(writer):
    batch = writer.submit(["alpha"], [MODEL | {"n_trials": 5}], retry={"max_attempts": 1})
    writer.go_on(in_turn(Left(), ZERO, NO_REWARD, SEVERAL, Left()))
    layout, chosen = writer.ctx.layout, Choice((batch,), batch)
    (group,) = results(layout, chosen).groups
    assert (group.passes, group.counted, group.undecided) == (2, 3, 1)
    assert (group.passes_worst, group.passes_best, group.bracket_of) == (2, 4, 5)
    assert "2–4 of 5" in program(layout.root, "results", batch).stdout
    verdict = read(layout.job(batch, "alpha") / "verdict.json")
    assert verdict["agents"][0]["bracket"] == {"worst": 2, "best": 4, "of": 5}
    report = layout.root / "report.md"
    write.markdown(layout, chosen, report)
    assert "2–4 of 5 if all unscored failed or passed" in report.read_text()
    (pair,) = compare(layout, batch, batch).agents
    assert (pair.a_rate.worst, pair.a_rate.best, pair.a_rate.of, pair.a_rate.scored) == (2, 4, 5, 3)
    assert pair.unequal == []


def test_where_all_is_scored_there_is_no_bracket_to_show(writer):
    batch = writer.submit(["alpha"], [MODEL])
    writer.go_on(in_turn(ZERO))
    (group,) = results(writer.ctx.layout, Choice((batch,), batch)).groups
    assert (group.passes_worst, group.passes_best, group.bracket_of) == (0, 0, 1)
    assert text_tables.BRACKET not in program(writer.ctx.layout.root, "results", batch).stdout


def test_what_makes_two_sides_unequal_is_named_task_by_task(writer):
    first = writer.submit(["alpha", "beta"], [MODEL | {"kwargs": {"max_turns": 5}}])
    slow = {"override_timeout_sec": 90, "kwargs": {"max_turns": 50}, "n_trials": 2}
    second = writer.submit(["alpha", "beta"], [MODEL | slow])
    writer.go_on(in_turn(Left(version="1"), Left(version="1"), Left(version="2"), Left(version="2", checksum="other")))
    document = json.loads(program(writer.ctx.layout.root, "compare", first, second, "--json").stdout)
    (pair,) = document["agents"]
    unequal = {one["what"]: (one["a"], one["b"]) for one in pair["unequal"]}
    assert unequal["agent.kwargs.max_turns"] == ("5", "50")
    assert unequal["agent.override_timeout_sec"][0] == "–"
    assert unequal["attempts"] == ("1", "2")
    assert unequal["agent_version"][0] == "1"
    assert "task_checksum" in unequal
    for task in pair["tasks"]:
        assert {"agent.kwargs.max_turns", "attempts"} <= set(task["unequal"])
    assert any("agent_version" in task["unequal"] for task in pair["tasks"])
    shown = program(writer.ctx.layout.root, "compare", first, second, env={"COLUMNS": "250"}).stdout
    assert "not equal: agent.kwargs.max_turns is 5 in A, 50 in B: alpha, beta" in shown
    assert "the task itself differs between the sides" in shown
