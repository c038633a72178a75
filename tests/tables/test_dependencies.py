"""Templates, fan-in and loops, as far as a table alone shows what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.plan import Loop
from parallelhassnes.tables.expanders import templates

from .conftest import Expand, Reject


def job(job_id: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"job_id": job_id, "steps": list(steps), **more}


def ask(prompt: str = "Do it.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, **more}


def test_what_a_prompt_speaks_of_is_waited_for(plan: Expand) -> None:
    made = plan(
        {
            "jobs": [
                job("a", ask(step_id="s-1"), ask("{{ steps['s-1'].report.summary }}", step_id="s2")),
                job("b", ask("{{ jobs.a.steps.s2.text }} {{ job.labels.x }}"), labels={"x": "1"}),
            ]
        }
    )
    assert made.jobs[0].step("s2").depends_on == ("a/s-1",)
    assert made.jobs[1].step("step1").depends_on == ("a/s2",)
    assert made.jobs[0].dependents == {"s-1": ("a/s2",), "s2": ("b/step1",)}


def test_a_prompt_file_is_looked_into(plan: Expand, reject: Reject, root: Path) -> None:
    (root / "p.md").write_text("{{ steps.one.text }}")
    one, two = ask(step_id="one"), {"prompt_ref": "p.md"}
    assert plan({"spec_version": "2.0", "jobs": [job("a", one, two)]}).jobs[0].steps[1].depends_on == ("a/one",)
    (root / "p.md").write_text("{{ steps.on.text }}")
    (problem,) = reject({"spec_version": "2.0", "jobs": [job("a", one, two)]})
    assert (problem.pointer, problem.fix) == ("/jobs/0/steps/1/prompt_ref", "did you mean 'one'?")


def test_what_may_be_missing_is_let_through(plan: Expand) -> None:
    text = "{% if job.labels.x is defined %}{{ job.labels.x }}{% endif %}{{ batch.labels.y | default('z') }}"
    assert plan({"jobs": [job("a", ask(text))]}).jobs


@pytest.mark.parametrize("text", ["${{ secrets.X }} {% this %}", "{# a heading {#anchor}", "{{ unknown }}"])
def test_braces_of_earlier_tables_and_of_those_that_say_so_are_text(plan: Expand, text: str) -> None:
    earlier = plan({"batch_goal_summary": "x", "jobs": [job("a", ask(text))]}).jobs[0].steps[0]
    own = plan({"jobs": [job("a", ask(text, templates=False))]}).jobs[0].steps[0]
    assert "templates" not in earlier.spec
    assert "templates" not in own.spec


def test_a_comment_is_text() -> None:
    assert templates.render("{# kept #} {#anchor}\n", {}) == "{# kept #} {#anchor}\n"


def test_a_key_comes_before_a_method_of_its_name() -> None:
    assert templates.render("{{ job.labels.items }}", {"job": {"labels": {"items": "7"}}}) == "7"


def test_a_fan_in_is_the_steps_of_the_jobs_that_fit(plan: Expand) -> None:
    docs = [job(f"d{n}", ask(step_id="read"), ask(step_id="write"), labels={"area": f"docs-{n}"}) for n in (1, 2)]
    made = plan(
        {
            "jobs": [
                *docs,
                job("code", ask(step_id="read"), labels={"area": "code"}),
                job("all", ask("{{ reports | length }}", fan_in={"labels": {}}), labels={"area": "docs-0"}),
                job("some", ask(fan_in={"labels": {"area": "docs-*"}, "step_id": "read"}, after="end")),
            ]
        }
    )
    every, some = made.jobs[3].steps[0], made.jobs[4].steps[0]
    assert every.spec["reports_of"] == ["d1/write", "d2/write", "code/read", "some/step1"]
    assert every.depends_on == tuple(every.spec["reports_of"])
    assert some.spec["reports_of"] == ["d1/read", "d2/read"]
    assert (every.after, some.after) == ("success", "end")


def test_a_loop_stands_at_both_of_its_steps(plan: Expand) -> None:
    loop = {"step_id": "solve", "max_rounds": 3, "until": "report.verdict == 'accept'"}
    made = plan(
        {
            "jobs": [
                job(
                    "a",
                    ask("{% if round > 1 %}{{ steps.judge.report.summary }}{% endif %}", step_id="solve"),
                    ask("Judge {{ steps.solve.text }}", step_id="judge", loop=loop),
                    ask(step_id="publish", depends_on=["solve"]),
                )
            ]
        }
    )
    steps = made.jobs[0]
    wanted = Loop(solver="solve", critic="judge", max_rounds=3, until=loop["until"])
    assert steps.step("solve").loop == steps.step("judge").loop == wanted
    assert (steps.step("solve").depends_on, steps.step("judge").depends_on) == ((), ("a/solve",))
    assert set(steps.step("publish").depends_on) == {"a/solve", "a/judge"}


PROMPT = "/jobs/0/steps/0/prompt"
LOOP = "/jobs/0/steps/1/loop"


def looping(**more: Any) -> dict[str, Any]:
    loop = {"step_id": "s", "max_rounds": 2, "until": "report.ok", **more}
    return {"jobs": [job("a", ask(step_id="s"), ask(step_id="c", loop=loop))]}


BAD: dict[str, tuple[Any, str, str]] = {
    "no template": ({"jobs": [job("a", ask("{{ job.labels"))]}, PROMPT, "line 1 is no template"),
    "unknown name": ({"jobs": [job("a", ask("{{ labels.x }}"))]}, PROMPT, "unknown name in a template: 'labels'"),
    "unknown label": ({"jobs": [job("a", ask("{{ job.labels.areq }}"), labels={"area": "x"})]}, PROMPT, "areq"),
    "unknown label of the batch": ({"jobs": [job("a", ask("{{ batch.labels.x }}"))]}, PROMPT, "batch.labels.x"),
    "unknown field of the batch": ({"jobs": [job("a", ask("{{ batch.gaol }}"))]}, PROMPT, "batch.gaol"),
    "unknown field of the job": ({"jobs": [job("a", ask("{{ job.name }}"))]}, PROMPT, "job.name"),
    "unknown field of the step": ({"jobs": [job("a", ask("{{ step.name }}"))]}, PROMPT, "step.name"),
    "unknown step": ({"jobs": [job("a", ask("{{ steps.x.text }}"))]}, PROMPT, "steps.x"),
    "unknown field of a step": (
        {"jobs": [job("a", ask("{{ steps.s.summary }}"), ask(step_id="s"))]},
        PROMPT,
        "steps.s.summary",
    ),
    "unknown job": ({"jobs": [job("a", ask("{{ jobs.b.steps.s.text }}"))]}, PROMPT, "jobs.b"),
    "unknown field of a job": ({"jobs": [job("a", ask("{{ jobs.b.text }}")), job("b", ask())]}, PROMPT, "jobs.…"),
    "unknown step of a job": (
        {"jobs": [job("a", ask("{{ jobs.b.steps.x.text }}")), job("b", ask())]},
        PROMPT,
        "jobs.b.steps.x",
    ),
    "a prompt that speaks of itself": (
        {"jobs": [job("a", ask("{{ steps.s.text }}", step_id="s"))]},
        "/jobs/0/steps/0/depends_on/0",
        "waits for itself",
    ),
    "prompts that speak of each other": (
        {"jobs": [job("a", ask("{{ steps.t.text }}", step_id="s"), ask("{{ steps.s.text }}", step_id="t"))]},
        "/jobs/0/steps/0/depends_on",
        "in a circle",
    ),
    "reports without a fan-in": ({"jobs": [job("a", ask("{{ reports }}"))]}, PROMPT, "has no fan_in"),
    "a fan-in of nothing": (
        {"jobs": [job("a", ask(fan_in={"labels": {"x": "y"}})), job("b", ask(), labels={"x": "z"})]},
        "/jobs/0/steps/0/fan_in/labels",
        "fits no other job",
    ),
    "a fan-in of no label": (
        {"jobs": [job("a", ask(fan_in={"labels": {"aera": "y"}})), job("b", ask(), labels={"area": "y"})]},
        "/jobs/0/steps/0/fan_in/labels/aera",
        "unknown label",
    ),
    "a fan-in of itself": (
        {"jobs": [job("a", ask(fan_in={"labels": {}}), labels={"x": "y"})]},
        "/jobs/0/steps/0/fan_in/labels",
        "fits no",
    ),
    "fan-ins of each other": (
        {"jobs": [job("a", ask(fan_in={"labels": {}})), job("b", ask(fan_in={"labels": {}}))]},
        "/jobs/0/steps/0/depends_on",
        "in a circle",
    ),
    "a fan-in of an unknown step": (
        {"jobs": [job("a", ask(fan_in={"labels": {}, "step_id": "raed"})), job("b", ask(step_id="read"))]},
        "/jobs/0/steps/0/fan_in/step_id",
        "unknown step",
    ),
    "a fan-in without labels": (
        {"jobs": [job("a", ask(fan_in={})), job("b", ask())]},
        "/jobs/0/steps/0/fan_in/labels",
        "is missing",
    ),
    "a fan-in key": (
        {"jobs": [job("a", ask(fan_in={"labels": {}, "step": "x"})), job("b", ask())]},
        "/jobs/0/steps/0/fan_in/step",
        "unknown key",
    ),
    "a loop onto itself": (looping(step_id="c"), LOOP + "/step_id", "is the step itself"),
    "a loop of an unknown step": (looping(step_id="sovle"), LOOP + "/step_id", "unknown step"),
    "a loop of no rounds": (looping(max_rounds=0), LOOP + "/max_rounds", "greater than or equal to 1"),
    "a loop that never ends": (looping(max_rounds=None), LOOP + "/max_rounds", "integer"),
    "a loop until nothing": (looping(until="report.ok =="), LOOP + "/until", "is no expression"),
    "a loop until": (looping(untill="x"), LOOP + "/untill", "unknown key"),
    "two loops of one step": (
        {
            "jobs": [
                job(
                    "a",
                    ask(step_id="s"),
                    *(ask(step_id=c, loop={"step_id": "s", "max_rounds": 2, "until": "true"}) for c in "cd"),
                )
            ]
        },
        "/jobs/0/steps/2/loop/step_id",
        "is in another loop",
    ),
    "a gate for nobody": ({"jobs": [job("a", ask(gate="robot"))]}, "/jobs/0/steps/0/gate", "'human'"),
    "after": ({"jobs": [job("a", ask(after="ever"))]}, "/jobs/0/steps/0/after", "'success' or 'end'"),
}


@pytest.mark.parametrize("case", BAD)
def test_tables_that_are_wrong(case: str, reject: Reject) -> None:
    document, at, message = BAD[case]
    problems = reject({"spec_version": "2.0", **document})
    hits = [problem for problem in problems if problem.pointer == at]
    assert hits, [problem.line() for problem in problems]
    assert any(message in hit.message for hit in hits), [hit.line() for hit in hits]
    assert len(problems) <= 2, [problem.line() for problem in problems]
