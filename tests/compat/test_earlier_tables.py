"""Tables of the earlier ParallelHassnes, run by the real Codex CLI on a scripted model."""

import contextlib
import json

import pytest
from models import answer, refuse, serving
from stores import context, program, read, states

from parallelhassnes.actions.submit import submit
from parallelhassnes.store import attempts

pytestmark = pytest.mark.codex
OK = {
    "schema_version": "1.0.0",
    "status": "ok",
    "summary": "Done.",
    "files_read": [],
    "files_written": [],
    "artifacts": [],
}
SETTINGS = """
model = "model-of-mine"
model_provider = "mine"
[model_providers.mine]
name = "mine"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "MINE"
request_max_retries = 0
stream_max_retries = 0
[mcp_servers.files]
command = "false"
env = {{ TOKEN = "a-secret-of-the-users-own" }}
"""


@pytest.fixture
def at_home(root, tmp_path, monkeypatch):
    """A user's own Codex home: its settings lead to a scripted model."""

    def serve(*turns, **rules):
        served = stack.enter_context(serving(tmp_path / "model", *turns, **rules))
        home = tmp_path / "home" / ".codex"
        home.mkdir(parents=True)
        (home / "config.toml").write_text(SETTINGS.format(url=served.url))
        return served, {"HOME": str(home.parent), "MINE": "key-of-mine"}

    for key in ("CODEX_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_HOME"):
        monkeypatch.delenv(key, raising=False)
    with contextlib.ExitStack() as stack:
        yield serve


def submitted(root, **document):
    ctx = context(root, 'secrets = ["MINE"]\n')
    table = {"working_root": str(root), "execution_policy": {"skip_git_repo_check": True}, **document}
    return ctx, submit(ctx, json.dumps(table).encode(), name="t.json", folders=[root]).batch_id


def drive(root, env):
    program(root, "tick", "--until-idle", "--fail-on", "never", env=env)


def folders(ctx, batch_id, step="s"):
    step_dir = ctx.layout.step(batch_id, "j", step)
    return [step_dir / "attempts" / name for name in attempts.names(step_dir)]


def job(*steps):
    return [{"job_id": "j", "working_directory": ".", "steps": list(steps)}]


def test_the_users_own_settings_are_in_force_and_the_earlier_report_is_one(root, at_home):
    model, env = at_home(answer(OK))
    step = {
        "step_id": "s",
        "prompt": "Go.",
        "artifacts_expected": [{"name": "codex.events.jsonl"}, {"name": "final.json"}],
    }
    packs = {"terse": {"text": " You are terse. "}}
    ctx, batch_id = submitted(root, packs=packs, default_pack_id="terse", jobs=job(step))
    drive(root, env)
    assert states(ctx, batch_id) == {"j/s": ["succeeded"]}
    [folder] = folders(ctx, batch_id)
    final = read(folder / "final.json")
    assert final["agent"]["report"]["status"] == "ok"
    assert final["agent"]["artifacts"][0]["paths"] == ["agent/codex.events.jsonl"]
    body = model.requests()[-1]["body"]
    assert body["model"] == "model-of-mine"
    assert "You are terse.\\n\\nGo." in json.dumps(body)
    assert body["text"]["format"]["schema"]["properties"]["status"]["enum"][0] == "ok"
    kept = [path for path in (root / "runs").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"a-secret-of-the-users-own" in path.read_bytes()]


def test_a_report_of_today_is_taken_as_well_and_a_missing_artifact_is_not(root, at_home):
    now = {**OK, "status": "succeeded"}
    del now["schema_version"]
    _, env = at_home(answer(now))
    more = {"step_id": "t", "prompt": "Go.", "artifacts_expected": [{"name": "nothing.txt"}]}
    ctx, batch_id = submitted(root, jobs=job({"step_id": "s", "prompt": "Go."}, more))
    drive(root, env)
    assert states(ctx, batch_id) == {"j/s": ["succeeded"], "j/t": ["failed"]}
    [folder] = folders(ctx, batch_id, "t")
    assert "no file nothing.txt" in read(folder / "final.json")["summary"]


def test_a_retry_goes_on_with_the_conversation_and_by_status(root, at_home):
    _, env = at_home(answer({"no": "report"}, times=1), answer(OK))
    retries = {
        "max_attempts": 3,
        "backoff_seconds": 0,
        "retry_on_statuses": ["needs_attention"],
        "mode": "resume_last_attempt",
    }
    ctx, batch_id = submitted(root, retries=retries, jobs=job({"step_id": "s", "prompt": "Go."}))
    drive(root, env)
    first, second = (read(folder / "final.json")["agent"] for folder in folders(ctx, batch_id))
    assert states(ctx, batch_id) == {"j/s": ["needs_attention", "succeeded"]}
    assert second["thread_id"] == first["thread_id"]
    assert second["resumed"]["run_id"]


def test_a_failure_that_no_status_names_is_final(root, at_home):
    model, env = at_home(refuse(400, "no"))
    ctx, batch_id = submitted(
        root, retries={"max_attempts": 3, "retry_on_statuses": []}, jobs=job({"step_id": "s", "prompt": "Go."})
    )
    drive(root, env)
    assert states(ctx, batch_id) == {"j/s": ["failed"]}
    assert len(model.requests()) == 1


def test_a_conversation_is_named(root, at_home):
    _, env = at_home(answer(OK))
    ctx, batch_id = submitted(root, jobs=job({"step_id": "s", "prompt": "Go."}))
    drive(root, env)
    [folder] = folders(ctx, batch_id)
    thread = read(folder / "final.json")["agent"]["thread_id"]
    resumed = {"step_id": "s", "codex_thread_id": thread}
    steps = [{"step_id": "s", "prompt": "Go."}, {"step_id": "t", "prompt": "On.", "resume_from": resumed}]
    ctx, batch_id = submitted(root, jobs=job(*steps))
    drive(root, env)
    # The other batch's conversation is none of this attempt's.
    [folder] = folders(ctx, batch_id, "t")
    assert "has no session of codex" in read(folder / "final.json")["summary"]
