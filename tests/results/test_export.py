"""Results as files and pairs with odd things in them: any text, nothing, nothing scored, the same twice, nothing in common."""

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_facts import trial_facts
from pyarrow import parquet

from parallelhassnes.results import export, text_tables
from parallelhassnes.results.aggregate import dimension, grouped
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.results.compare import Comparison, by_agent, paired
from parallelhassnes.results.rows import TrialLine

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def row(task: str, reward: float | None, agent: str = "a", result: str = "scored", **more: object) -> TrialRow:
    facts = trial_facts("s", result, reward=reward, task_name=task, agent=agent, **more)
    return TrialRow("b", "e", "j", facts)


def groups(*rows: TrialRow) -> list:
    return grouped(rows, {"agent": dimension("agent"), "label:x|y": dimension("label:x|y")})


def trial(text: str) -> TrialLine:
    return TrialLine(
        experiment=text,
        batch="b",
        job="j",
        step="s",
        task=text,
        task_checksum=None,
        task_source=None,
        agent=text,
        agent_version=None,
        model=text,
        labels={text: text},
        result="scored",
        reward=1.0,
        rewards={text: 1.0},
        passed=True,
        undecided=None,
        failure_class=None,
        exception=None,
        cost_usd=None,
        cost_spent_usd=None,
        cost_incomplete=False,
        warnings=[],
        input_tokens=1,
        cache_tokens=None,
        output_tokens=None,
        seconds=0.5,
        superseded=0,
        attempt=None,
    )


@settings(deadline=None)
@given(TEXT)
def test_any_text_comes_back_from_csv(text):
    table = export.of_trials([trial(text), trial("plain")])
    # As Python and as what is strict about carriage returns (RFC 4180) reads it.
    found = list(csv.DictReader(io.StringIO(export.csv_text(table), newline="")))
    assert [one["task"] for one in found] == [text, "plain"]
    assert json.loads(found[0]["labels"]) == {text: text}
    assert (found[0]["reward"], found[0]["passed"], found[0]["cost_usd"]) == ("1.0", "True", "")


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", 'a"b', "a,b", "a\nb", "\U0001f600é中", ""])
def test_any_text_comes_back_from_parquet(text, tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(export.parquet_bytes(export.of_trials([trial(text)])))
    (found,) = parquet.read_table(path).to_pylist()
    assert (found["task"], json.loads(found["labels"]), found["cost_usd"]) == (text, {text: text}, None)


def test_the_columns_are_the_same_whatever_is_in_them(tmp_path):
    """So that files of several batches go together: without any record, too."""
    by = ["agent", "label:x|y"]
    full = export.of_groups(by, groups(row("t", 1.0, cost_usd=2.0, duration_sec=1.0)))
    unscored = export.of_groups(by, groups(row("t", None, result="unscored")))
    schemas = []
    for number, table in enumerate((full, unscored, export.of_groups(by, []))):
        head = export.csv_text(table).splitlines()[0].split(",")
        assert head == list(table.columns)
        assert all(list(record) == head for record in table.records)
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(export.parquet_bytes(table))
        schemas.append(parquet.read_schema(path))
    assert schemas[0].equals(schemas[1])
    assert schemas[0].equals(schemas[2])
    kinds = {name: str(schemas[0].field(name).type) for name in ("agent", "n", "pass_rate", "cost_usd", "failures")}
    assert kinds == {"agent": "string", "n": "int64", "pass_rate": "double", "cost_usd": "double", "failures": "string"}
    assert export.csv_text(export.of_trials([])).startswith("experiment,batch,job,")


def compared(left: list[TrialRow], right: list[TrialRow]) -> tuple:
    """The pair, and what is printed of it."""
    (one,), (other,) = by_agent(left).values(), by_agent(right).values()
    pair = paired(one, other)
    whole = Comparison(at="", a="A", b="B", agents=[pair], only_a=[], only_b=[])
    json.loads(whole.model_dump_json(), parse_constant=pytest.fail)
    text = "\n".join(text_tables.markdown(sheet) for sheet in text_tables.of_comparison(whole))
    assert not re.search(r"\b(nan|inf|None)\b", text)
    return pair, text


def test_the_same_twice_differs_by_nothing():
    rows = [row(task, reward, duration_sec=1.0) for task, reward in (("x", 1.0), ("y", 0.3), ("z", 0.0))]
    pair, text = compared(rows, rows)
    assert (pair.reward.difference, pair.reward.low, pair.reward.high) == (0.0, 0.0, 0.0)
    assert (pair.p_value, pair.won, pair.lost) == (1.0, [], [])
    assert "1 task passed on both sides, 2 on none" in text


def test_one_task_has_a_difference_and_no_interval():
    pair, text = compared([row("x", 0.0)], [row("x", 1.0)])
    assert (pair.reward.difference, pair.reward.low, pair.won, pair.p_value) == (1.0, None, ["x"], 1.0)
    assert "+1.00" in text


def test_nothing_in_common_and_nothing_scored():
    pair, text = compared([row("x", 1.0)], [row("y", 1.0)])
    assert (pair.gone, pair.new, pair.reward.tasks, pair.reward.difference) == (["x"], ["y"], 0, None)
    assert "no task has a score on both sides" in text
    assert "McNemar" not in text
    pair, text = compared([row("x", None, result="missing")], [row("x", None, result="unscored")])
    assert (pair.unpaired, pair.reward.tasks) == (["x"], 0)
    assert "without a score on at least one side: x" in text


def test_rewards_beyond_all_bounds_make_no_number_that_is_none():
    (found,) = groups(row("x", 1e299), row("x", -1e299), row("y", 2.0))
    assert (found.mean_reward_low, found.mean_reward_high) == (None, None)
    assert all(math.isfinite(value) for value in found.model_dump().values() if isinstance(value, float))


def test_pipes_and_lines_in_names_stay_in_their_cells():
    (found,) = groups(row("t", 1.0, agent="a|b\n| c <b> `x`\u2028y\r\nz"))
    shown = export.markdown_table(["agent"], [[found.key["agent"]]])
    assert shown.splitlines()[2] == "| a\\|b \\| c \\<b\\> \\`x\\` y z |"
