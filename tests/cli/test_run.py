"""run: from task folders or a file to results, in one command."""

import json
import shutil
import socket

import pytest
import warm
from harness import make_task
from stores import CHECKOUT, context, environment, job, program, shell, table

from parallelhassnes.views import endpoints

pytestmark = pytest.mark.timeout(300)  # real trials, several in one test
TASKS = CHECKOUT / "examples" / "tasks"


def board_of(root, *arguments, code=0):
    done = program(root, "run", *arguments, "--json", check=False, timeout_sec=280)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.mark.namespaces
def test_tasks_with_two_agents_in_the_sandbox(root):
    board = board_of(
        root,
        str(TASKS / "hello"),
        str(TASKS / "config-repair"),
        "-a",
        "oracle",
        "-a",
        "nop",
        "-k",
        "2",
        "-e",
        "sandbox",
    )
    assert (board["jobs_total"], board["steps_total"]) == (2, 10)
    assert board["counts"]["succeeded"] == 10
    for line in board["jobs"]:
        assert line["cells"]["oracle"]["passes"] == 2
        assert line["cells"]["nop"]["passes"] == 0
    verdict = json.loads(next((root / "runs").glob("*/*hello/verdict.json")).read_text())
    assert verdict["task_broken"] is False


@pytest.mark.docker
def test_a_trial_in_docker_leaves_nothing_there(root):
    board = board_of(root, str(TASKS / "hello"), "-a", "oracle")
    assert board["counts"]["succeeded"] == 2
    report = json.loads(next((root / "runs").glob("*/*/steps/oracle.1/attempts/*/final.json")).read_text())
    assert report["trial"]["reward"] == 1
    assert report["trial"]["environment"] == "docker"
    assert not list((root / "runs").glob("*/*/steps/*/attempts/*/tmp"))


@pytest.mark.namespaces
def test_a_harbor_job_and_an_oddish_sweep_run_as_they_are(root):
    sweep = board_of(root, "-c", "examples/sweep.yaml", "-e", "sandbox", "-t", "hello", "-t", "leap-years")
    assert (sweep["jobs_total"], sweep["counts"]["succeeded"]) == (2, 8)
    harbor = board_of(root, "-c", "examples/harbor_job.yaml", "-t", "hello")
    assert harbor["counts"]["succeeded"] == harbor["steps_total"]


def test_the_exit_code_says_what_failed(root):
    context(root)
    path = root / "table.json"
    path.write_bytes(table(job("j", shell("s", "exit 1"))))
    for fail_on, code in (("never", 0), ("infrastructure", 1), ("any", 1)):
        done = program(root, "run", "-c", str(path), "--fail-on", fail_on, "-q", check=False)
        assert done.returncode == code, (fail_on, done.stderr)


@pytest.mark.namespaces
def test_a_reward_of_zero_is_a_result_and_only_any_minds_it(root):
    arguments = ("run", str(TASKS / "hello"), "-a", "nop", "-e", "sandbox", "-q")
    assert program(root, *arguments).returncode == 0
    assert program(root, *arguments, "--fail-on", "any", check=False).returncode == 1


@pytest.mark.namespaces
def test_inside_a_task_the_store_is_made_above_it_and_said_where(tmp_path):
    task = make_task(tmp_path / "suite")
    for here, path in ((task, "."), (task / "tests", "..")):
        shutil.rmtree(tmp_path / "suite" / "runs", ignore_errors=True)
        done = run_in(
            here, "validate", "-", stdin=json.dumps({"sweep": {"path": path, "agents": [{"name": "oracle"}]}})
        )
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "suite" / "runs").exists()
        done = run_in(here, "run", path, "-a", "nop", "-e", "sandbox", "-q", "--fail-on", "never")
        assert f"made a store in {tmp_path / 'suite' / 'runs'}" in done.stderr
        assert not list(task.rglob("runs"))


def test_a_store_inside_of_a_task_that_is_run_is_refused(tmp_path):
    task = make_task(tmp_path)
    (task / "task.toml").rename(tmp_path / "aside")
    ctx = context(task)  # a store that was there before it was a task's folder
    (tmp_path / "aside").rename(task / "task.toml")
    sweep = {"sweep": {"path": str(task), "agents": [{"name": "oracle"}], "environment": "sandbox"}}
    said = f"the store {task / 'runs'} lies inside the task {task}, and would change it; use a root outside of the task: --root DIR"
    done = program(task, "run", str(task), "-e", "sandbox", check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    (ctx.layout.incoming / "dropped.json").write_text(json.dumps(sweep))
    assert said in program(task, "tick").stderr


@pytest.mark.parametrize("command", [("run", ".", "-e", "sandbox"), ("init",), ("validate", "-"), ("tick",)])
@pytest.mark.parametrize("below", ["", "tests"])
def test_no_store_is_made_in_a_task(tmp_path, command, below):
    task = make_task(tmp_path)
    before = sorted(task.rglob("*"))
    done = run_in(task, *command, "--root", str(task / below), stdin="{}")
    said = f"the store {task / below / 'runs'} would lie inside the task {task}, and would change it; use a root outside of the task: --root DIR"
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(task.rglob("*")) == before


@pytest.mark.parametrize("count", ["-1", "0.5", "'many'"])
def test_a_limit_that_is_no_count_is_refused(tmp_path, count):
    (tmp_path / "parallelhassnes.toml").write_text(f'[limits]\n"agent:oracle" = {count}\n')
    done = run_in(tmp_path, "tick")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "limits.agent:oracle" in done.stderr
    assert not (tmp_path / "runs").exists()


def run_in(folder, *arguments, stdin=""):
    """The program as somebody types it there, without --root."""
    return warm.run([*arguments], env=environment(), cwd=folder, timeout=120, typed=stdin)


def test_without_docker_one_line_says_so_and_names_the_alternative(root):
    context(root)
    done = program(root, "run", str(TASKS / "hello"), env={"DOCKER_HOST": "unix:///nowhere"}, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Docker" in done.stderr
    assert "-e sandbox" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "no/such/task", "-e", "sandbox"), "no/such/task"),
        (
            ("run", "examples/tasks/hello", "-a", "orcale", "-e", "sandbox"),
            "-a orcale: unknown agent 'orcale'; did you mean 'oracle'?",
        ),
        (("run", "examples/tasks/hello", "-e", "sandbx"), "-e sandbx: unknown environment 'sandbx'; did you mean"),
        (("run", "-e", "sandbox"), "no task"),
        (("run", "examples/tasks/hello", "-m", "o3", "-e", "sandbox"), "-a terminus-2 -m o3"),
        (("run", "examples/tasks/hello", "-t", "x", "-e", "sandbox"), "no task is named x"),
        (("run", "examples/tasks/hello", "--limit", "x", "-e", "sandbox"), "KEY=N"),
        (("run", "examples/tasks/hello", "--limit", "x=" + "9" * 5000, "-e", "sandbox"), "KEY=N"),
        (("run", "examples/tasks/hello", "--fail-on", "x", "-e", "sandbox"), "never"),
        (("run", "examples/tasks/hello", "--ae", "x", "-e", "sandbox"), "NAME=VALUE"),
        (("run", "-c", "no/such/file", "-e", "sandbox"), "no/such/file"),
        (("run", "examples/tasks/hello", "-e", "sandbox", "--report", "no/such/x.html"), "no/such/x.html"),
        (("submit", "no/such/file"), "no/such/file"),
        (("show", "nothing"), "nothing"),
        (("logs", "nothing"), "nothing"),
        (("cancel", "nothing"), "nothing"),
        (("retry", "nothing"), "nothing"),
        (("scoreboard", "nothing"), "nothing"),
        (("export", "nothing", "--to", "x"), "nothing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(root, arguments, said):
    context(root)
    done = program(root, *arguments, check=False)
    assert done.returncode == 2, done
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_root_that_is_not_there_is_not_made_by_accident(root):
    done = program(root / "tpyo", "tick", check=False)
    assert done.returncode == 2
    assert not (root / "tpyo").exists()


def test_a_configuration_that_cannot_be_used_is_told_in_full(root):
    (root / "parallelhassnes.toml").write_text('concurrency = 0\nheartbeat_sec = "x"\nnonsense = 1\n')
    done = program(root, "tick", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    for word in ("concurrency", "heartbeat_sec", "nonsense"):
        assert word in done.stderr
    (root / "parallelhassnes.toml").write_text("concurrency = = 1")
    assert "TOML" in program(root, "tick", check=False).stderr


def test_a_fault_of_ours_is_one_line_that_names_the_log(root):
    context(root)
    shutil.rmtree(root / "runs" / "_system")
    (root / "runs" / "_system").write_text("not a folder")
    done = program(root, "tick", check=False)
    assert done.returncode in (2, 3)
    assert len(done.stderr.splitlines()) == 1


def test_init_overwrites_nothing(root):
    program(root, "init")
    config = root / "parallelhassnes.toml"
    assert "concurrency" in config.read_text()
    config.write_text("concurrency = 3\n")
    program(root, "init")
    assert config.read_text() == "concurrency = 3\n"
    assert (root / "runs").is_dir()
    assert (root / "runners").is_dir()


def test_run_ends_with_where_the_files_are_and_what_to_type_next(root):
    context(root)
    path = root / "table.json"
    path.write_bytes(table(job("j", shell("s", "exit 1"))))
    done = program(root, "run", "-c", str(path), "--fail-on", "never")
    last = done.stderr.splitlines()[-5:]
    assert [line.partition(":")[0] for line in last] == ["files", "a failure", "in browser", "report", "own task"]
    files = last[0].partition(":")[2].strip()
    assert (CHECKOUT / files / "ledger.jsonl").is_file()
    command = last[1].partition(":")[2].split()
    assert command[command.index("show") + 1].endswith("/j/s")
    assert command[-2] == "--root"
    assert (CHECKOUT / command[-1]).resolve() == root.resolve()
    assert program(root, "show", command[command.index("show") + 1]).returncode == 0


def test_a_models_server_that_is_down_is_told_before_and_after_a_run(root):
    context(root)
    path = root / "table.json"
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        path.write_bytes(table(job("j", shell("s", "exit 1", env={"OPENAI_BASE_URL": place}))))
        up = program(root, "run", "-c", str(path), "--fail-on", "never")
    assert "nothing answers" not in up.stderr
    down = program(root, "run", "-c", str(path), "--fail-on", "never")
    said = f"nothing answers at {place} (connection refused)"
    assert f"note: {said}: start the model's server" in down.stderr
    assert f"server down: {said}; start it, then " in down.stderr
    (line,) = (line for line in down.stderr.splitlines() if line.startswith("server down:"))
    assert " retry " in line


@pytest.mark.parametrize(
    "address",
    [
        "http://models.example.com/v1",  # a name is not looked up
        "http://8.8.8.8/v1",  # nor is somebody else's machine asked
        "http://[::1/v1",
        "http://127.0.0.1:99999/v1",
        "${OPENAI_BASE_URL}",
        "ftp://127.0.0.1/",
        7,
        None,
        ["http://127.0.0.1:9"],
    ],
)
def test_only_a_server_of_ones_own_is_asked_whether_it_is_there(root, monkeypatch, address):
    ctx = context(root)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was asked"))
    batch = ctx.layout.batch("b")
    batch.mkdir(parents=True)
    for text in (json.dumps({"api_base": address, "x": [{"base_url": address}]}), "{", ""):
        (batch / "launch_table.json").write_text(text)
        assert endpoints.silent(ctx.layout, "b") == []
    (batch / "launch_table.json").unlink()
    assert endpoints.silent(ctx.layout, "b") == []
