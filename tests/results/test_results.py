"""results, compare and errors over a store of real trials; only what they promise."""

import csv
import io
import json
import re

import pytest
import scored
from hypothesis import given, settings
from hypothesis import strategies as st
from made_facts import trial_facts
from pyarrow import parquet
from stores import program

from parallelhassnes.admin import schemas
from parallelhassnes.cli.app import app
from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import line, results
from parallelhassnes.results.collect import SideName, TrialRow
from parallelhassnes.results.compare import compare
from parallelhassnes.results.error_groups import errors, normalise
from parallelhassnes.results.export import markdown_table
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.steps import final_report as report
from parallelhassnes.steps.trial_data.facts import RESULTS


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("scored") / "root"
    root.mkdir()
    return scored.make(root)


def group(found, **key):
    (one,) = [g for g in found.groups if key.items() <= g.key.items()]
    return one


def test_by_agent(store):
    found = results(store.ctx.layout, collect.choose(store.ctx.layout, store.first))
    oracle, nop, mine = (group(found, agent=name) for name in ("oracle", "nop", "ScriptedAgent"))
    assert (oracle.n, oracle.scored, oracle.passes, oracle.tasks, oracle.pass_rate) == (4, 4, 4, 2, 1)
    assert oracle.pass_at == oracle.pass_hat == {"1": 1, "2": 1}
    assert (oracle.pass_rate_low, oracle.pass_rate_high) == pytest.approx((0.3424, 1), abs=1e-4)
    assert (nop.scored, nop.passes, nop.pass_rate) == (2, 0, 0)
    assert (mine.n, mine.scored, mine.passes, mine.unscored) == (4, 3, 2, 1)
    assert (mine.pass_rate, mine.pass_rate_planned) == pytest.approx((2 / 3, 1 / 2))
    assert mine.failures == {"agent_error": 1}
    assert mine.input_tokens == 28
    costs = group(found, agent="CostlyAgent")
    assert (costs.cost_usd, costs.cost_known, costs.cost_per_success_usd) == (4, 4, 1)
    assert costs.seconds_p50 <= costs.seconds_p90 <= costs.seconds_max
    assert [g.key["agent"] for g in found.groups][-1] == "nop"


def test_what_is_not_scored_is_zero_only_when_asked(store):
    chosen = collect.choose(store.ctx.layout, store.first)
    found = group(results(store.ctx.layout, chosen, unscored_as_zero=True), agent="ScriptedAgent")
    assert (found.counted, found.scored, found.pass_rate, found.mean_reward) == (4, 3, 0.5, 0.5)


def test_by_anything(store):
    layout = store.ctx.layout
    found = results(layout, collect.choose(layout, experiment="nightly"), ["task", "label:team", "batch"])
    assert {(g.key["task"], g.key["label:team"]) for g in found.groups} == {
        ("alpha", "a"),
        ("beta", "a"),
        ("beta", ""),
        ("gamma", ""),
    }
    whole = results(layout, collect.choose(layout), ["experiment"])
    assert sum(g.n for g in found.groups) == whole.groups[0].n == 20
    with pytest.raises(UserError, match="did you mean agent"):
        results(layout, collect.choose(layout), ["agnet"])


def test_a_line_per_trial_agrees_with_the_groups(store):
    layout = store.ctx.layout
    chosen = collect.choose(layout)
    lines = trial_lines(layout, chosen).trials
    assert len(lines) == sum(g.n for g in results(layout, chosen).groups)
    for trial in lines:
        report = json.loads((layout.root / trial.attempt / "final.json").read_text())
        assert (trial.passed is None) == (trial.reward is None) == (trial.result != "scored")
        assert report["trial"]["reward"] == trial.reward


def test_compare_pairs_by_task(store):
    found = compare(store.ctx.layout, store.first, store.second)
    assert [(agent.a, agent.b) for agent in found.agents] == [("oracle", "oracle"), ("CostlyAgent", "CostlyAgent")]
    assert found.only_a == ["nop", "ScriptedAgent"]
    oracle, costs = found.agents
    assert (oracle.new, oracle.gone, oracle.passed_both) == (["gamma"], ["alpha"], 1)
    assert (oracle.reward.difference, oracle.p_value) == (0, 1)
    assert [pair.changed for pair in costs.tasks] == [True]
    assert (costs.won, costs.lost, costs.reward.difference) == ([], ["beta"], -1)
    assert costs.cost_usd.difference == 1
    assert costs.reward.low is None  # one task has no interval


def test_compare_two_agents_of_one_batch(store):
    found = compare(store.ctx.layout, f"{store.first}@nop", f"{store.first}@CostlyAgent")
    (pair,) = found.agents
    assert (pair.a, pair.b, pair.won, pair.p_value) == ("nop", "CostlyAgent", ["alpha", "beta"], 0.5)
    assert (pair.reward.low, pair.reward.high) == (1, 1)
    with pytest.raises(UserError, match="did you mean @CostlyAgent"):
        compare(store.ctx.layout, f"{store.first}@nop", f"{store.first}@costy")
    with pytest.raises(UserError, match="write BATCH@AGENT"):
        compare(store.ctx.layout, f"{store.first}@nop", store.second)
    with pytest.raises(UserError, match="did you mean nightly"):
        compare(store.ctx.layout, "experiment:nigthly", store.first)


def test_a_side_may_be_the_trials_with_a_label(store):
    layout = store.ctx.layout
    found = compare(layout, "label:team=a@oracle", f"{store.second}@oracle")
    (pair,) = found.agents
    assert (found.a, pair.gone, pair.new) == ("all batches oracle,team=a", ["alpha"], ["gamma"])
    whole, part = compare(layout, store.first, store.first), compare(layout, store.first, f"{store.first}@team=a")
    assert [agent.tasks for agent in whole.agents] == [agent.tasks for agent in part.agents]
    with pytest.raises(UserError, match="has no trial with team=aa; did you mean team=a"):
        compare(layout, f"{store.first}@team=aa", store.second)
    with pytest.raises(UserError, match="its labels are task=beta, task=gamma"):
        compare(layout, f"{store.second}@team=a", store.first)


LABEL_PART = st.text(st.characters(codec="utf-8", exclude_characters="@,=")).map(str.strip).filter(bool)


@given(LABEL_PART, st.lists(LABEL_PART, max_size=2), st.lists(st.tuples(LABEL_PART, LABEL_PART), max_size=3))
def test_the_name_of_a_side_can_be_taken_apart_again(where, whose, labels):
    name = SideName(where, *whose, labels=tuple("=".join(label) for label in labels))
    assert SideName.of(str(name)) == name


def test_errors_are_grouped(store):
    found = errors(store.ctx.layout, collect.choose(store.ctx.layout))
    (crash,) = found.groups
    assert (crash.failure_class, crash.attempts, crash.steps, crash.open) == ("agent_error", 1, 1, 1)
    assert crash.message == "RuntimeError: the agent broke"
    assert crash.agents == ["ScriptedAgent"]
    assert json.loads((store.ctx.layout.root / crash.attempt / "state.json").read_text())["status"] == "failed"


def test_what_is_printed_is_valid_against_its_schema(store):
    layout = store.ctx.layout
    for name, document in (
        ("results", results(layout, collect.choose(layout))),
        ("comparison", compare(layout, store.first, store.second)),
        ("errors", errors(layout, collect.choose(layout))),
    ):
        schema = json.loads(schemas.text(schemas.SCHEMAS[f"{name}.schema.json"]))
        assert report.problems(json.loads(document.model_dump_json()), schema) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timed out after 12.5 seconds", "timed out after 3 seconds"),
        ("at 2026-01-02T03:04:05.678Z: refused", "at 2025-11-12T13:14:15Z: refused"),
        ("no file /tmp/a1/b/x.txt", "no file /var/lib/x.txt"),
        ("request 4f3a9c01-1111-2222-3333-444455556666 failed", "request 00000000-1111-2222-3333-44445555666a failed"),
        ("container 9f8e7d6c5b4a exited", "container 0a1b2c3d4e5f exited"),
        ("request req_011CSHoEeqs5C35K2UUqR7Fy: 429", "request req_0123456789abcdef: 503"),
        ("none at /a/b1/reward.txt or /a/b1/tes…", "none at /c/reward.txt or /c/some-long-na…"),
        ("  \nfirst line\nsecond", "first line"),
    ],
)
def test_messages_that_say_the_same_become_the_same(one, other):
    assert normalise(one) == normalise(other)


def test_messages_that_say_something_else_stay_apart():
    said = ["rate limit", "overloaded", "no such model gpt", "KeyError: 'a'", "KeyError: 'b'"]
    assert len({normalise(text) for text in said}) == len(said)


@settings(deadline=None)
@given(st.text(max_size=400))
def test_normalising_twice_changes_nothing_more(text):
    once = normalise(text)
    assert normalise(once) == once
    assert "\n" not in once


FACTS = st.builds(
    trial_facts,
    step_id=st.just("s"),
    result=st.sampled_from(RESULTS),
    named=st.sampled_from([{"reward": r} for r in (0.0, 0.5, 1.0, 2.0)] + [{"a": 1.0, "b": 0.0}]),
    task_name=st.sampled_from(["a", "b", "c"]),
    cost_usd=st.none() | st.floats(0, 5),
    duration_sec=st.none() | st.floats(0, 5),
)


@settings(deadline=None)
@given(st.lists(FACTS, min_size=1, max_size=25), st.booleans())
def test_a_line_counts_each_trial_once(facts, as_zero):
    rows = [TrialRow("b", "", "j", each) for each in facts]
    found = line({}, rows, unscored_as_zero=as_zero)
    parts = [found.scored, found.unscored, found.infrastructure, found.canceled, found.skipped, found.missing]
    assert found.n == sum(parts) == len(facts)
    decided = found.scored - found.undecided
    assert found.counted == decided + (found.n - found.skipped - found.scored if as_zero else 0)
    if found.counted:
        assert found.pass_rate == pytest.approx(found.passes / found.counted)
        assert found.pass_rate_low <= found.pass_rate <= found.pass_rate_high
        assert found.pass_rate_planned <= found.pass_rate + 1e-12


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_ends_its_cell_of_a_table(text):
    lines = markdown_table(["a", "b"], [[text, "x"]]).splitlines()
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3


# --- the commands -------------------------------------------------------------------------------------


@pytest.fixture
def told(store, capsys):
    """What a command prints; in this process, which has the slow imports behind it."""

    def run(*arguments):
        app([*arguments, "--root", str(store.ctx.layout.root)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_every_format_says_the_same(store, told, tmp_path):
    found = scored.document(told("results", store.first, "--json"))
    rates = [group["pass_rate"] for group in found["groups"]]
    printed = told("results", store.first, "--format", "csv")
    assert [float(row["pass_rate"]) for row in csv.DictReader(io.StringIO(printed))] == rates
    file = tmp_path / "results.parquet"
    told("results", store.first, "-f", "parquet", "-o", str(file))
    assert parquet.read_table(file).column("pass_rate").to_pylist() == rates
    trials = tmp_path / "trials.parquet"
    told("results", "--trials", "-f", "parquet", "-o", str(trials))
    assert parquet.read_table(trials).num_rows == 20
    table = told("results", store.first)
    assert "2/3" in table
    assert "67 %" in table
    assert "| ScriptedAgent |" in told("results", store.first, "-f", "markdown")


def test_compare_and_errors_print(store, told):
    done = told("compare", store.first, store.second)
    assert "-1.00" in done
    assert "McNemar" in done
    assert scored.document(told("compare", store.first, store.second, "--json"))["only_b"] == []
    errors = " ".join(told("errors").split())
    assert "agent_error (guessed) 1 1 1 ScriptedAgent RuntimeError: the agent broke" in errors
    (group,) = scored.document(told("errors", store.first, "--json"))["groups"]
    _, batch_id, job_id, _, step_id, *_ = group["attempt"].split("/")
    broke = "agent_error (guessed): RuntimeError: the agent broke"
    assert broke in " ".join(told("show", f"{batch_id}/{job_id}/{step_id}").split())
    assert scored.document(told("errors", store.second, "--json"))["groups"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("results", "--by", "agnet"), "agent"),
        (("results", "-f", "xml"), "csv"),
        (("results", "-f", "parquet"), "--out"),
        (("results", "-E", "nothing"), "nothing"),
        (("results", "latest", "-E", "nightly"), "one"),
        (("results", "--trials", "--unscored-as-zero"), "--trials"),
        (("results", "-f", "csv", "-o", "/no/such/folder/x"), "/no/such/folder/x"),
        (("compare", "latest@nobody", "latest"), "nobody"),
        (("errors", "nothing"), "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(store, arguments, said):
    done = program(store.ctx.layout.root, *arguments, check=False)
    assert done.returncode == 2, done
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
