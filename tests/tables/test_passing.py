"""Who says what a pass is: step before sweep before table before task, and the command line before all of them."""

import pytest

from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.tables.expand import expand_document
from parallelhassnes.tables.expanders import passing
from parallelhassnes.tables.formats.request import RunRequest, merged

TOML = '[metadata.parallelhassnes.pass]\nreward = "of_task"\nat_least = 1\n'


@pytest.fixture
def task(tmp_path):
    from harness import make_task

    return make_task(tmp_path, toml=TOML)


def plan(document, folder):
    return expand_document(document, name="t.json", base_dirs=[folder])


def rules(made):
    found = {
        step.step_id: step.spec.get("pass_rule") for job in made.jobs for step in job.steps if step.kind == "trial"
    }
    return {name: rule and (rule["reward"], rule["at_least"], rule["source"]) for name, rule in found.items()}


def sweep(task, **more):
    return {"path": str(task), "agents": [{"name": "oracle"}], "environment": "sandbox", **more}


@pytest.mark.parametrize(
    ("table", "own", "expected"),
    [
        ({}, {}, ("of_task", 1.0, "task")),
        ({"pass": {"reward": "a"}}, {}, ("a", 1.0, "table")),
        ({"pass": {"reward": "a"}}, {"pass": {"at_least": 0.5}}, (None, 0.5, "sweep")),
    ],
)
def test_of_a_sweep(task, table, own, expected):
    made = plan({"spec_version": "2.0", **table, "sweep": sweep(task, **own)}, task.parent)
    assert rules(made) == {"oracle.1": expected}


def test_of_a_step(task):
    step = {"task": {"path": str(task)}, "agent": "oracle", "environment": "sandbox"}
    steps = [{**step, "step_id": "a", "pass": {"reward": "x", "at_least": 2.5}}, {**step, "step_id": "b"}]
    document = {"spec_version": "2.0", "pass": {"reward": "t"}, "jobs": [{"steps": steps}]}
    assert rules(plan(document, task.parent)) == {"a": ("x", 2.5, "step"), "b": ("t", 1.0, "table")}
    again = merged(document, RunRequest(passing="y>=0.25"), "t.json")
    assert set(rules(plan(again, task.parent)).values()) == {("y", 0.25, "table")}


def test_of_other_formats(task):
    oddish = {
        "path": str(task),
        "agents": [{"name": "oracle", "n_trials": 1}],
        "environment": "sandbox",
        "pass": {"reward": "o"},
    }
    assert rules(plan(oddish, task.parent)) == {"oracle.1": ("o", 1.0, "sweep")}
    harbor = {"tasks": [{"path": str(task)}], "agents": [{"name": "oracle"}], "pass": {"reward": "h"}}
    assert rules(plan(harbor, task.parent)) == {"oracle.1": ("h", 1.0, "table")}
    for document in (oddish, harbor):
        again = merged(document, RunRequest(passing=">=0.5"), "t.json")
        assert [rule[:2] for rule in rules(plan(again, task.parent)).values()] == [(None, 0.5)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("accuracy>=0.5", {"reward": "accuracy", "at_least": 0.5}),
        (" accuracy >= 0.5 ", {"reward": "accuracy", "at_least": 0.5}),
        ("accuracy", {"reward": "accuracy"}),
        (">=-2", {"at_least": -2.0}),
    ],
)
def test_on_the_command_line(text, part):
    assert passing.of_option(text) == part


@pytest.mark.parametrize("text", ["", ">=", "a>=b", ">=nan", "a>1", "a=1", "a>=1>=2"])
def test_a_rule_on_the_command_line_that_is_none(text):
    with pytest.raises(UserError, match="is no rule"):
        passing.of_option(text)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, "says nothing"),
        ({"reward": 3}, "string"),
        ({"at_least": "x"}, "number"),
        ({"at_lest": 1.0}, "at_least"),
        ({"at_least": float("nan")}, "finite"),
    ],
)
def test_a_rule_that_is_none_is_refused(task, part, said):
    for document in (
        {"spec_version": "2.0", "pass": part, "sweep": sweep(task)},
        {"spec_version": "2.0", "sweep": sweep(task, **{"pass": part})},
    ):
        with pytest.raises(InvalidInput, match=said):
            plan(document, task.parent)


@pytest.mark.parametrize("text", ["pass = 3", "pass = {}", "pass = {reward = 3}", "pass = {other = 1}"])
def test_a_task_with_a_rule_that_is_none_is_refused(tmp_path, text):
    from harness import make_task

    made = make_task(tmp_path, toml=f"[metadata.parallelhassnes]\n{text}\n")
    with pytest.raises(InvalidInput, match=r"task\.toml line \d+: .*is no rule"):
        plan({"spec_version": "2.0", "sweep": sweep(made)}, tmp_path)


def test_a_rule_means_nothing_to_a_command(tmp_path):
    step = {"command": ["true"], "pass": {"reward": "a"}}
    with pytest.raises(InvalidInput, match=r"/jobs/0/steps/0/pass.*means nothing to a step of kind command"):
        plan({"jobs": [{"steps": [step]}]}, tmp_path)
