"""Before anything is queued: which variables agents, models and tasks need, and which are not there."""

import json

import pytest
from harness import make_task
from hypothesis import given
from hypothesis import strategies as st
from servers import serving
from stores import context, program

from parallelhassnes.actions.submit import plan_table
from parallelhassnes.errors import InvalidInput
from parallelhassnes.tables.expanders import compose_env

COMPOSE = """
services:
  main:
    image: base:${TAG_OF_IMAGE}
    environment:
      - PLAIN=$PLAIN_ONE
      - DEFAULTED=${DEFAULTED:-x} ${EMPTY_TOO-} ${IF_SET:+y} ${NESTED:-${NOT_ASKED:-}}
      - OF_HARBOR=${CPUS}${MAIN_IMAGE_NAME} $$ESCAPED $${ESCAPED}
      - OF_THE_HOST=$HOME
      - FROM_FILE=${BESIDE} ${OF_TOML}
  helper: !override
    image: other
    command: ["${NEEDED:?say which}"]
"""
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def task(root):
    return make_task(root)


def document(task, agent, n=3, **more):
    """A table with some trials of one agent."""
    trial = {"kind": "trial", "task": {"path": str(task)}, "environment": {"type": "docker"}, "agent": agent}
    steps = [{"step_id": f"t{k}", **trial, **more.pop("step", {})} for k in range(n)]
    return {"spec_version": "2.0", "jobs": [{"job_id": "j", "steps": steps}], **more}


def look(root, said, *, here=True, ctx=None):
    """The lines of errors, and of warnings, of a table."""
    ctx = ctx or context(root)
    try:
        plan = plan_table(ctx, json.dumps(said).encode(), name="t.json", folders=[root], here=here)
    except InvalidInput as error:
        return [problem.line() for problem in error.problems], []
    return [], list(plan.warnings)


def composed(task, text=COMPOSE):
    (task / "environment" / "docker-compose.yaml").write_text(text)
    (task / "environment" / ".env").write_text("BESIDE=1\n")
    with (task / "task.toml").open("a") as toml:
        toml.write('\n[environment.env]\nOF_TOML = "1"\n')


def test_a_compose_file_takes_what_nobody_passes_on(root, task):
    composed(task)
    errors, _ = look(root, document(task, "nop"))
    assert [line.split(" takes ")[1].split(",")[0] for line in errors] == ["TAG_OF_IMAGE", "PLAIN_ONE", "NEEDED"], (
        errors
    )
    assert all("docker-compose.yaml" in line and "--secret" in line for line in errors)
    named = ["TAG_OF_IMAGE", "PLAIN_ONE", "NEEDED"]
    errors, warnings = look(root, document(task, "nop", secrets=named))
    assert errors == []
    assert [line.split()[0] for line in warnings] == named
    assert all("is not set in the environment" in line and "docker-compose.yaml takes it" in line for line in warnings)


def test_what_is_there_is_not_told(root, task, monkeypatch):
    composed(task)
    for name in ("TAG_OF_IMAGE", "NEEDED", "PLAIN_ONE"):
        monkeypatch.setenv(name, "a-long-enough-value")
    errors, _ = look(root, document(task, "nop"))
    assert all("which is set but not passed on" in line for line in errors)
    assert len(errors) == 3
    said = document(task, "nop", secrets=["TAG_OF_IMAGE", "NEEDED", "PLAIN_ONE"])
    assert look(root, said) == ([], [])
    step = {"env": {"TAG_OF_IMAGE": "1", "PLAIN_ONE": "2", "NEEDED": "3"}}
    assert look(root, document(task, "nop", step=step, n=1)) == ([], [])


def test_a_sandbox_reads_no_compose_file(root, task):
    composed(task)
    said = document(task, "nop")
    for step in said["jobs"][0]["steps"]:
        step["environment"] = "temp_environment:TempEnvironment"
    assert look(root, said)[0] == []


def test_an_env_file_of_compose_must_be_there(root, task):
    composed(task, "services: {main: {image: x, env_file: [there.env, {path: maybe.env, required: false}, gone.env]}}")
    (task / "environment" / "there.env").write_text("")
    errors, _ = look(root, document(task, "nop"))
    assert [line for line in errors if "names the env_file gone.env, which is not there" in line] == errors
    assert len(errors) == 1


def test_an_env_file_is_looked_for_as_compose_does(root, task, tmp_path, monkeypatch):
    """Beginning at the first file's folder, in the home, of any shape, and not for a service that no profile starts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "of_home.env").write_text("")
    composed(
        task,
        "services: {main: {image: x, env_file: ['~/of_home.env', /dev/null]}, off: {image: x, profiles: [p], env_file: gone.env}}",
    )
    more = tmp_path / "elsewhere" / "more.yaml"
    more.parent.mkdir()
    more.write_text("services: {main: {env_file: of_extra.env, environment: {A: '${TMPDIR}'}}}")
    said = document(task, "nop")
    for step in said["jobs"][0]["steps"]:
        step["environment"] = {"type": "docker", "extra_docker_compose": [str(more)]}
    errors, _ = look(root, said)
    assert len(errors) == 1
    assert "more.yaml names the env_file of_extra.env, which is not there" in errors[0]
    (task / "environment" / "of_extra.env").write_text("")
    assert look(root, said)[0] == []


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ({"name": "codex", "model_name": "openai/gpt-5.2"}, "OPENAI_API_KEY"),
        ({"name": "claude-code", "model_name": "claude-sonnet-4-5"}, "ANTHROPIC_API_KEY"),
        ({"name": "terminus-2", "model_name": "anthropic/claude-x"}, "ANTHROPIC_API_KEY"),
        ({"name": "gemini-cli", "model_name": "google/gemini-3"}, "GEMINI_API_KEY"),
        ({"name": "aider", "model_name": "deepseek/chat"}, "DEEPSEEK_API_KEY"),
    ],
)
def test_an_agent_without_any_key_is_refused_in_one_line(root, task, monkeypatch, agent, name):
    (line,), _ = look(root, document(task, agent, n=20))
    assert f"{agent['name']} with {agent['model_name']} is given no key" in line
    assert f"--secret {name}" in line
    monkeypatch.setenv(name, "a-value-that-is-long")
    (line,), _ = look(root, document(task, agent, n=20))
    assert f"{name} is set but not passed on" in line
    assert look(root, document(task, agent, n=20), here=False) == ([], [line.removeprefix("t.json: ")])
    assert look(root, document(task, agent, secrets=[name])) == ([], [])
    assert look(root, document(task, {**agent, "env": {name: f"${{{name}}}"}})) == ([], [])


def test_a_named_key_that_is_not_there_is_waited_for(root, task):
    errors, (line,) = look(
        root, document(task, {"name": "codex", "model_name": "openai/gpt-5.2"}, secrets=["OPENAI_API_KEY"])
    )
    assert errors == []
    assert line == "OPENAI_API_KEY is not set in the environment; steps wait until it is"
    (root / "keys.env").write_text("OPENAI_API_KEY=something-long\n")
    (root / "parallelhassnes.toml").write_text('env_file = "keys.env"\n')


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sk-abc\u00e9defgh", "its character 7 of 12 is not ASCII"),
        ("sk-abc\u2013defgh", "its character 7 of 12 is not ASCII"),
        ("sk-abc\ndefgh", "its character 7 of 12 is a line break"),
        ("sk-abc\x07defgh", "its character 7 of 12 is a control character"),
    ],
)
def test_a_key_that_no_client_can_send_is_refused_without_a_word_of_it(root, task, monkeypatch, key, says):
    (root / "keys.env").write_text(f'OPENAI_API_KEY="{key}"\nANTHROPIC_API_KEY="{key}"\nNOTE="{key}"\n')
    head = 'env_file = "keys.env"\nsecrets = ["OPENAI_API_KEY", "NOTE"]\n'
    ctx = context(root, head)
    codex = {"name": "codex", "model_name": "openai/gpt-5.2"}
    (root / "t.json").write_text(json.dumps(document(task, codex)))
    for command in (["submit", "t.json"], ["validate", "t.json"], ["run", "-c", "t.json"]):
        done = program(root, *(str(root / a) if a == "t.json" else a for a in command), check=False)
        assert done.returncode == 2, done
        (line,) = [line for line in done.stderr.splitlines() if "can be no key" in line]
        assert f"OPENAI_API_KEY can be no key: {says}; write it anew in the environment or keys.env" in line
        assert "sk-abc" not in done.stdout + done.stderr
        assert "defgh" not in done.stdout + done.stderr
    assert ctx.layout.batch_ids() == []
    # What nobody of the plan takes for a key may be anything.
    assert look(root, document(task, "oracle"), ctx=ctx)[0] == []
    monkeypatch.setenv("MY_KEY", "sk-good-and-long")
    assert look(root, document(task, {**codex, "env": {"OPENAI_API_KEY": "${MY_KEY}"}}), ctx=ctx)[0] == []
    monkeypatch.setenv("MY_KEY", key)
    (line,) = look(root, document(task, {**codex, "env": {"OPENAI_API_KEY": "${MY_KEY}"}}), ctx=ctx)[0]
    assert f"MY_KEY can be no key: {says}" in line


@pytest.mark.parametrize(
    ("agent", "more"),
    [
        ("oracle", {}),
        ("nop", {}),
        ({"import_path": "scripted_agent:ScriptedAgent", "model_name": "openai/x"}, {}),
        ({"name": "terminus-2", "model_name": "openai/local", "kwargs": {"api_base": "http://127.0.0.1:1/v1"}}, {}),
        ({"name": "terminus-2", "model_name": "ollama/llama"}, {}),
        ({"name": "terminus-2", "model_name": "hosted_vllm/x"}, {}),
        ({"name": "codex", "model_name": "openai/x", "env": {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}}, {}),
        ({"name": "codex", "model_name": "openai/x", "env": {"CODEX_FORCE_AUTH_JSON": "1"}}, {}),
        (
            {
                "name": "claude-code",
                "model_name": "claude-x",
                "env": {"CLAUDE_CODE_OAUTH_TOKEN": "${CLAUDE_CODE_OAUTH_TOKEN}"},
            },
            {},
        ),
        ({"name": "claude-code", "model_name": "claude-x"}, {"secrets": ["CLAUDE_CODE_OAUTH_TOKEN"]}),
        ({"name": "codex", "model_name": "openai/x"}, {"secrets": ["CODEX_FORCE_AUTH_JSON"]}),
        ({"name": "terminus-2", "model_name": "bedrock/claude"}, {}),
    ],
)
def test_what_needs_no_key_or_logs_in_otherwise_is_not_refused(root, task, agent, more):
    assert look(root, document(task, agent, **more))[0] == []


def test_another_secret_may_be_how_it_logs_in(root, task):
    errors, warnings = look(root, document(task, {"name": "codex", "model_name": "openai/x"}, secrets=["PROXY_TOKEN"]))
    assert errors == []
    assert warnings[0].startswith("codex with openai/x looks for OPENAI_API_KEY, and none is passed on")


def test_every_way_in_says_so_before_anything_is_queued(root, task):
    ctx = context(root)
    path = root / "t.json"
    path.write_text(json.dumps(document(task, {"name": "codex", "model_name": "openai/gpt-5.2"})))
    said = "codex with openai/gpt-5.2 is given no key: OPENAI_API_KEY is not passed on"
    for command in (["-c", str(path)], [str(task), "-a", "codex", "-m", "openai/gpt-5.2"]):
        done = program(root, "run", *command, check=False)
        assert done.returncode == 2, command
        assert done.stderr.count(said) == 1, done.stderr
    assert program(root, "validate", str(path)).stdout.count(said) == 1
    composed(task, "services: {main: {image: 'x:${TAG_OF_IMAGE}'}}")
    for command in (["validate", str(path)], ["submit", str(path)], ["run", "-c", str(path)]):
        done = program(root, *command, check=False)
        assert done.returncode == 2, command
        assert "docker-compose.yaml takes TAG_OF_IMAGE, which is not passed on" in done.stderr
    with serving(root) as server:
        for address in ("/v1/validate", "/v1/batches"):
            answer = server.client.post(
                address, content=path.read_bytes(), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 422, answer.text
            assert "takes TAG_OF_IMAGE" in answer.text
    assert ctx.layout.batch_ids() == []


def test_many_tasks_are_one_line(root):
    folder = root / "many"
    for n in range(5):
        made = folder / f"t{n}"
        made.mkdir(parents=True)
        for part in ("environment", "tests"):
            (made / part).mkdir()
        (made / "instruction.md").write_text("do")
        (made / "tests" / "test.sh").write_text("true")
        (made / "environment" / "Dockerfile").write_text("FROM scratch\n")
        (made / "task.toml").write_text('version = "1.0"\n[verifier.env]\nK = "${JUDGE_KEY}"\n')
    said = {"spec_version": "2.0", "sweep": {"path": str(folder), "agents": [{"name": "nop"}], "environment": "docker"}}
    errors, _ = look(root, said)
    assert len(errors) == 1
    assert "[verifier.env] takes JUDGE_KEY from the environment" in errors[0]
    assert "4 more tasks" in errors[0]


@given(st.text(alphabet="${}:-?+AB_1 \n", max_size=40))
def test_any_text_has_an_end(text):
    for used in compose_env.variables(text):
        assert used.name.isidentifier()


@pytest.mark.parametrize(
    ("value", "passed", "refused"),
    [
        ("${FIRST_OF_TWO:-${SECOND_OF_TWO}}", (), "SECOND_OF_TWO"),
        ("${FIRST_OF_TWO:-$SECOND_OF_TWO}", (), "SECOND_OF_TWO"),
        ("${FIRST_OF_TWO-x/${SECOND_OF_TWO:?needed}}", (), "SECOND_OF_TWO"),
        ("${FIRST_OF_TWO:-${SECOND_OF_TWO:-${THIRD}}}", (), "THIRD"),
        ("${FIRST_OF_TWO:-${SECOND_OF_TWO}}", ("FIRST_OF_TWO",), ""),
        ("${FIRST_OF_TWO:-${SECOND_OF_TWO}}", ("SECOND_OF_TWO",), ""),
        ("${FIRST_OF_TWO:-${SECOND_OF_TWO:-}}", (), ""),
    ],
)
def test_a_default_may_take_a_variable_too(root, task, monkeypatch, value, passed, refused):
    composed(task, f"services: {{main: {{image: x, environment: {{V: '{value}'}}}}}}")
    for name in passed:
        monkeypatch.setenv(name, "v")
    errors, _ = look(root, document(task, "nop", n=1, secrets=list(passed)))
    assert [line.partition(" takes ")[2].partition(",")[0] for line in errors] == [refused] * bool(refused)


def test_defaults_inside_of_defaults_have_an_end():
    assert len(list(compose_env.variables("${A:-" * 200_000))) <= compose_env.MOST_DEPTH + 1


def test_a_compose_file_that_refers_to_itself_or_is_none_is_passed_over(tmp_path):
    path = tmp_path / "docker-compose.yaml"
    for text in ("a: &a [*a]", "a: [" * 5000, "{", "- 1", "\x00", "a: &a ['${X}', *a]"):
        path.write_text(text)
        compose_env.read(path, tmp_path)
    layers = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    path.write_text(f"a0: &a0 ['${{X}}']\n{layers}")
    found = compose_env.read(path, tmp_path)
    assert found is not None
    assert [used.name for used in found.used] == ["X"]
