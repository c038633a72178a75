"""What two views say of one thing is one thing: what was called off, who ran, by which rule, at which cost."""

import io
import json
from contextlib import closing

import pytest
from one_answer import views
from rich.console import Console
from stores import context, program
from written import NO_REWARD, ZERO, Left, Writer

from parallelhassnes import formatting
from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.cancel_retry import cancel, retry
from parallelhassnes.actions.limits import budget
from parallelhassnes.cli.output import render_batch
from parallelhassnes.refs import Found
from parallelhassnes.results import collect, export, text_tables
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.compare import compare
from parallelhassnes.results.error_groups import errors
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.views import run_report
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.explain import explain
from parallelhassnes.views.show import show

MODEL = {"name": "terminus-2", "model_name": "openai/x"}


@pytest.fixture
def writer(root):
    return Writer(context(root, "durable = false\n"))


def lines(writer, batch=None, by=("agent", "model")):
    layout = writer.ctx.layout
    return results(layout, collect.choose(layout, batch), by)


@pytest.mark.parametrize("what", ["batch", "step"])
def test_what_was_canceled_before_it_started_is_canceled_in_every_view(writer, what):
    batch = writer.submit(["alpha"], [{**MODEL, "n_trials": 2}])
    steps = [line.step for line in trial_lines(writer.ctx.layout, collect.choose(writer.ctx.layout)).trials]
    targets = (
        [Found(batch_id=batch)]
        if what == "batch"
        else [Found(batch_id=batch, job_id="alpha", step_id=s) for s in steps]
    )
    assert lines(writer).groups[0].missing == 2
    for target in targets:
        cancel(writer.ctx, target)
    (group,) = lines(writer).groups
    (cell,) = batch_scoreboard(writer.ctx.layout, batch).totals.values()
    assert (group.canceled, group.missing, cell.canceled) == (2, 0, 2)
    assert text_tables.not_scored(group) == "2 canceled"
    told = trial_lines(writer.ctx.layout, collect.choose(writer.ctx.layout)).trials
    assert [line.result for line in told] == ["canceled", "canceled"]


def test_another_pass_rule_makes_the_sides_unequal(writer):
    first = writer.submit(["alpha"], [MODEL])
    writer.go_on(lambda _name, _number: ZERO)
    same = writer.submit(["alpha"], [MODEL], {"pass": {"at_least": 1}})
    writer.go_on(lambda _name, _number: ZERO)
    second = writer.submit(["alpha"], [MODEL], {"pass": {"at_least": 0}})
    writer.go_on(lambda _name, _number: ZERO)
    assert compare(writer.ctx.layout, first, same).agents[0].unequal == []
    found = compare(writer.ctx.layout, first, second)
    (unequal,) = found.agents[0].unequal
    assert (unequal.what, unequal.a, unequal.b) == ("pass_rule", "main reward >= 1", "main reward >= 0")
    (row,) = text_tables.of_comparison(found)[1].rows
    assert row[-1] == "won by another pass rule"
    assert lines(writer, first).notes == []
    (note,) = lines(writer).notes
    assert note == "The trials have different pass rules: main reward >= 1 (2 trials), main reward >= 0 (1 trial)."
    assert note in text_tables.of_results(lines(writer)).notes


def test_two_agents_of_one_class_name_are_two_in_every_view(writer):
    one, other = {"import_path": "costly_agent:CostlyAgent"}, {"import_path": "tests.costly_agent:CostlyAgent"}
    second = {**other, "kwargs": {"solves": False}}
    batch = writer.submit(["alpha"], [one, other, second, {"name": "nop"}])
    names = {one["import_path"], other["import_path"], "nop"}
    assert {group.key["agent"] for group in lines(writer, batch).groups} == names
    writer.go_on(lambda name, _number: ZERO if "-2." in name else Left())
    board = batch_scoreboard(writer.ctx.layout, batch)
    assert board.columns == [one["import_path"], other["import_path"], f"{other['import_path']} #2", "nop"]
    groups = {group.key["agent"]: group.n for group in lines(writer, batch).groups}
    assert groups == {one["import_path"]: 1, other["import_path"]: 2, "nop": 1}
    (verdict,) = (writer.ctx.layout.batch(batch) / "alpha").glob("verdict.json")
    assert {each["agent"] for each in json.loads(verdict.read_text())["agents"]} == names
    assert compare(writer.ctx.layout, f"{batch}@{one['import_path']}", f"{batch}@{other['import_path']}").agents


def test_agents_of_one_class_name_in_two_batches_are_two_in_results_and_compare(writer):
    batches = [
        writer.submit(["alpha"], [{"import_path": path}, {"name": "nop"}])
        for path in ("costly_agent:CostlyAgent", "tests.costly_agent:CostlyAgent")
    ]
    found = {group.key["agent"]: group.n for group in lines(writer).groups}
    assert found == {"costly_agent:CostlyAgent": 1, "tests.costly_agent:CostlyAgent": 1, "nop": 2}
    assert [group.key["agent"] for group in lines(writer, batches[0]).groups] == ["CostlyAgent", "nop"]
    assert compare(writer.ctx.layout, *batches).only_a == ["costly_agent:CostlyAgent"]


def test_by_reward_counts_the_trials_that_have_it_and_rates_only_what_a_rule_decides(writer):
    ends = [Left({"reward": 1, "style": 0.5}), Left({"reward": 0}), NO_REWARD]
    writer.submit(["alpha"], [{**MODEL, "n_trials": 3}])
    writer.go_on(lambda name, _number: ends[int(name[-1]) - 1])
    layout = writer.ctx.layout
    for as_zero in (False, True):
        chosen = collect.choose(layout)
        found = results(layout, chosen, ["reward"], unscored_as_zero=as_zero).groups
        by_name = {group.key["reward"]: group for group in found}
        main, style = by_name["reward"], by_name["style"]
        assert (main.n, main.scored, main.undecided, main.passes, main.bracket_of) == (3, 2, 0, 1, 3)
        assert (style.n, style.scored, style.undecided, style.unscored) == (2, 1, 1, 1)
        assert (style.pass_rate, style.pass_rate_planned, style.counted) == (None, None, 0)
        assert (text_tables.bracket(style), style.mean_reward) == ("", 0.25 if as_zero else 0.5)
        assert main.pass_rate == (1 / 3 if as_zero else 1 / 2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1e308, "1e+308"),
        (-1e308, "-1e+308"),
        (0.999999, "0.999999"),
        (0.9999999, "<1"),
        (1, "1.00"),
        (0.75, "0.75"),
        (0, "0.00"),
        (1.000001, "1.000001"),
        (12345.678, "12345.68"),
        (1e-9, "0.00"),
        (0.0004, "0.0004"),
        (-0.996, "-0.996"),
        (1 - 1e-12, "1.00"),
    ],
)
def test_a_reward_is_short_and_never_rounded_to_a_pass(value, said):
    assert formatting.reward(value) == said
    assert len(formatting.reward(value, plain=True)) <= 9
    assert formatting.value_with(value, None, None) == said


def test_a_huge_reward_leaves_every_table_narrow(writer):
    batch = writer.submit(["alpha"], [MODEL])
    writer.go_on(lambda _name, _number: Left({"reward": 1e308, "b": 1e308}))
    for asked in (("scoreboard", batch), ("results", batch), ("results", batch, "--trials")):
        assert "0" * 20 not in program(writer.ctx.layout.root, *asked).stdout


def test_costs_that_nobody_knows_are_counted_wherever_money_stands(writer):
    batch = writer.submit(["alpha"], [{**MODEL, "n_trials": 2}], budget={"usd": 1})
    writer.go_on(lambda _name, _number: Left(cost_usd=-3.5, tokens=(6, 0, 6)))
    root = writer.ctx.layout.root
    assert "cost of 2 attempts unknown" in program(root, "scoreboard", batch).stdout
    said = program(root, "budget", batch).stdout
    assert said == f"{batch}: at least 0.00 of 1.00 USD, 24 tokens spent; the cost of 2 attempts is not known\n"
    assert budget.show(writer.ctx, batch).attempts_unknown == 2
    other = writer.submit(["beta"], [{**MODEL, "n_trials": 2}])
    writer.go_on(lambda name, _n: Left(cost_usd=0.5 if name[-1] == "1" else None, tokens=(6, 0, 6)))
    head, row = text_tables.of_results(lines(writer, other))[1:3]
    assert row[0][head.index("per pass")] == "≥$0.25"


def test_a_scored_trial_that_is_tried_again_counts_once(writer):
    batch = writer.submit(["alpha"], [{**MODEL, "n_trials": 2}])
    writer.go_on(lambda _name, _number: Left())
    pause_resume.pause(writer.ctx, "openai/x")
    step = trial_lines(writer.ctx.layout, collect.choose(writer.ctx.layout)).trials[0].step
    retry(writer.ctx, Found(batch_id=batch, job_id="alpha", step_id=step))
    board = batch_scoreboard(writer.ctx.layout, batch)
    (cell,) = board.totals.values()
    assert (cell.n, cell.scored, cell.waiting, cell.again) == (2, 2, 0, 1)
    assert render_batch._cell(cell).plain == "2/2, 1 again"


STRANGE = Left(None, ("StrangeError", "nobody knows"), tokens=(3, 0, 3))


def test_a_class_that_nobody_named_is_a_guess_in_every_view(writer):
    batch = writer.submit(["alpha"], [{**MODEL, "n_trials": 2}])
    ends = {"1": STRANGE, "2": Left(None, ("RewardFileNotFoundError", "no reward file"), tokens=(3, 0, 3))}
    writer.go_on(lambda name, _number: ends[name[-1]])
    layout, chosen = writer.ctx.layout, collect.choose(writer.ctx.layout, batch)
    board = batch_scoreboard(layout, batch)
    classes = {"agent_error": True, "verifier": False}
    assert {one.failure_class: one.guessed for one in board.failures} == classes
    shown = Console(width=200, file=io.StringIO())
    shown.print(*render_batch._failures(board.failures))
    assert "(agent_error (guessed), attempt 1): StrangeError" in shown.file.getvalue()
    found = trial_lines(layout, chosen)
    assert {one.failure_class: one.guessed for one in found.trials} == classes
    assert {"agent_error (guessed)", "verifier"} <= {cell for row in text_tables.of_trials(found).rows for cell in row}
    assert "guessed" in export.csv_text(export.of_trials(found.trials)).splitlines()[0].split(",")
    (group,) = lines(writer, batch).groups
    assert (group.failures_guessed, text_tables.not_scored(group)) == (
        {"agent_error": 1},
        "1 agent_error (1 guessed), 1 verifier",
    )
    csv = export.of_groups(["agent", "model"], [group])
    assert csv.records[0]["failures_guessed"] == "agent_error=1"
    assert {one.failure_class: one.guessed for one in errors(layout, chosen).groups} == classes
    document = show(layout, batch)
    said = {
        step.failure_class: (step.guessed, step.failure.partition(":")[0]) for step in document.steps if step.failure
    }
    assert said == {"agent_error": (True, "agent_error (guessed)"), "verifier": (False, "verifier")}
    failed = next(step for step in document.steps if step.guessed)
    (attempt,) = show(layout, f"{batch}/{failed.step}").attempts
    assert attempt.guessed
    (explained,) = explain(writer.ctx, f"{batch}/{failed.step}").steps
    assert "(agent_error (guessed): StrangeError" in explained.why[0]
    (report,) = run_report.run_reports(layout, f"{batch}/{failed.step}")
    assert "agent_error (guessed): StrangeError" in "\n".join(run_report.lines(report))
    with closing(views.Browser()) as browser:
        client = browser.look_at(writer.ctx)
        assert "<small>guessed, attempt 1" in client.get(f"/batches/{batch}").text
        assert "agent_error (guessed)" in client.get(f"/batches/{batch}/steps?failure=agent_error").text
        page = client.get("/attempts/" + attempt.attempt.rpartition("_")[2]).text
        assert "<b>agent_error (guessed)</b>" in page
        listed = client.get(f"/v1/batches/{batch}/scoreboard").json()["failures"]
        assert {one["failure_class"]: one["guessed"] for one in listed} == classes


def test_the_differences_of_huge_rewards_are_short(writer):
    batches = []
    for reward in (1e300, -1e300):
        batches.append(writer.submit(["alpha", "beta"], [MODEL]))
        writer.go_on(lambda _name, _number, reward=reward: Left({"reward": reward}, cost_usd=0.5))
    sheet, _ = text_tables.of_comparison(compare(writer.ctx.layout, *batches))
    assert [row[3:] for row in sheet.rows][:2] == [
        ("1e+300", "-1e+300", "-2e+300 (-2e+300 to -2e+300)"),
        ("0.5000", "0.5000", "+0.0000 (+0.0000 to +0.0000)"),
    ]
    assert [formatting.money(1e299), formatting.fixed(1234567.5), formatting.money(1234567.5)] == [
        "$1e+299",
        "1234567.50",
        "$1,234,567.50",
    ]
