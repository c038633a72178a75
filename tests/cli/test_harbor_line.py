"""``harbor run``: the same line means the same job, and runs here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import make_task
from stores import program
from typer.testing import CliRunner

from parallelhassnes.cli.harbor import _own
from parallelhassnes.errors import UserError
from parallelhassnes.tables.formats import harbor_line
from parallelhassnes.tables.formats.harbor_line import read

pytestmark = pytest.mark.harbor
TASKS = Path(__file__).parents[2] / "examples" / "tasks"
SANDBOX = "parallelhassnes.sandbox.environment:SandboxEnvironment"
LINES = (
    ["-p", str(TASKS), "-a", "oracle", "-k", "2", "-n", "3", "-e", "docker"],
    ["-p", str(TASKS), "-a", "nop", "-i", "hel*", "-i", "slow", "-x", "slow", "-l", "1", "--ek", "auto_mounting=true"],
    ["-p", str(TASKS / "hello"), "-a", "terminus-2", "-m", "openai/a", "-m", "openai/b", "--ak", "max_turns=3"],
    ["-d", "some-set@1.0", "-a", "codex", "-m", "openai/a", "--ae", "X=1", "--ve", "Y=2", "--timeout-multiplier", "2"],
    ["-t", "org/task@latest", "-a", "oracle", "-r", "2", "--retry-include", "ApiError", "--job-name", "mine"],
    ["-p", str(TASKS), "-a", "my.module:Agent", "-e", SANDBOX, "--cpus", "limit", "--disable-verification", "--debug"],
    [
        "-p",
        str(TASKS),
        "--mounts",
        '[{"type": "bind", "source": "/data", "target": "/data"}]',
        "--artifact",
        "/app/out",
        "--extra-instruction",
        "Be brief.",
    ],
)


def harbors_own(line: list[str]) -> dict:
    """The job that Harbor's program makes of the line."""
    from harbor.cli.main import app

    done = CliRunner().invoke(app, ["run", *line, "--print-config"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def job(document: dict) -> dict:
    """A job with every default in it, so that two ways to write one are equal."""
    from harbor.models.job.config import JobConfig

    named = {"job_name": "one", **{key: value for key, value in document.items() if key != "secrets"}}
    return json.loads(JobConfig.model_validate(named).model_dump_json())


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(each for each in line if len(each) < 20))
def test_the_line_makes_the_job_that_harbor_makes_of_it(line: list[str]) -> None:
    found = read(line, _own, "harbor run")
    theirs = harbors_own(line)
    if "--job-name" not in line:
        theirs.pop("job_name", None)
    assert job(found.document) == job(theirs)


def test_it_runs_waits_and_ends_as_run_does_with_the_root_anywhere(root: Path) -> None:
    task = make_task(root / "tasks")
    line = ["-p", str(task), "--root", str(root), "-a", "oracle", "-k", "2", "-e", SANDBOX, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", "harbor", "run", *line], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "2 trials = 1 task × 1 agent × 2; at most 4 at once" in done.stderr
    (meta,) = (json.loads(path.read_text()) for path in (root / "runs").glob("*/batch_meta.json"))
    assert (meta["table_format"], meta["concurrency"]) == ("harbor-job", 4)
    assert {"batch_id", "exit_code"} <= {*json.loads(done.stdout)}


def test_a_dry_run_leaves_nothing_and_detach_returns_at_once(root: Path) -> None:
    wait = "until test -e /logs/agent/go; do sleep 0.05; done; echo 1 > /logs/verifier/reward.txt"
    task = make_task(root / "tasks", test=wait)
    line = ["harbor", "run", "-p", str(task), "-e", SANDBOX, "-a", "oracle", "-a", "nop"]
    assert program(root, *line, "--dry-run").stdout == "1 trial = 1 task × 1 agent; at most 4 at once\n"
    assert not list((root / "runs").glob("2*"))
    batch = program(root, *line, "--detach").stdout.strip()
    state = json.loads(program(root, "scoreboard", batch, "--json").stdout)
    assert state["counts"]["succeeded"] == 0
    (go,) = (path / "agent" / "go" for path in (root / "runs").glob("*/*/steps/*/attempts/*/trial"))
    go.touch()
    program(root, "tick", "--until-idle", "-q")
    assert json.loads(program(root, "scoreboard", batch, "--json").stdout)["counts"]["succeeded"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--launch"], "--launch cannot be done here; start it on Harbor's Hub"),
        (["--upload"], "--upload cannot be done here; run it, then parallelhassnes export"),
        (["-o", "jobs"], "-o cannot be done here; everything lies under runs/"),
        (["--diff", "jobs/one"], "--diff cannot be done here; run it, then parallelhassnes compare"),
        (["--print-config"], "--print-config cannot be done here; harbor run prints it"),
    ],
)
def test_what_cannot_hold_is_refused_in_one_line(root: Path, options: list[str], said: str) -> None:
    done = program(root, "harbor", "run", "-p", str(TASKS), *options, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not list((root / "runs").glob("2*"))


def test_every_refused_option_is_one_of_the_installed_harbors_or_of_another_version() -> None:
    import inspect

    from harbor.cli import jobs

    there = inspect.signature(jobs.build_job_config).parameters
    assert {*harbor_line.INSTEAD} - {*there} <= {"server", "watch"}


def test_what_harbor_refuses_is_refused(root: Path) -> None:
    done = program(root, "harbor", "run", "-p", str(TASKS), "--nonsense", check=False)
    assert done.returncode == 2
    assert "--nonsense: there is no such option" in done.stderr
    with pytest.raises(UserError, match="harbor run refuses this line"):
        read(["-p", str(TASKS), "--mounts", '["/data"]'], _own, "harbor run")


def test_keys_go_by_their_names(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-nobody")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    line = ["-p", str(TASKS), "-a", "codex", "-m", "openai/gpt-5", "--ae", "OPENAI_API_KEY=a-secret-of-nobody"]
    found = read(line, _own, "harbor run")
    assert "a-secret-of-nobody" not in json.dumps(found.document)
    assert found.document["agents"][0]["env"] == {"OPENAI_API_KEY": "${OPENAI_API_KEY}"}
    assert {"OPENAI_API_KEY", "OPENAI_BASE_URL"} <= {*found.document["secrets"]}
    said = program(root, "harbor", "run", *line, "-e", "docker", "--dry-run").stdout
    assert "keys needed: OPENAI_API_KEY, OPENAI_BASE_URL;" in said
    # A value that is only on the line would be kept in the store.
    line[-1] = "OPENAI_API_KEY=another"
    refused = program(root, "harbor", "run", *line, "-e", "docker", "--dry-run", check=False)
    assert refused.returncode == 2
    assert "a secret is written into the table" in refused.stderr
    assert "another" not in refused.stderr


def test_an_env_file_is_read(root: Path) -> None:
    (root / "keys.env").write_text("OPENAI_API_KEY=of-the-file\n")
    for words in (
        ["harbor", "run", "-p", str(TASKS / "hello"), "-a", "codex", "-m", "openai/gpt-5", "-e", "docker"],
        [
            "run",
            str(TASKS / "hello"),
            "-a",
            "codex",
            "-m",
            "openai/gpt-5",
            "-e",
            "docker",
            "--secret",
            "OPENAI_API_KEY",
        ],
    ):
        said = program(root, *words, "--env-file", str(root / "keys.env"), "--dry-run").stdout
        assert said == "1 trial = 1 task × 1 agent; keys needed: OPENAI_API_KEY; " + said.rpartition("; ")[2]
    assert os.environ.get("OPENAI_API_KEY") is None


def test_n_and_k_mean_what_harbor_means_by_them(root: Path) -> None:
    words = ["run", str(TASKS / "hello"), "-a", "oracle", "-e", "sandbox", "--dry-run"]
    assert program(root, *words, "-k", "3", "-n", "2").stdout == "3 trials = 1 task × 1 agent × 3; at most 2 at once\n"
    done = program(root, *words, "-n", "2")
    assert done.stdout == "1 trial = 1 task × 1 agent; at most 2 at once\n"
    assert "note: -n 2 is how many run at once, as in Harbor; trials per task are -k" in done.stderr
    refused = program(root, "append", "latest", "-n", "2", check=False)
    assert refused.returncode == 2
    assert "write -k 2" in refused.stderr


def test_validate_says_what_tasks_a_dataset_and_a_sweep_would_run(root: Path) -> None:
    (root / "sweep.yaml").write_text(f"path: {TASKS}/hello\nagents: [{{name: oracle, n_trials: 2}}, {{name: nop}}]\n")
    assert "3 trials of 1 task and 2 agents; at most" in program(root, "validate", str(root / "sweep.yaml")).stdout
    assert "1 trial = 1 task × 1 agent; at most" in program(root, "validate", str(TASKS / "hello")).stdout
    refused = program(root, "validate", str(root / "nothing.json"), check=False)
    assert refused.returncode == 2
    assert "nothing.json: No such file" in refused.stderr


@pytest.mark.namespaces
def test_options_of_harbor_reach_the_trial_of_a_run(root: Path) -> None:
    task = make_task(root / "tasks", test='[ "$GRADE" = 7 ]; echo $((!$?)) >/logs/verifier/reward.txt')
    words = ["run", str(task), "-a", "oracle", "-e", "sandbox", "--ek", "network=none", "--ve", "GRADE=7", "-q"]
    program(root, *words, "--job-name", "mine")
    (final,) = (json.loads(p.read_text()) for p in (root / "runs").glob("*/*/steps/oracle.1/attempts/*/final.json"))
    assert (final["trial"]["reward"], final["trial"]["sandbox"]["network"]) == (1.0, "none")
