"""``append``: more trials in the jobs that a batch has; only these run, and only these are analysed."""

import json

import pytest
from harness import make_task
from stores import SUPPORT, attempt_dirs, context, idle, program, put, read, states, step_of, wait_for

from parallelhassnes.actions.append import append
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import UserError
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.results import analysis_list
from parallelhassnes.schedule.additions.similar_steps import trials
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick


@pytest.fixture
def ended(root, monkeypatch):
    """A batch of one task with oracle and nop and their analyses, behind a gate, ended."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    ctx = context(root)
    sweep = {
        "path": str(make_task(root)),
        "agents": [{"name": "oracle", "n_trials": 2}, {"name": "nop"}],
        "environment": "temp_environment:TempEnvironment",
    }
    batch = put(ctx, json.dumps({"spec_version": "2.0", "analysis": "rules", "sweep": sweep}).encode())
    settle(ctx)
    return ctx, batch


def settle(ctx):
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")


def test_a_new_trial_shares_no_folder_with_a_step_whose_name_differs_by_case():
    steps = (
        StepSpec(step_id="oracle.1", kind="trial", queue_key="k", label="oracle"),
        StepSpec(step_id="Oracle.2", kind="command", queue_key="k"),
    )
    job = JobSpec(batch_id="b", job_id="j", first_seq=0, steps=steps)
    assert [step.step_id for step in trials(job, 1, None)] == ["oracle.2-2"]


def test_only_the_new_trials_run_and_only_they_are_analysed(ended):
    ctx, batch = ended
    before = {path.name for path in attempt_dirs(ctx, batch)}
    done = append(ctx, batch, 2)
    assert done.trials == ["hello/oracle.3", "hello/oracle.4", "hello/nop.2", "hello/nop.3"]
    assert done.analyses == [f"{trial}.rules" for trial in done.trials]
    settle(ctx)
    new = [step_of(path) for path in attempt_dirs(ctx, batch) if path.name not in before]
    assert sorted({*new} - {"hello/verdict"}) == sorted(done.trials + done.analyses)
    assert all(found == ["succeeded"] for step, found in states(ctx, batch).items() if step != "hello/verdict")
    verdict = read(ctx.layout.job(batch, "hello") / "verdict.json")
    assert verdict["counts"]["n"] == 7
    assert verdict["counts"]["passes"] == 4
    said = analysis_list.analyses(ctx.layout, batch)
    assert said.outcomes == {"rules": {"good_success": 4, "good_failure": 3}}
    found = verify.verify(ctx.layout)
    assert found.ok, found.problems
    current = read(ctx.layout.job(batch, "hello") / "current.json")
    rebuild(ctx)
    assert read(ctx.layout.job(batch, "hello") / "current.json") == current
    assert idle(ctx)


def test_twice_and_of_one_agent(ended, root):
    ctx, batch = ended
    assert append(ctx, f"{batch}/hello", 1, ["nop"]).trials == ["hello/nop.2"]
    settle(ctx)
    told = json.loads(program(root, "append", batch, "-k", "1", "--agent", "nop", "--json").stdout)
    assert told["trials"] == ["hello/nop.3"]
    wait_for(lambda: idle(ctx), "the trial to end")
    assert [each for each in states(ctx, batch) if each.startswith("hello/nop.") and "rules" not in each] == [
        "hello/nop.1",
        "hello/nop.2",
        "hello/nop.3",
    ]


def test_wrong_inputs(ended):
    ctx, batch = ended
    with pytest.raises(UserError, match="there is no agent 'orakel'; did you mean oracle"):
        append(ctx, batch, 1, ["orakel"])
    with pytest.raises(UserError, match="is a step"):
        append(ctx, f"{batch}/hello/nop.1", 1)
