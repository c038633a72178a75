"""Tables as users of the earlier ParallelHassnes have them: expanded unchanged, and run by a program as the agent."""

import json
import shutil

import pytest
from stores import CHECKOUT, context, program, states

from parallelhassnes.actions.submit import submit
from parallelhassnes.errors import InvalidInput
from parallelhassnes.plan import AgentPlan
from parallelhassnes.tables.expand import expand
from parallelhassnes.tables.formats.earlier_tables import KEYS

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
        "high",
    )
    assert (policy.add_dirs, policy.skip_git_repo_check) == ((str(EARLIER / "inputs"),), True)
    assert policy.user_config
    assert (plan.model, plan.prompt_ref) == ("gpt-5.2", str(EARLIER / "inputs" / "first.md"))
    assert plan.append_prompt == "Braces like {{ this }} and ${{ secrets.X }} are text."
    assert (plan.output_schema, plan.working_directory, plan.labels) == (None, str(EARLIER), {"area": "docs"})
    assert plan.report_version == 1
    assert [(each.name, each.glob, each.of_attempt) for each in plan.artifacts_expected] == [
        ("codex.events.jsonl", "codex.events.jsonl", True),
        ("NOTES.md", "NOTES.md", False),
    ]
    assert (one.timeout_sec, two.timeout_sec) == (600, 1800)
    assert (one.retry.max_attempts, one.retry.backoff_sec, one.retry.on_statuses) == (2, 5, ("failed",))
    assert (two.retry.max_attempts, two.retry.backoff_sec) == (1, 0)
    assert two.retry.on_statuses == ("failed", "needs_attention")
    assert plan.retries_resume
    assert not AgentPlan.model_validate(two.spec).retries_resume  # its conversation is another's
    assert (two.depends_on, three.depends_on) == (("job_full/step1",), ("job_full/step1",))
    selectors = [AgentPlan.model_validate(step.spec).resume_from.selector for step in (two, three)]
    assert selectors == ["latest_successful", "latest"]
    assert made.jobs[1].job_id == "job2"
    told = "\n".join(made.warnings)
    for name in ("capture_codex_thread_id", "retention_policy", "scoreboard", "copy_exclude_names"):
        assert name in told, name
    assert "not read" not in told


def of(document):
    return expand(json.dumps({"working_root": ".", **document}).encode(), name="t.json", base_dirs=[EARLIER])


def test_defaults_are_the_earlier_ones():
    made = of({"jobs": [{"working_directory": ".", "steps": [{"prompt": "Hello."}]}]})
    [step] = made.jobs[0].steps
    policy = AgentPlan.model_validate(step.spec).execution_policy
    assert (made.concurrency, step.retry.max_attempts, step.retry.open, step.timeout_sec) == (1, 1, ("classes",), 3600)
    assert (policy.sandbox, policy.approval_policy, policy.skip_git_repo_check) == (
        "workspace-write",
        "on-request",
        False,
    )


def test_defaults_lie_over_each_other():
    made = of(
        {
            "effective_defaults": {"timeouts": {"step_timeout_seconds": 7}, "retries": {"max_attempts": 4}},
            "retries": {"max_attempts": 5, "backoff_seconds": 3},
            "defaults_overrides": {"retries": {"max_attempts": 6}},
            "jobs": [
                {"steps": [{"prompt": "a"}, {"prompt": "b", "timeout_seconds": 0, "retry_policy": {"mode": None}}]}
            ],
        }
    )
    one, two = made.jobs[0].steps
    assert (one.timeout_sec, one.retry.max_attempts, one.retry.backoff_sec) == (7, 6, 3)
    assert (two.timeout_sec, two.retry.max_attempts, two.retry.backoff_sec) == (31_536_000, 1, 0)


STEP = {"prompt": "x"}
REFUSED = {
    "a key that nobody knows": ({"jobs": [{"steps": [{**STEP, "job_timeout": 3}]}]}, "/jobs/0/steps/0/job_timeout"),
    "one of a policy": ({"execution_policy": {"sandbx": "x"}}, "/execution_policy/sandbx"),
    "one of the overrides": ({"defaults_overrides": {"runner_pool": {}}}, "/defaults_overrides/runner_pool"),
    "one of a pack": ({"packs": {"p": {"txt": "x"}}, "default_pack_id": "p"}, "/packs/p/txt"),
    "a text beside a prompt": ({"packs": {"p": {"text": "x", "prompt": "y"}}}, "/packs/p/text"),
    "a text that is none": ({"packs": {"p": {"text": 3}}}, "/packs/p/text"),
    "a status that never was": ({"retries": {"retry_on_statuses": ["timeout"]}}, "/retries/retry_on_statuses"),
    "statuses that are no list": ({"retries": {"retry_on_statuses": "failed"}}, "/retries/retry_on_statuses"),
    "a mode that never was": ({"retries": {"mode": "resume"}}, "/retries/mode"),
    "a hook of its tests": ({"jobs": [{"steps": [{**STEP, "fake_exit_code": 1}]}]}, "/jobs/0/steps/0/fake_exit_code"),
    "a section that is none": ({"timeouts": 5}, "/timeouts"),
    "a limit that is none": ({"timeouts": {"step_timeout_seconds": "1h"}}, "/timeouts/step_timeout_seconds"),
    "a backoff that is none": ({"retries": {"backoff_seconds": "1h"}}, "/retries/backoff_seconds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_never_knew_is_an_error(name):
    document, at = REFUSED[name]
    with pytest.raises(InvalidInput) as refused:
        of({"jobs": [{"steps": [STEP]}], **document})
    assert at in {problem.pointer for problem in refused.value.problems}


def test_what_may_do_harm_is_said(monkeypatch, tmp_path):
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    for key in ("CODEX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    job = {"working_directory": ".", "steps": [STEP]}
    made = of({"concurrency": 2, "execution_policy": {"sandbox": ""}, "jobs": [job, {**job, "job_id": "b"}]})
    told = "\n".join(made.warnings)
    for words in ("config.toml is in force", "at the same time, as they did", "took every bound from the agent"):
        assert words in told, words
    assert AgentPlan.model_validate(made.jobs[0].steps[0].spec).execution_policy.sandbox == "workspace-write"


def test_packs_lie_between_the_table_and_the_job():
    one, two, three = (AgentPlan.model_validate(job.steps[0].spec) for job in expanded("packs.yaml").jobs)
    assert (one.execution_policy.model_reasoning_effort, one.workspace_policy.mode) == ("high", "isolated")
    assert one.append_prompt == "Change nothing that you were not asked to change."
    assert (two.pack_prompt_ref, two.model) == (str(EARLIER / "inputs" / "first.md"), "gpt-5.2-mini")
    assert (three.pack_prompt, three.prompt) == ("You are terse.", "Then stop.")


def test_the_documentation_has_every_key():
    said = (CHECKOUT / "docs" / "launch-tables.md").read_text()
    for place, keys in KEYS.items():
        for name, key in keys.items():
            line = next((line for line in said.splitlines() if line.startswith(f"| {place} | `{name}` |")), "")
            assert key.why in line, f"{place}: {name}"


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
