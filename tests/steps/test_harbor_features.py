"""What Harbor's agents can do since 0.24 reaches them through a table: real trials in the sandbox, on a scripted model."""

import json
import shutil

import pytest
from harness import make_task
from models import provider, say, serving
from models import run as shell
from stores import context, program

from parallelhassnes.store.layout import Layout

pytestmark = [pytest.mark.harbor, pytest.mark.namespaces, pytest.mark.timeout(200)]
SERVER = """import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    said = {"tools": [{"name": "lookup", "description": "Looks up.", "inputSchema": {"type": "object", "properties": {}}}]}
    if asked["method"] == "initialize":
        said = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif asked["method"] != "tools/list":
        said = {}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}), flush=True)
"""


def task(root, *steps):
    """A task of several steps, each with an artifact of its own; one without steps where none is named."""
    made = make_task(root, toml="[environment]\nallow_internet = true\n")
    (made / "environment" / "server.py").write_text(SERVER)
    dockerfile = made / "environment" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "COPY server.py /opt/server.py\n")
    toml = made / "task.toml"
    for name in steps:
        toml.write_text(toml.read_text() + f'[[steps]]\nname = "{name}"\nartifacts = ["/app/{name}.txt"]\n')
        folder = made / "steps" / name
        (folder / "tests").mkdir(parents=True)
        (folder / "instruction.md").write_text(f"Do {name}.\n")
        shutil.copy(made / "tests" / "test.sh", folder / "tests" / "test.sh")
    return made


def trial(root, model, made, **agent):
    """Run claude-code on the task; its attempt's folder and its report."""
    keys = provider(model.url)
    own = {
        "path": [str(made)],
        "agents": [{"name": "claude-code", "model_name": "anthropic/claude-sonnet-4-5", **agent}],
        "environment": {"type": "sandbox", "kwargs": {"network": "host"}},
        "harbor": {"agent_timeout_multiplier": 4.0},
    }
    (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "secrets": list(keys), "sweep": own}))
    program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=keys, timeout_sec=180)
    batch = Layout(root).batch(Layout(root).batch_ids()[-1])
    (place,) = batch.glob("*/steps/*.1/attempts/*/final.json")
    return place.parent, json.loads(place.read_text())


def asked(model):
    return [each["body"] for each in model.requests() if each["path"].endswith("/messages")]


@pytest.mark.claude
def test_a_conversation_goes_on_over_steps_with_skills_tools_and_artifacts_and_in_another_trial(tmp_path):
    context(tmp_path)
    skill = tmp_path / "skills" / "counting"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: counting\ndescription: How sheep are counted here.\n---\nOne by one.\n")
    made = task(tmp_path, "one", "two")
    turns = {
        f"Do {name}.": [shell(f"echo {name} > /app/{name}.txt; touch /app/out"), say(f"done {name}")]
        for name in ("one", "two")
    }
    with serving(tmp_path / "model", say("hm"), when=turns) as model:
        mcp = {"name": "books", "transport": "stdio", "command": "python3", "args": ["/opt/server.py"]}
        folder, report = trial(
            tmp_path, model, made, resume_trajectory=True, skills=["skills/counting"], mcp_servers=[mcp]
        )
        requests = asked(model)
    assert (report["status"], report["trial"]["reward"]) == ("succeeded", 1.0), report
    last = json.dumps(requests[-1]["messages"])
    assert "Do one." in last
    assert "Do two." in last
    assert "counting" in json.dumps(requests[-1])
    assert any("books" in str(tool.get("name")) for body in requests for tool in body.get("tools", []))
    for name in ("one", "two"):
        kept = list((folder / "trial" / "steps" / name / "artifacts").rglob(f"{name}.txt"))
        assert [path.read_text() for path in kept] == [f"{name}\n"]

    (session,) = (path for path in (folder / "trial").rglob("projects/-app/*.jsonl") if "Do two." in path.read_text())
    shutil.copy(session, tmp_path / session.name)
    alone = make_task(tmp_path / "more", toml="[environment]\nallow_internet = true\n")
    with serving(tmp_path / "model", shell("touch /app/out"), say("done")) as model:
        _, report = trial(tmp_path, model, alone, load_trajectory=session.name)
        said = json.dumps(asked(model)[-1]["messages"])
    assert (report["status"], report["trial"]["reward"]) == ("succeeded", 1.0), report
    assert "Do one." in said
    assert "Make /app/out." in said


def test_a_file_that_an_agent_is_to_have_and_is_not_there_is_told_at_submission(tmp_path):
    context(tmp_path)
    made = make_task(tmp_path)
    user = {
        "name": "codex",
        "bridge": {"kind": "acp", "prompt_path": "p.md", "kwargs": {"acpx_config_path": "x.json"}},
        "user_persona_path": "who.md",
    }
    own = {
        "path": [str(made)],
        "agents": [{"name": "claude-code", "load_trajectory": "gone.jsonl"}],
        "harbor": {"user_agent": user},
    }
    (tmp_path / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    said = program(tmp_path, "validate", str(tmp_path / "table.json"), check=False)
    assert said.returncode == 2
    for place, name in (
        ("/sweep/agents/0/load_trajectory", "gone.jsonl"),
        ("user_agent/user_persona_path", "who.md"),
        ("user_agent/bridge/prompt_path", "p.md"),
        ("user_agent/bridge/kwargs/acpx_config_path", "x.json"),
    ):
        assert any(place in line and name in line for line in said.stderr.splitlines()), said.stderr
