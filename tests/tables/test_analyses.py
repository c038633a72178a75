"""Analyses and the baseline gate in tables: which steps they make, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.errors import InvalidInput
from parallelhassnes.plan import Plan, StepSpec
from parallelhassnes.tables.expand import expand

from .conftest import make_task


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    make_task(tmp_path / "tasks" / "hello")
    return tmp_path


def expanded(root: Path, **table: Any) -> Plan:
    sweep = {"path": "tasks", "agents": [{"name": "oracle"}, {"name": "nop"}, {"name": "codex"}]}
    document = {"spec_version": "2.0", "sweep": {**sweep, **table.pop("sweep", {})}, **table}
    return expand(json.dumps(document).encode(), name="t.json", base_dirs=[root])


def steps(plan: Plan) -> dict[str, StepSpec]:
    (job,) = plan.jobs
    return {step.step_id: step for step in job.steps}


def problems(root: Path, **table: Any) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        expanded(root, **table)
    return [f"{p.pointer}: {p.message}" for p in caught.value.problems]


def test_each_trial_gets_a_step_per_engine_and_the_verdict_waits_for_all(tasks: Path) -> None:
    plan = expanded(tasks, analysis=["rules", {"engine": "api", "model": "m", "limit": 2}])
    made = steps(plan)
    assert [name for name, step in made.items() if step.kind == "analysis"] == [
        "oracle.1.rules",
        "oracle.1.api",
        "nop.1.rules",
        "nop.1.api",
        "codex.1.rules",
        "codex.1.api",
    ]
    one = made["nop.1.api"]
    assert (one.after, one.depends_on, one.queue_key) == ("attempt", (f"{plan.jobs[0].job_id}/nop.1",), "analysis:api")
    assert one.spec == {"engine": "api", "model": "m", "trial": "nop.1"}
    assert plan.limits == {"analysis:api": 2}
    assert len(made["verdict"].depends_on) == 9


def test_a_sweeps_own_counts_more_and_oddish_says_run_analysis(tasks: Path) -> None:
    assert "nop.1.codex" in steps(expanded(tasks, analysis="rules", sweep={"analysis": "codex"}))
    oddish = {"path": "tasks", "agents": [{"name": "nop"}], "run_analysis": True}
    plan = expand(json.dumps(oddish).encode(), name="t.json", base_dirs=[tasks])
    assert "nop.1.rules" in steps(plan)
    assert not plan.warnings


def test_secrets_are_named_and_a_literal_is_refused(tasks: Path) -> None:
    part = {"engine": "api", "model": "m", "key_name": "SOME_KEY", "env": {"BASE": "${OTHER}"}}
    assert expanded(tasks, analysis=part).secrets == ("OTHER", "SOME_KEY")
    bad = {"engine": "codex", "env": {"OPENAI_API_KEY": "literal"}}
    assert "a secret is written into the table" in problems(tasks, analysis=bad)[0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("rulez", "/analysis: must be 'rules', 'codex', 'claude', 'api' or 'harbor'"),
        ({"engine": "codx"}, "/analysis/engine: must be 'rules', 'codex', 'claude', 'api' or 'harbor'"),
        (["rules", {"modle": "m"}], "/analysis/1/modle: unknown key 'modle'"),
        (["rules", {"engine": "api"}], "/analysis/1/model: is missing"),
        ({"limit": 0}, "/analysis/limit: must be greater than or equal to 1, not 0"),
    ],
)
def test_what_is_wrong_is_said_once_and_where(tasks: Path, asked: object, said: str) -> None:
    assert problems(tasks, analysis=asked) == [said]


def test_an_analysis_that_is_written_out_names_its_trial(tasks: Path) -> None:
    trial = {"step_id": "t", "task": {"path": "tasks/hello"}, "agent": "nop"}
    jobs = [{"job_id": "j", "steps": [trial, {"step_id": "a", "engine": "rules", "depends_on": ["t"]}]}]
    plan = expand(json.dumps({"jobs": jobs}).encode(), name="t.json", base_dirs=[tasks])
    assert steps(plan)["a"].spec == {"engine": "rules", "trial": "t"}
    for wrong in ([], ["t", "c"], ["c"]):
        extra = {"step_id": "c", "command": ["true"]}
        broken = {"step_id": "a", "engine": "rules", "depends_on": wrong}
        table = {"jobs": [{"job_id": "j", "steps": [trial, extra, broken]}]}
        with pytest.raises(InvalidInput, match="trial"):
            expand(json.dumps(table).encode(), name="t.json", base_dirs=[tasks])


def test_the_gate_adds_the_baselines_that_are_missing(tasks: Path) -> None:
    made = steps(expanded(tasks, baseline_gate=True, sweep={"agents": [{"name": "codex", "n_trials": 2}]}))
    assert list(made) == ["oracle.1", "nop.1", "codex.1", "codex.2", "verdict", "baseline"]
    assert [step.split("/")[1] for step in made["codex.2"].depends_on] == ["baseline"]
    assert [step.split("/")[1] for step in made["baseline"].depends_on] == ["oracle.1", "nop.1"]
    assert not made["oracle.1"].depends_on
    off = steps(expanded(tasks, baseline_gate=True, sweep={"baseline_gate": False}))
    assert "baseline" not in off
