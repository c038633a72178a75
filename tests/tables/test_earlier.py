"""Tables as users of the earlier ParallelHassnes have them: expanded unchanged, and run by a program as the agent."""

import shutil

import pytest
from stores import CHECKOUT, context, program, states

from parallelhassnes.actions.submit import submit
from parallelhassnes.plan import AgentPlan
from parallelhassnes.tables.expand import expand

EARLIER = CHECKOUT / "tests" / "data" / "earlier"
TABLES = [*sorted(path.name for path in EARLIER.iterdir() if path.is_file())]


def expanded(name, folder=EARLIER):
    data = (EARLIER / name).read_bytes()
    return expand(data, name=name, base_dirs=[folder])


@pytest.mark.parametrize("name", TABLES)
def test_it_is_taken_as_it_is(name):
    made = expanded(name)
    assert made.table_format == "parallelhassnes-1"
    for job in made.jobs:
        for step in job.steps:
            assert step.kind == "agent"
            assert not AgentPlan.model_validate(step.spec).templates


def test_every_field_has_its_meaning():
    made = expanded("full.json")
    one, two, three = made.jobs[0].steps
    plan = AgentPlan.model_validate(one.spec)
    policy = plan.execution_policy
    assert (policy.sandbox, policy.approval_policy, policy.model_reasoning_effort) == (
        "workspace-write",
        "never",
        "medium",
    )
    assert (policy.add_dirs, policy.skip_git_repo_check) == ((str(EARLIER / "inputs"),), True)
    assert (plan.model, plan.prompt_ref) == ("gpt-5.2", str(EARLIER / "inputs" / "first.md"))
    assert plan.append_prompt == "Braces like {{ this }} and ${{ secrets.X }} are text."
    assert (plan.output_schema, plan.working_directory, plan.labels) == (None, str(EARLIER), {"area": "docs"})
    assert [(each.name, each.glob) for each in plan.artifacts_expected] == [("NOTES.md", "NOTES.md")]
    assert (one.timeout_sec, two.timeout_sec, one.retry.max_attempts, two.retry.max_attempts) == (600, 1800, 2, 1)
    assert (two.depends_on, three.depends_on) == (("job_full/step1",), ("job_full/step1",))
    selectors = [AgentPlan.model_validate(step.spec).resume_from.selector for step in (two, three)]
    assert selectors == ["latest_successful", "latest"]
    assert made.jobs[1].job_id == "job2"
    unread = "\n".join(made.warnings)
    for name in ("capture_events_jsonl", "job_timeout_seconds", "backoff_seconds", "goal", "cleanup", "kind"):
        assert name in unread, name


def test_packs_lie_between_the_table_and_the_job():
    one, two = (AgentPlan.model_validate(job.steps[0].spec) for job in expanded("packs.yaml").jobs)
    assert (one.execution_policy.model_reasoning_effort, one.workspace_policy.mode) == ("high", "isolated")
    assert one.append_prompt == "Change nothing that you were not asked to change."
    assert (two.pack_prompt_ref, two.model) == (str(EARLIER / "inputs" / "first.md"), "gpt-5.2-mini")


def test_they_run(root):
    """Byte for byte unchanged, answered by the stand-in; the real CLI runs the examples."""
    shutil.copytree(EARLIER / "inputs", root / "inputs")
    (root / "NOTES.md").write_text("x\n")
    ctx = context(root, "concurrency = 4\n")
    ids = {}
    for name in TABLES:
        if name != "packs.yaml":
            data = (EARLIER / name).read_bytes()
            ids[name] = submit(ctx, data, name=name, folders=[root]).batch_id
    program(root, "tick", "--until-idle", "--fail-on", "never", "--no-codex")
    for name, batch_id in ids.items():
        found = states(ctx, batch_id)
        assert set(map(tuple, found.values())) == {("succeeded",)}, name
    assert list(states(ctx, ids["defaults.json"])) == ["a/s", "a/t", "b/s"]
