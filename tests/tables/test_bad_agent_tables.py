"""Tables of agent steps that are wrong: each is refused with a line that says what, where and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Expand, Reject

STEP = "/jobs/0/steps/0"
SECOND = "/jobs/0/steps/1"


def table(*steps: dict[str, Any], job: dict[str, Any] | None = None, **head: Any) -> dict[str, Any]:
    return {"spec_version": "2.0", "jobs": [{"steps": list(steps), **(job or {})}], **head}


def ask(**more: Any) -> dict[str, Any]:
    return {"prompt": "Do it.", **more}


def resume(*more: dict[str, Any], **named: Any) -> dict[str, Any]:
    return table(ask(step_id="a"), ask(step_id="b", resume_from={"step_id": "a", **named}), *more)


BAD: dict[str, tuple[Any, str, str]] = {
    # prompts
    "no prompt": (table({"kind": "agent"}), STEP + "/prompt", "is missing"),
    "nothing to do": (table({"model": "x"}), STEP, "says nothing to do"),
    "a blank prompt": (table({"prompt": " \n"}), STEP + "/prompt", "is blank"),
    "an empty prompt": (table({"prompt": ""}), STEP + "/prompt", "at least 1"),
    "a prompt that is no text": (table({"prompt": ["x"]}), STEP + "/prompt", "must be a string"),
    "a prompt twice": (table(ask(prompt_ref="p.md")), STEP + "/prompt_ref", "stands beside prompt"),
    "a missing prompt file": (table({"prompt_ref": "q.md"}), STEP + "/prompt_ref", "prompt file q.md does not exist"),
    "a prompt file that is a folder": (table({"prompt_ref": "folder"}), STEP + "/prompt_ref", "does not exist"),
    # folders
    "a missing working_root": (table(ask(), working_root="nowhere"), "/working_root", "does not exist"),
    "a missing folder of the table": (table(ask(), working_directory="nowhere"), "/working_directory", "not exist"),
    "a missing folder of the job": (
        table(ask(), job={"working_directory": "nowhere"}),
        "/jobs/0/working_directory",
        "does not exist",
    ),
    "a missing folder of the step": (
        table(ask(working_directory="nowhere")),
        STEP + "/working_directory",
        "does not exist",
    ),
    "a folder that is a file": (table(ask(working_directory="p.md")), STEP + "/working_directory", "does not exist"),
    "isolated in no repository": (
        table(ask(workspace_policy={"mode": "isolated"})),
        STEP + "/workspace_policy/mode",
        "needs a git repository",
    ),
    "isolated in no repository, for all": (
        table(ask(), ask(), workspace_policy={"mode": "isolated"}),
        "/workspace_policy/mode",
        "needs a git repository",
    ),
    "a check for a repository that is none": (
        table(ask(execution_policy={"skip_git_repo_check": False})),
        STEP + "/execution_policy/skip_git_repo_check",
        "is in no git repository",
    ),
    "a missing folder to add": (
        table(ask(execution_policy={"add_dirs": ["folder", "nowhere"]})),
        STEP + "/execution_policy/add_dirs/1",
        "does not exist",
    ),
    # conversations
    "an unknown selector": (resume(selector="last"), SECOND + "/resume_from/selector", "unknown selector 'last'"),
    "a selector that is no text": (resume(selector=3), SECOND + "/resume_from/selector", "'latest_successful'"),
    "an attempt without its id": (resume(selector="run_id"), SECOND + "/resume_from/run_id", "is missing"),
    "resume of nothing": (table(ask(resume_from={"selector": "latest"})), STEP + "/resume_from/step_id", "is missing"),
    "resume of an unknown step": (resume(step_id="aa"), SECOND + "/resume_from/step_id", "unknown step to resume"),
    "resume of an unknown job": (resume(step_id="j/a"), SECOND + "/resume_from/step_id", "unknown step to resume"),
    "resume of itself": (resume(step_id="b"), SECOND + "/resume_from/step_id", "is the step itself"),
    "resume of each other": (
        table(ask(step_id="a", resume_from={"step_id": "b"}), ask(step_id="b", resume_from={"step_id": "a"})),
        STEP + "/depends_on",
        "in a circle",
    ),
    "resume of a command": (
        table({"step_id": "a", "command": ["true"]}, ask(resume_from={"step_id": "a"})),
        SECOND + "/resume_from/step_id",
        "is a command",
    ),
    "resume of another agent": (
        table(ask(step_id="a"), ask(agent="claude", resume_from={"step_id": "a"})),
        SECOND + "/resume_from/step_id",
        "claude cannot go on with a conversation of codex",
    ),
    "a resume key": (resume(run="x"), SECOND + "/resume_from/run", "unknown key"),
    "resume as a text": (table(ask(resume_from="a")), STEP + "/resume_from", "not a string"),
    # schemas and artifacts
    "a missing schema": (table(ask(output_schema_ref="s.json")), STEP + "/output_schema_ref", "does not exist"),
    "a schema that is no JSON": (table(ask(), output_schema_ref="p.md"), "/output_schema_ref", "is not JSON"),
    "a schema that is an array": (table(ask(), output_schema_ref="array.json"), "/output_schema_ref", "no JSON Schema"),
    "a schema that is none": (
        table(ask(output_schema_ref="wrong.json")),
        STEP + "/output_schema_ref",
        "is no JSON Schema: /type",
    ),
    "a schema that needs another": (
        table(ask(output_schema_ref="remote.json")),
        STEP + "/output_schema_ref",
        "refers to another document",
    ),
    "an absolute artifact": (table(ask(artifacts_expected=["/etc/x"])), STEP + "/artifacts_expected/0", "is absolute"),
    "an artifact outside": (
        table(ask(artifacts_expected=["ok", "../x"])),
        STEP + "/artifacts_expected/1",
        "leaves the workspace",
    ),
    "a blank artifact": (table(ask(artifacts_expected=[" "])), STEP + "/artifacts_expected/0", "is blank"),
    "a bad glob": (table(ask(artifacts_expected=["a[b"])), STEP + "/artifacts_expected/0", "not closed"),
    "another bad glob": (table(ask(artifacts_expected=["a**b"])), STEP + "/artifacts_expected/0", "has **"),
    "an artifact of nothing": (table(ask(artifacts_expected=[{}])), STEP + "/artifacts_expected/0", "names no file"),
    "an artifact key": (
        table(ask(artifacts_expected=[{"glob": "x", "nonempty": True}])),
        STEP + "/artifacts_expected/0/nonempty",
        "unknown key",
    ),
    "an artifact twice": (
        table(ask(artifacts_expected=["x", {"name": "x", "glob": "y"}])),
        STEP + "/artifacts_expected/1",
        "a second artifact is called x",
    ),
    "an artifact's schema": (
        table(ask(artifacts_expected=[{"glob": "x", "json_schema": {"type": "objekt"}}])),
        STEP + "/artifacts_expected/0/json_schema",
        "is no JSON Schema",
    ),
    "an artifact's missing schema": (
        table(ask(artifacts_expected=[{"glob": "x", "schema_ref": "s.json"}])),
        STEP + "/artifacts_expected/0/schema_ref",
        "does not exist",
    ),
    # policies
    "an unknown sandbox": (
        table(ask(execution_policy={"sandbox": "readonly"})),
        STEP + "/execution_policy/sandbox",
        "'read-only'",
    ),
    "a policy key": (table(ask(), execution_policy={"sandbx": "x"}), "/execution_policy/sandbx", "unknown key"),
    "a policy of another type": (
        table(ask(), execution_policy={"web_search_enabled": "sometimes"}),
        "/execution_policy/web_search_enabled",
        "true or false",
    ),
    "a policy that is none": (table(ask(), execution_policy="strict"), "/execution_policy", "object"),
    "an unknown mode": (
        table(ask(workspace_policy={"mode": "islated"})),
        STEP + "/workspace_policy/mode",
        "'isolated'",
    ),
    "a workspace key": (table(ask(workspace_policy={"mod": "shared"})), STEP + "/workspace_policy/mod", "unknown key"),
    "a timeout key": (table(ask(timeouts={"step_timeout": 5})), STEP + "/timeouts/step_timeout", "unknown key"),
    "a timeout of no time": (
        table(ask(), timeouts={"step_timeout_seconds": 0}),
        "/timeouts/step_timeout_seconds",
        "above 0",
    ),
    "no attempts": (table(ask(retries={"max_attempts": 0})), STEP + "/retries/max_attempts", "greater than"),
    "too many repairs": (table(ask(repair=9)), STEP + "/repair", "less than or equal to 5"),
    "an effort that is no text": (table(ask(effort=3)), STEP + "/effort", "string"),
    "a model that is no text": (table(ask(), job={"model": ["x"]}), "/jobs/0/model", "string"),
    # packs
    "an unknown pack": (table(ask(pack_id="p"), packs={"pq": {}}), STEP + "/pack_id", "unknown pack"),
    "an unknown pack of all": (table(ask(), packs={"pq": {}}, default_pack_id="p"), "/default_pack_id", "unknown pack"),
    "a pack key": (table(ask(pack_id="p"), packs={"p": {"promt": "x"}}), "/packs/p/promt", "unknown key"),
    "a pack that is none": (table(ask(pack_id="p"), packs={"p": 3}), "/packs/p", "object"),
    "a pack without its file": (table(ask(pack_id="p"), packs={"p": "q.md"}), "/packs/p/prompt_ref", "does not exist"),
    # agents
    "an unknown agent": (table(ask(agent="codx")), STEP + "/agent", "unknown agent 'codx'"),
    "an unknown agent of all": (table(ask(), agent="cluade"), "/agent", "unknown agent"),
    "a template without a command": (table(ask(agent="template")), STEP + "/agent", "without a command"),
    "a command beside codex": (table(ask(command=["x"])), STEP + "/command", "stands beside agent codex"),
    "a misspelt place": (
        table(ask(agent="template", command=["x", "{promt_file}"])),
        STEP + "/command/1",
        "unknown place in a command",
    ),
    "an agent key": (table(ask(agent={"nam": "codex"})), STEP + "/agent/nam", "unknown key"),
    "an agent of no command": (table(ask(agent={"command": []})), STEP + "/agent/command", "at least 1"),
    # what stands at the wrong kind
    "a prompt of a trial": (
        table({"kind": "verdict", "prompt": "x"}),
        STEP + "/prompt",
        "means nothing to a step of kind verdict",
    ),
    "a fan-in of a command": (
        table({"command": ["x"], "fan_in": {"labels": {}}}),
        STEP + "/fan_in",
        "means nothing to a step of kind command",
    ),
    "a loop of a trial": (
        table({"kind": "verdict", "loop": {"step_id": "a", "max_rounds": 1, "until": "x"}}),
        STEP + "/loop",
        "means nothing",
    ),
}


@pytest.fixture(autouse=True)
def files(root: Path) -> None:
    """What the tables name besides what is missing; in no git repository."""
    (root / "folder").mkdir()
    for name, document in {
        "array.json": [1],
        "wrong.json": {"type": "objekt"},
        "remote.json": {"$ref": "https://example.invalid/x"},
    }.items():
        (root / name).write_text(json.dumps(document))
    (root / "p.md").write_text("Do it.")


def test_there_are_as_many_as_are_promised() -> None:
    assert len(BAD) >= 44


@pytest.mark.parametrize("case", BAD)
def test_tables_that_are_wrong(case: str, reject: Reject, outside: None) -> None:
    document, at, message = BAD[case]
    problems = reject(document)
    hits = [problem for problem in problems if problem.pointer == at]
    assert hits, [problem.line() for problem in problems]
    assert any(message in hit.message for hit in hits), [hit.line() for hit in hits]
    assert len(problems) <= 2, [problem.line() for problem in problems]
    assert all("\n" not in problem.line() for problem in problems)


@pytest.fixture
def outside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's folder lies below the checkout, which is a repository: look no further up than the folder."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))


def test_an_earlier_table_names_nothing_that_is_refused_for_being_elsewhere(plan: Expand) -> None:
    made = plan(
        {
            "batch_goal_summary": "x",
            "working_root": "/not/on/this/machine",
            "workspace_policy": {"mode": "isolated"},
            "output_schema_ref": "run_report.schema.json",
            "execution_policy": {"add_dirs": ["../other"]},
            "jobs": [{"steps": [{"prompt": "x", "prompt_ref": None}]}],
        }
    )
    assert made.jobs[0].steps[0].spec["workspace_policy"] == {"mode": "isolated"}
