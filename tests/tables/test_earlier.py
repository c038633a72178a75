"""Tables as users of the earlier ParallelHassnes have them: expanded unchanged, and run by a program as the agent."""

import json
import re
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


VALUES = {
    "table": {
        "spec_version": "1.1",
        "effective_defaults": {"timeouts": {"step_timeout_seconds": 7}},
        "batch_goal_summary": "Two reports.",
        "working_root": "inputs",
        "concurrency": 3,
        "packs": {"p": {"text": "Be terse."}},
        "default_pack_id": "q",
        "defaults_overrides": {"timeouts": {"step_timeout_seconds": 7}},
        "effective_defaults_overrides": {"retries": {"max_attempts": 4}},
        "execution_policy": {"sandbox": "read-only"},
        "timeouts": {"step_timeout_seconds": 7},
        "retries": {"max_attempts": 4},
        "workspace_policy": {"mode": "isolated"},
        "jobs": [{"steps": [{"prompt": "z"}]}],
        "retention_policy": {"keep_days": 3},
        "scoreboard": {"heartbeat_stale_after_seconds": 3},
    },
    "job": {
        "job_id": "other",
        "working_directory": "inputs",
        "pack_id": "q",
        "workspace_policy": {"mode": "isolated"},
        "steps": [{"prompt": "z"}],
    },
    "step": {
        "step_id": "other",
        "prompt": "z",
        "prompt_ref": "inputs/first.md",
        "append_prompt": "z",
        "pack_id": "q",
        "depends_on": ["first"],
        "resume_from": {"step_id": "first"},
        "retry_policy": {"max_attempts": 4},
        "timeout_seconds": 7,
        "output_schema_ref": "inputs/schema.json",
        "artifacts_expected": ["NOTES.md"],
    },
    "execution_policy": {
        "sandbox": "read-only",
        "approval_policy": "never",
        "skip_git_repo_check": True,
        "web_search_enabled": True,
        "model_reasoning_effort": "high",
        "add_dirs": ["inputs"],
        "add_dir": "inputs",
        "capture_events_jsonl": False,
        "capture_codex_thread_id": False,
    },
    "timeouts": {"step_timeout_seconds": 7},
    "retries": {
        "max_attempts": 4,
        "backoff_seconds": 9,
        "retry_on_statuses": ["needs_attention"],
        "mode": "resume_last_attempt",
    },
    "workspace_policy": {"mode": "isolated"},
    "resume_from": {
        "step_id": "zeroth",
        "selector": "latest",
        "run_id": "run-of-that-attempt",
        "codex_thread_id": "0198-thread",
    },
    "pack": {"text": "Be verbose."},
}
"""A value of each key that is not its default; of what is told or refused any does."""


def using(place, name, value):
    """A table of the earlier program that has this key in its place, and one that lacks it."""
    steps = [{"step_id": "zeroth", "prompt": "v"}, {"step_id": "first", "prompt": "w"}, {"step_id": "s", "prompt": "x"}]
    table = {
        "working_root": ".",
        "packs": {"q": {"text": "Be terse."}},
        "retries": {"max_attempts": 2},
        "jobs": [{"job_id": "j", "working_directory": ".", "steps": steps}],
    }
    job, step = table["jobs"][0], steps[-1]
    if place == "resume_from":
        step["resume_from"] = {"step_id": "first"} | ({"selector": "run_id"} if name == "run_id" else {})
    if place == "pack":
        step["pack_id"] = "q"
    parts = {"table": table, "job": job, "step": step, "pack": table["packs"]["q"]}
    part = parts.get(place)
    if part is None:
        part = (step if place == "resume_from" else table).setdefault(place, {})
    without = json.loads(json.dumps(table))
    if name in ("default_pack_id", "packs"):
        table["packs"].update(VALUES["table"]["packs"])
    if name == "prompt_ref":
        del step["prompt"]
    part[name] = value
    return table, without


EVERY_KEY = [(place, name) for place, keys in KEYS.items() if place != "artifact" for name in keys]
CHANGE_NOTHING = {("table", "spec_version"), ("table", "packs")}
"""It tells the format apart; a pack that nobody names is asked for by nobody."""


@pytest.mark.parametrize(("place", "name"), EVERY_KEY, ids=[f"{place}-{name}" for place, name in EVERY_KEY])
def test_each_key_that_it_knew_is_kept_told_or_refused_as_the_list_says(place, name):
    key = KEYS[place][name]
    table, without = using(place, name, VALUES.get(place, {}).get(name, "x"))
    if key.becomes == "refused":
        with pytest.raises(InvalidInput, match=re.escape(key.why)):
            of(table)
        return
    made = of(table)
    told = [line for line in made.warnings if name in line]
    if key.becomes == "told":
        assert any(key.why in line for line in told), made.warnings
    elif (place, name) not in CHANGE_NOTHING and not told:
        try:
            before = of(without)
        except InvalidInput:  # it lacks what the key says
            return
        assert repr(made) != repr(before), f"{name} was dropped without a word"


@pytest.mark.parametrize("place", [place for place in KEYS if place != "artifact"])
def test_a_key_that_is_nearly_one_is_an_error_that_names_it(place):
    name = next(name for name, key in KEYS[place].items() if key.becomes == "kept" and len(name) > 3)
    table, _ = using(place, f"{name}x", "v")
    with pytest.raises(InvalidInput) as refused:
        of(table)
    said = [str(problem) for problem in refused.value.problems]
    assert any(f"unknown key '{name}x'" in line and f"did you mean '{name}'" in line for line in said), said


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
