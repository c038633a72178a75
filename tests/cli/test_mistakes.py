"""What newcomers type wrong, over the whole command line: a line per mistake says what, where as it was typed, and what to do.

Each is tried in a fresh folder or in a store with one batch, exits 2 and leaves nothing behind.
"""

import getpass
import json
import os
import socket
import stat
from pathlib import Path

import pytest
import stores
import warm

HELLO = "examples/tasks/hello"
TABLES = {
    "two.json": {"sweep": {"path": HELLO, "agents": [{"name": "orcale"}], "n_taks": 2, "environment": "sandbox"}},
    "kinds.json": {
        "jobs": [
            {"job_id": "a", "steps": [{"step_id": "s", "kind": "comand", "command": ["true"]}]},
            {"job_id": "b", "steps": []},
        ]
    },
    "agent.json": {
        "jobs": [{"job_id": "a", "steps": [{"step_id": "s", "kind": "agent", "agent": "codx", "prompt": "x"}]}]
    },
    "waits.json": {
        "jobs": [
            {"job_id": "a", "steps": [{"step_id": "s", "kind": "command", "command": ["true"], "depends_on": ["t"]}]}
        ]
    },
}
BEFORE_A_STORE = {
    "run nosuch -e sandbox": ["run nosuch: does not exist; looked in {here}; correct the path"],
    "run nosuch -e sandbox --root new": ["run nosuch: does not exist; looked in {here}, {here}/new; correct the path"],
    "run -e sandbox": ["no task was named; give a path, -d DATASET or -c FILE"],
    "run empty -e sandbox": [
        "run empty: {here}/empty holds no task; a task folder has task.toml, instruction.md, environment/, tests/"
    ],
    "run empty/file -e sandbox": [
        "run empty/file: {here}/empty/file is not a folder; name a task folder or a folder of tasks"
    ],
    f"run {HELLO} -a orcale -e sandbox": ["-a orcale: unknown agent 'orcale'; did you mean 'oracle'?"],
    f"run {HELLO} -a orcale -e sandbx": [
        "-e sandbx: unknown environment 'sandbx'; did you mean 'sandbox'?",
        "-a orcale: unknown agent 'orcale'; did you mean 'oracle'?",
    ],
    f"run {HELLO} -m gpt-5 -e sandbox": [
        "-m gpt-5: no agent is named that would use it; name one, for example -a terminus-2 -m gpt-5"
    ],
    f"run {HELLO} -a terminus-2 -e sandbox": [
        "run: terminus-2 is given no model, and needs one; add -m openai/gpt-5.2"
    ],
    "run examples/tasks -a terminus-2 -m openai/gpt-5.2 -e sandbox": [
        "run: terminus-2 with openai/gpt-5.2 is given no key: OPENAI_API_KEY is not passed on; add --secret OPENAI_API_KEY"
    ],
    f"run {HELLO} -a terminus-2 -m openai/gpt-5.2 --secret OPENAI_API_KEY -e sandbox": [
        "--secret OPENAI_API_KEY: is not set here; type `export OPENAI_API_KEY=...` first, or name a file that has it: --env-file FILE"
    ],
    f"run {HELLO} -t hullo -e sandbox": ["-t hullo: no task is named hullo; there are for example hello"],
    f"run {HELLO} -k 0 -e sandbox": ["run -k 0: must be 1 or more; see `parallelhassnes run --help`"],
    f"run {HELLO} -n 0 -e sandbox": ["run -n 0: must be 1 or more; see `parallelhassnes run --help`"],
    f"run {HELLO} -nx -e sandbox": ["run -nx: is no whole number; see `parallelhassnes run --help`"],
    f"run {HELLO} -e": ["run: option '-e' requires an argument; see `parallelhassnes run --help`"],
    f"run {HELLO} --agnt oracle": ["run --agnt: there is no such option; did you mean --agent?"],
    f"run {HELLO} -e sandbox --limit openai": ["--limit openai: is not KEY=N; write --limit openai/gpt-5.2=3"],
    f"run {HELLO} -e sandbox --pass reward>>1": [
        "--pass reward>>1: is no rule; write --pass 'NAME>=0.5', --pass NAME or --pass '>=0.5'"
    ],
    f"run {HELLO} -e sandbox --ae FOO": ["--ae FOO: is not NAME=VALUE; write --ae NAME=VALUE"],
    f"run {HELLO} -e sandbox --env-file none": [
        "--env-file none: there is no such file; name one with lines NAME=VALUE"
    ],
    f"run {HELLO} -e sandbox --fail-on sometimes": [
        "--fail-on sometimes: is not known; use never, infrastructure or any"
    ],
    f"run {HELLO} -e sandbox --report x.pdf": [
        "--report x.pdf: is neither HTML nor Markdown; end its name with .html or .md"
    ],
    f"run {HELLO} -e sandbox --report no/x.html": ["--report no/x.html: its folder is not there; make it first"],
    f"run {HELLO} -e sandbox --analyze-with chatgpt": [
        "--analyze-with chatgpt: must be 'rules', 'codex', 'claude', 'api' or 'harbor'"
    ],
    "run -c none.json -e sandbox": ["none.json: No such file or directory; name a table file"],
    "run -c two.json": [
        "two.json /sweep/n_taks: unknown key 'n_taks'; did you mean 'n_tasks'?",
        "two.json /sweep/agents/0/name: unknown agent 'orcale'; did you mean 'oracle'?",
    ],
    "run -c kinds.json": [
        "kinds.json /jobs/0/steps/0/kind: must be 'command', 'trial', 'verdict', 'agent' or 'analysis'",
        "kinds.json /jobs/1/steps: must be an array of at least one step; write the job's steps",
    ],
    "run -c agent.json": ["agent.json /jobs/0/steps/0/agent: unknown agent 'codx'; did you mean 'codex'?"],
    "validate waits.json": [
        "waits.json /jobs/0/steps/0/depends_on/0: step s depends on 't', which does not exist; name a step, or job_id/step_id"
    ],
    "validate cut.json": ["cut.json line 2: is not JSON: Expecting value (column 1); correct it there"],
    "harbor run -p nosuch": ["-p nosuch: does not exist; looked in {here}; correct the path"],
    f"harbor run -p {HELLO} -a orcale": ["-a orcale: unknown agent 'orcale'; did you mean 'oracle'?"],
    f"run {HELLO} -a terminus-2 -m openai/gpt-5 --env-file short.env --secret SHORT -e sandbox": [
        "--secret: SHORT: its value has fewer than 8 characters; taking it out of files would damage results; give it a value of its own that is longer and no word, or take it out of secrets and write it in env, if it is no secret"
    ],
    "import nosuch": ["nosuch is not there; name a Harbor job folder, or a folder of them such as jobs/"],
    "scorebord": ["scorebord: there is no such command; did you mean scoreboard?"],
    "submit two.json": [
        "there is no store in {here}; mount or move it back, if it has one, or make one with `parallelhassnes init --root {here}`"
    ],
}
IN_A_STORE = {
    f"submit {HELLO}": [
        f"{HELLO}: is a folder, not a table; run its tasks with `parallelhassnes run {HELLO}`, or name a file"
    ],
    "show nosuch": ["the store has no batch nosuch; there is {batch}"],
    "logs latest/jj": ["{batch} has no job jj; did you mean j?"],
    "tail latest/j/s/9": ["{batch}/j/s has no attempt 9; its attempts are 1 to 1"],
    "cancel": [
        "cancel: ID is missing (a batch, BATCH/JOB, BATCH/JOB/STEP or an attempt); for example: parallelhassnes cancel latest"
    ],
    "priority latest x": ["priority N: is no whole number; see `parallelhassnes priority --help`"],
    "limit openai": ["openai: is not KEY=N; write openai/gpt-5.2=3, or openai/gpt-5.2="],
    "budget latest --raise much": ["budget --raise much: is no number; see `parallelhassnes budget --help`"],
    "rerun latest": ["rerun runs again --failed, --missing or --all; give one of the three"],
    "compare latest": [
        "compare: SIDE is missing (BATCH, experiment:NAME or label:NAME=VALUE, and perhaps @AGENT[,MODEL][,NAME=VALUE…]); for example: parallelhassnes compare latest@oracle latest@nop"
    ],
    "results --by agnt": ["--by agnt: is not known; did you mean agent?"],
    "results --format xml": ["--format xml: is not known; use table, json, csv, parquet, markdown"],
    "api --auth everyone": ["--auth everyone: is not known; use user, token or none"],
    "audit verfy": ["audit verfy: there is no such command; did you mean verify?"],
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder as a newcomer has one: the examples, a few tables, nothing else."""
    folder = tmp_path / "here"
    (folder / "empty").mkdir(parents=True)
    (folder / "empty" / "file").write_text("x")
    (folder / "examples").symlink_to(stores.CHECKOUT / "examples")
    for name, document in TABLES.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "short.env").write_text("SHORT=abc\n")
    (folder / "cut.json").write_text('{"jobs": [\n')
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with a batch that is over, and the batch's id."""
    root = tmp_path_factory.mktemp("store")
    (root / "examples").symlink_to(stores.CHECKOUT / "examples")
    ctx = stores.context(root)
    batch_id = stores.put(ctx, stores.table(stores.job("j", stores.command("s", "true"))))
    stores.program(root, "tick", "--until-idle", "-q")
    return root, batch_id


def refused(line: str, cwd: Path, said: list[str], **env: str) -> None:
    done = warm.run(line.split(" "), env=stores.environment(env), cwd=cwd, timeout=100)
    assert done.stderr.splitlines() == said
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("line", BEFORE_A_STORE)
def test_a_mistake_in_a_fresh_folder_is_told_and_makes_nothing(here: Path, line: str) -> None:
    before = sorted(here.rglob("*"))
    refused(line, here, [text.format(here=here) for text in BEFORE_A_STORE[line]])
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("line", IN_A_STORE)
def test_a_mistake_in_a_store_is_told_and_changes_nothing(store: tuple[Path, str], line: str) -> None:
    root, batch_id = store
    ledger = root / "runs" / batch_id / "ledger.jsonl"
    before = ledger.read_bytes()
    refused(line, root, [text.format(batch=batch_id, here=root) for text in IN_A_STORE[line]])
    assert ledger.read_bytes() == before


def test_a_docker_engine_that_is_not_there_and_one_that_refuses_are_told_apart(here: Path) -> None:
    if stores.program(here, "doctor", check=False).stdout.find("there is no docker program") >= 0:
        pytest.skip("no docker program is installed here")
    line = f"run {HELLO}"
    start = (
        "these trials run in Docker: the Docker engine does not answer; start it; or run them without it: -e sandbox"
    )
    refused(line, here, [start], DOCKER_HOST="unix:///nowhere")
    program = here / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'permission denied while trying to connect to the Docker daemon socket' >&2\nexit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    who = getpass.getuser()
    right = f"these trials run in Docker: {who} may not use the Docker engine's socket; have root type `usermod -aG docker {who}`, and log in anew; or run them without it: -e sandbox"
    refused(line, here, [right], PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("dataset", ["hello-world", "terminal-bench@2.0", "someone/something"])
def test_a_dataset_that_cannot_be_reached_is_told_with_the_cause(here: Path, dataset: str) -> None:
    with socket.socket() as taken:  # bound and not listening: whoever calls is refused
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        env = stores.environment(
            {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": "", "HOME": str(here)}
        )
        done = warm.run(["run", "-d", dataset, "-e", "sandbox"], env=env, cwd=here, timeout=100)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert said.startswith(f"-d {dataset}: the registry could not be reached: ")
    assert said.endswith("; check the network, or use a local path")
