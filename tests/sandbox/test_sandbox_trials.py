"""Whole Harbor trials in the sandbox, with the agents oracle, nop and terminus-2."""

import asyncio
import http.server
import json
import os
import shutil
import threading
import warnings
from pathlib import Path

import pytest
from conftest import IMPORT_PATH

# Harbor warns of a property that Harbor itself uses.
pytestmark = [pytest.mark.filterwarnings("ignore:Task.checksum:DeprecationWarning"), pytest.mark.harbor]
TOML = 'version = "1.0"\n[agent]\ntimeout_sec = 60.0\n[verifier]\ntimeout_sec = 60.0\n'
PASS = "#!/bin/bash\necho {} > /logs/verifier/reward.txt\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def task(folder: Path, **files: str) -> Path:
    return write(
        folder / "task",
        {
            "task.toml": TOML + files.pop("toml", ""),
            "instruction.md": "Write hello to /app/hello.txt\n",
            "environment/Dockerfile": files.pop("dockerfile", "FROM debian\nWORKDIR /app\nCOPY data.txt .\n"),
            "environment/data.txt": "data\n",
            "solution/solve.sh": "#!/bin/sh\necho hello >hello.txt\n",
            "tests/test.sh": '#!/bin/bash\n[ "$(cat hello.txt)" = hello ] && cat data.txt; echo $((!$?)) >/logs/verifier/reward.txt\n',
            **{name.replace("__", "/").replace("_sh", ".sh"): text for name, text in files.items()},
        },
    )


def run(task_dir: Path, folder: Path, engine: str, agent: dict | str = "oracle", **more):
    from harbor.models.trial.config import TrialConfig
    from harbor.trial.trial import Trial

    kwargs = {"engine": engine, **more.pop("kwargs", {})}
    config = TrialConfig.model_validate(
        {
            "task": {"path": str(task_dir)},
            "trial_name": "one",
            "trials_dir": str(folder / "trials"),
            "agent": {"name": agent} if isinstance(agent, str) else agent,
            "environment": {"import_path": IMPORT_PATH, "kwargs": kwargs},
            **more,
        }
    )

    async def go():
        return await (await Trial.create(config)).run()

    return asyncio.run(go())


def error(result) -> tuple[str, str] | None:
    info = result.exception_info
    return (info.exception_type, info.exception_message) if info else None


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


@pytest.mark.parametrize(("agent", "reward"), [("oracle", 1.0), ("nop", 0.0)])
def test_oracle_passes_and_nop_fails(folder, engine, agent, reward):
    result = run(task(folder), folder, engine, agent)
    assert error(result) is None
    assert result.verifier_result.rewards == {"reward": reward}
    record = json.loads((folder / "trials/one/sandbox.json").read_text())
    assert (record["engine"], record["skipped"], record["base_image"]) == (engine, [], "debian")
    assert record["not_isolated"]
    assert not any((folder / "tmp").iterdir())


def test_a_dockerfile_that_needs_more_fails_with_its_line_and_a_result(folder, engine):
    result = run(task(folder, dockerfile="FROM x\n\nRUN apt-get update\n"), folder, engine)
    kind, message = error(result)
    assert kind == "SandboxBuildFailedError"
    assert message == (
        "environment/Dockerfile line 3: RUN is not supported by the sandbox environment;"
        " run it in Docker (-e docker), or leave it out where this host has what is needed (--ek unsupported=skip)"
    )
    assert (folder / "trials/one/result.json").is_file()


def test_what_is_skipped_is_recorded(folder, engine):
    dockerfile = "FROM x\nWORKDIR /app\nRUN apt-get update && \\\n  true\nCOPY data.txt .\n"
    result = run(task(folder, dockerfile=dockerfile), folder, engine, kwargs={"unsupported": "skip"})
    assert result.verifier_result.rewards == {"reward": 1.0}
    record = json.loads((folder / "trials/one/sandbox.json").read_text())
    assert record["skipped"] == [{"line": 3, "instruction": "RUN apt-get update &&   true"}]


def test_a_user_whom_the_host_does_not_know_is_recorded(folder, engine):
    dockerfile = "FROM x\nWORKDIR /app\nCOPY data.txt .\nUSER no-such\n"
    result = run(task(folder, dockerfile=dockerfile), folder, engine)
    assert result.verifier_result.rewards == {"reward": 1.0}
    record = json.loads((folder / "trials/one/sandbox.json").read_text())
    assert record["skipped"] == [{"line": 4, "instruction": "USER no-such"}]


def test_a_task_with_only_an_image_is_refused_or_gets_its_files(folder, engine):
    made = task(folder, toml='[environment]\ndocker_image = "x"\nworkdir = "/app"\n')
    (made / "environment/Dockerfile").unlink()
    assert error(run(made, folder, engine))[1].startswith("environment/Dockerfile: there is none, and images are")
    shutil.rmtree(folder / "trials")
    result = run(made, folder, engine, kwargs={"unsupported": "skip"})
    assert result.verifier_result.rewards == {"reward": 1.0}


def test_healthcheck_users_environment_and_artifacts(folder, engine):
    toml = (
        '[environment]\nenv = { FROM_TASK = "t" }\n'
        '[environment.healthcheck]\ncommand = "test -f /tmp/ready || { touch /tmp/ready; exit 1; }"\ninterval_sec = 0.01\n'
    )
    made = task(
        folder,
        toml='artifacts = ["/app/out", "/app/single.txt", { source = "/app/some", exclude = ["*.o"] }]\n' + toml,
        solution__solve_sh="#!/bin/bash\nmkdir out some; echo $FROM_TASK >out/a; ln -s /etc/passwd out/bad; mkfifo out/pipe;"
        " echo s >single.txt; touch some/x.c some/x.o; echo p >/logs/artifacts/published; echo hello >hello.txt\n",
    )
    toml_path = made / "task.toml"
    text = toml_path.read_text()
    first = text.index("artifacts =")
    toml_path.write_text(text[first : text.index("\n", first) + 1] + text[:first] + text[text.index("\n", first) + 1 :])
    result = run(made, folder, engine)
    assert error(result) is None
    assert result.verifier_result.rewards == {"reward": 1.0}
    out = folder / "trials/one/artifacts"
    assert (out / "app/out/a").read_text() == "t\n"
    assert (out / "app/single.txt").read_text() == "s\n"
    assert sorted(path.name for path in (out / "app/some").iterdir()) == ["x.c"]
    assert (out / "logs/artifacts/published").read_text() == "p\n"
    assert not (out / "app/out/bad").exists()


def test_the_users_mask_closes_nothing_inside(folder, engine):
    """A user's 077 left ``/etc/ssl`` closed to the sandbox's own root, so that Node, for one, did not start."""
    solution = "set -e; [ $(umask) = 0022 ]; ls /etc/ssl /usr >/dev/null; cat /etc/ssl/openssl.cnf >/dev/null; echo hello >hello.txt"
    before = os.umask(0o077)
    try:
        result = run(task(folder, solution__solve_sh=f"#!/bin/sh\n{solution}\n"), folder, engine)
    finally:
        os.umask(before)
    assert result.verifier_result.rewards == {"reward": 1.0}, result


def test_steps(folder, engine):
    toml = '[[steps]]\nname = "first"\n[[steps]]\nname = "second"\n'
    made = write(
        folder / "task",
        {
            "task.toml": TOML + toml,
            "environment/Dockerfile": "FROM debian\nWORKDIR /app\n",
            **{f"steps/{name}/instruction.md": "Do it.\n" for name in ("first", "second")},
            "steps/first/workdir/setup.sh": "#!/bin/bash\necho set >setup-ran\n",
            "steps/first/solution/solve.sh": "#!/bin/bash\nnohup sleep 300 >/dev/null 2>&1 & echo $! >/app/pid\n",
            "steps/first/tests/test.sh": "#!/bin/bash\ntest -f /app/setup-ran && kill -0 $(cat /app/pid); echo $((!$?)) >/logs/verifier/reward.txt\n",
            "steps/second/solution/solve.sh": "#!/bin/bash\n[ ! -e /tests/first ] && kill $(cat /app/pid) && echo 2 >/app/two\n",
            "steps/second/tests/test.sh": "#!/bin/bash\ntest -s /app/two; echo $((!$?)) >/logs/verifier/reward.txt\n",
        },
    )
    result = run(made, folder, engine)
    assert error(result) is None
    assert [step.verifier_result.rewards for step in result.step_results] == [{"reward": 1.0}] * 2


def test_a_separate_verifier_has_a_sandbox_of_its_own(folder, engine):
    toml = '[verifier.environment]\nnetwork_mode = "no-network"\n'
    made = task(
        folder,
        toml=toml,
        solution__solve_sh="#!/bin/bash\necho hello >/logs/artifacts/hello.txt; touch /tmp/agent-was-here\n",
        tests__test_sh="#!/bin/bash\n[ ! -e /tmp/agent-was-here ] && grep hello /logs/artifacts/hello.txt; echo $((!$?)) >/logs/verifier/reward.txt\n",
    )
    write(made, {"tests/Dockerfile": "FROM debian\nCOPY . /tests/\n"})
    result = run(made, folder, engine)
    assert error(result) is None
    assert result.verifier_result.rewards == {"reward": 1.0}
    names = {path.name for path in (folder / "trials/one").glob("sandbox*")}
    assert names == {"sandbox.json", "sandbox-verifier.json"}


def test_an_agent_timeout_ends_the_agents_processes_before_the_verifier(folder, engine):
    made = task(
        folder,
        solution__solve_sh="#!/bin/bash\nsetsid sleep 987.6 & sleep 987.6\n",
        tests__test_sh="#!/bin/bash\ncat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[s]leep 987.6'; echo $? >/logs/verifier/reward.txt\n",
    )
    result = run(made, folder, engine, {"name": "oracle", "override_timeout_sec": 1.0})
    assert error(result)[0] in {"AgentTimeoutError", "RuntimeError"}
    if result.verifier_result is not None:
        assert result.verifier_result.rewards == {"reward": 1.0}


class Model(http.server.BaseHTTPRequestHandler):
    """A scripted model that answers like OpenAI's chat completions, and looks again until it sees what its command prints."""

    turns = (
        {"analysis": "a", "plan": "p", "commands": [{"keystrokes": "export X=hello; cd /app\n", "duration": 0.1}]},
        {"analysis": "a", "plan": "p", "commands": [{"keystrokes": "echo $X >hello.txt; echo ~\n", "duration": 0.2}]},
        {"analysis": "a", "plan": "p", "commands": [{"keystrokes": "", "duration": 0.2}]},
        {"analysis": "a", "plan": "p", "commands": [], "task_complete": True},
    )

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(request)
        shown = "/root" in json.dumps(request["messages"])
        turn = self.turns[3 if shown else min(len(self.server.seen), 3) - 1]
        message = {"role": "assistant", "content": json.dumps(turn)}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.programs("tmux")
def test_terminus_2_works_in_a_terminal_that_lives_between_commands(folder, engine, model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    agent = {
        "name": "terminus-2",
        "model_name": "openai/scripted",
        "kwargs": {
            "api_base": f"http://127.0.0.1:{model.server_address[1]}/v1",
            "record_terminal_session": False,
            "enable_summarize": False,
            "max_turns": 100,
            "model_info": {
                "max_input_tokens": 10000,
                "max_output_tokens": 1000,
                "input_cost_per_token": 1e-6,
                "output_cost_per_token": 1e-6,
            },
        },
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of litellm and its dependencies
        result = run(task(folder), folder, engine, agent)
    assert error(result) is None
    assert result.verifier_result.rewards == {"reward": 1.0}
    assert "/root" in json.dumps(model.seen[-1]["messages"])
    assert (folder / "trials/one/agent/trajectory.json").is_file()
