"""What tasks take from this host's environment is named by the user, or the table is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.tables.expand import TableDefaults

from .conftest import Expand, Reject, make_task, table, trial

TOML = """
[environment.env]
MIRROR = "${MIRROR}"
DEFAULTED = "${OTHER:-x}"
HOME_OF_THIS_HOST = "${HOME}"
[verifier.env]
JUDGE = "${JUDGE_KEY}"
[solution.env]
HINT = "${HINT}"
"""
NAMED = ["MIRROR", "JUDGE_KEY"]


@pytest.fixture(autouse=True)
def judged(root: Path) -> Path:
    return make_task(root / "tasks" / "judged", TOML)


def judged_by(agent: str, **changes: Any) -> dict[str, Any]:
    return table(trial(task={"path": "tasks/judged"}, agent=agent, **changes))


def sweep(agent: str) -> dict[str, Any]:
    return {"agents": [{"name": agent}], "path": "tasks"}


def harbor_job(agent: str) -> dict[str, Any]:
    return {"agents": [{"name": agent}], "datasets": [{"path": "tasks"}], "n_attempts": 1}


@pytest.mark.parametrize("shape", [judged_by, sweep, harbor_job])
def test_a_variable_that_nobody_passes_on_is_refused(shape: Callable[[str], dict[str, Any]], reject: Reject) -> None:
    lines = [problem.line() for problem in reject(shape("oracle"))]
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "[environment.env] takes MIRROR from the environment",
        "[verifier.env] takes JUDGE_KEY from the environment",
        "[solution.env] takes HINT from the environment",
    ]
    assert all("judged/task.toml" in line and "--secret" in line for line in lines)


def test_only_the_oracle_needs_what_the_solution_takes(plan: Expand) -> None:
    assert plan(judged_by("nop") | {"secrets": NAMED}).secrets == tuple(NAMED)


def test_what_is_not_verified_needs_no_judge(plan: Expand) -> None:
    made = plan(judged_by("nop", verifier={"disable": True}) | {"secrets": ["MIRROR"]})
    assert made.secrets == ("MIRROR",)


@pytest.mark.parametrize("shape", [judged_by, sweep, harbor_job])
def test_what_the_configuration_passes_on_is_waited_for(shape: Callable[[str], dict[str, Any]], plan: Expand) -> None:
    made = plan(shape("nop"), defaults=TableDefaults(secrets=("JUDGE_KEY", "MIRROR", "UNUSED")))
    assert made.secrets == ("MIRROR", "JUDGE_KEY")


def test_what_the_step_gives_is_not_taken_from_outside(plan: Expand) -> None:
    given = judged_by("nop", verifier={"env": {"JUDGE": "none"}}, env={"MIRROR": "local"})
    assert plan(given).secrets == ()


def test_each_step_of_a_task_has_its_verifier(root: Path, reject: Reject) -> None:
    task = make_task(root / "tasks" / "steps", '[[steps]]\nname = "one"\n[steps.verifier.env]\nA = "${STEP_KEY}"\n')
    (task / "steps" / "one").mkdir(parents=True)
    (task / "steps" / "one" / "instruction.md").write_text("Do it.\n")
    (found,) = reject(table(trial(task={"path": "tasks/steps"}, agent="nop")))
    assert "[verifier.env] takes STEP_KEY" in found.line()
