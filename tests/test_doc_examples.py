"""Every block of code in the documents is run, read by the parser that it is for, or says why not."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import buckets
import doc_blocks
import pytest
import warm
from doc_blocks import SHELL, WRITTEN, Example
from harbor.models.task.task import Task
from mcp import ClientSession, StdioServerParameters, stdio_client
from models import provider, say, serving
from stores import CHECKOUT, readers_place

from parallelhassnes.admin.init import init
from parallelhassnes.config import parse_config
from parallelhassnes.sandbox import environment as sandbox
from parallelhassnes.store.evidence.checkpoints import Checkpoint
from parallelhassnes.tables.expand import expand

RUN_BY = {
    "README.md": "tests/test_readme.py",
    "docs/ci.md": "tests/test_docs.py",
    "docs/cluster.md": "tests/hosts/test_cluster_page.py",
    "docs/http.md": "tests/api/test_http_page.py",
    "docs/start.md": "tests/test_docs.py",
    "docs/team.md": "tests/test_docs.py",
    "docs/unattended.md": "tests/test_docs.py",
}
"""Pages whose commands have a test of their own; those of every other run below."""
NOT_RUN = {
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "docs/compatibility.md": 2,
    "docs/hosts.md": 2,
    "docs/import.md": 1,
    "docs/upgrade.md": 1,
}
"""How many blocks of a page nothing runs; the page says why."""
EVERY = list(doc_blocks.every())
A_COMMAND = re.compile(
    r"^(?:\$ .*|(?:parallelhassnes|harbor|make|pip|git|docker|curl|ssh-keygen|openssl|python3?|zstd\w*|grep|export) [a-z-].*)$",
    re.MULTILINE,
)


def test_every_block_says_what_it_is():
    assert len(EVERY) > 150
    assert {each.language for each in EVERY} <= {*SHELL, *WRITTEN, "python", "text"}
    for each in EVERY:
        assert each.language != "text" or not A_COMMAND.search(each.text), f"{each.place}: a command is no text"
        assert each.language != "console" or each.script, f"{each.place}: nothing to type"


def test_few_blocks_are_not_run_and_each_says_why():
    marked = [each for each in EVERY if each.not_run is not None]
    assert {page: sum(each.page == page for each in marked) for page in {each.page for each in marked}} == NOT_RUN
    assert all(len((each.not_run or "").split()) > 3 for each in marked)
    marks = sum(len(re.findall("^<!-- not run", path.read_text(), re.MULTILINE)) for path in doc_blocks.PAGES)
    assert marks == len(marked), "a mark stands on the line before its block"


def test_pages_with_a_test_of_their_own_are_named_there():
    for page, test in RUN_BY.items():
        assert Path(page).name in (CHECKOUT / test).read_text(), page
    assert {each.page for each in EVERY if each.language == "python"} == {"docs/python.md"}
    assert "python.md" in (CHECKOUT / "tests" / "test_library.py").read_text()


TASK = {"path": "examples/tasks/hello"}
SWEEP = {**TASK, "agents": [{"name": "oracle"}]}


def _filled(document: Any, name: str = "") -> Any:
    """A table with what its ``"…": "…"`` leave out."""
    if not isinstance(document, dict):
        return document
    kept = {key: _filled(value, key) for key, value in document.items() if key != "…"}
    return {**SWEEP, **kept} if name == "sweep" and "…" in document else kept


def _table(each: Example, document: Any) -> None:
    if isinstance(document, dict) and not {"jobs", "sweep", "agents"} & set(document):  # a part of a table
        document = {"retry": document["retry"], "sweep": SWEEP} if "retry" in document else _trial(document)
    elif isinstance(document, dict):
        document = _filled(document)
    made = expand(json.dumps(document).encode(), name=f"{each.place}.json", base_dirs=[CHECKOUT])
    assert made.jobs
    assert not made.warnings


def _trial(part: Mapping[str, Any]) -> dict[str, Any]:
    step = {"step_id": "s", "kind": "trial", "task": TASK, "agent": {"name": "oracle"}, **part}
    return {"jobs": [{"job_id": "j", "steps": [step]}]}


def _client(document: Mapping[str, Any], root: Path) -> None:
    """A coding agent's configuration starts our server, which answers it."""
    ((_, server),) = document["mcpServers"].items()
    assert server["command"] == "parallelhassnes"
    words = [str(root) if word == "/srv/evals" else word for word in server["args"]]
    assert str(root) in words
    command = ["-m", "parallelhassnes", *words]
    init(root)
    started = StdioServerParameters(
        command=sys.executable, args=command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )

    async def ask() -> set[str]:
        async with stdio_client(started) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
            await session.initialize()
            return {tool.name for tool in (await session.list_tools()).tools}

    assert "batch_status" in anyio.run(ask)


@pytest.mark.parametrize("each", [x for x in EVERY if x.language in ("json", "yaml")], ids=lambda each: each.place)
def test_documents_are_what_their_parser_takes(each: Example, tmp_path: Path) -> None:
    if each.language == "yaml":
        made = expand(each.text.encode(), name=f"{each.place}.yaml", base_dirs=[CHECKOUT])
        assert made.jobs
        assert not made.warnings
        return
    document = json.loads(each.text)
    if "mcpServers" in document:
        _client(document, tmp_path)
    elif "store_id" in document:
        Checkpoint.model_validate(document)
    elif "not_isolated" in document:
        assert set(document) <= set(sandbox.SandboxRecord.model_fields)  # a part of it
    else:
        _table(each, document)


@pytest.mark.parametrize("each", [x for x in EVERY if x.language == "toml"], ids=lambda each: each.place)
def test_settings_are_what_their_parser_takes(each: Example, tmp_path: Path) -> None:
    if "metadata" in tomllib.loads(each.text):  # of a task
        task = shutil.copytree(CHECKOUT / TASK["path"], tmp_path / "task")
        settings = (task / "task.toml").read_text()
        assert "\n[metadata]\n" in settings
        (task / "task.toml").write_text(settings.replace("[metadata]\n", each.text))
        assert sandbox._of_task(Task(task).paths.environment_dir) == "clean"
        return
    config = parse_config(each.text.encode(), tmp_path / "parallelhassnes.toml")
    assert config != parse_config(b"", tmp_path / "parallelhassnes.toml")


@pytest.mark.nginx
@pytest.mark.parametrize("each", [x for x in EVERY if x.language == "nginx"], ids=lambda each: each.place)
def test_nginx_takes_it(each: Example, tmp_path: Path) -> None:
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    server = f"server {{ listen 127.0.0.1:{port}; {each.text} }}"
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{ }} http {{ access_log off; {paths} {server} }}"
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-t", "-p", str(tmp_path), "-e", f"{tmp_path}/log", "-c", "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


DONE = json.dumps(
    {
        "analysis": "The file is to be written.",
        "plan": "Write it.",
        "commands": [{"keystrokes": "echo 'Hello, world!' > /app/hello.txt\n", "duration": 0.1}],
        "task_complete": True,
    }
)


class Reader(NamedTuple):
    """Who types what pages say, in one folder with one store, beside a model's server and a server of buckets."""

    place: Path
    env: dict[str, str]

    def type(self, script: str) -> str:
        """Run a script, line by line where each line is one of ours; what it printed."""
        said = ""
        lines = [re.sub(r" {2,}# .*", "", line) for line in script.splitlines()]
        whole = any(line.startswith(("export ", ". ")) or "=$(" in line for line in lines)
        for line in [script] if whole else lines:
            if re.fullmatch(r"parallelhassnes [^|&;<>$()*?`~#]+", line):
                done = warm.run(shlex.split(line)[1:], env=self.env, cwd=self.place, timeout=100)
            else:
                argv = ["bash", "-ec", line]
                done = subprocess.run(argv, cwd=self.place, env=self.env, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr, line
            said += done.stdout
        return said

    def page(self, name: str, change: Callable[[str], str] = lambda script: script, *, language: str = "") -> None:
        """Type every block of a page."""
        blocks = [each for each in doc_blocks.of_page(name) if each.not_run is None and each.language in SHELL]
        blocks = [each for each in blocks if language in ("", each.language)]
        assert blocks, name
        for each in blocks:
            self.type(change(each.script))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    place, env = readers_place(folder)
    (place / "path" / "to").mkdir(parents=True)
    for task in ("tasks/greet", "tasks-with-mended-tests/greet", "path/to/your-task"):
        shutil.copytree(CHECKOUT / TASK["path"], place / task)
    (place / "parallelhassnes.toml").write_text(
        'environment = "sandbox"\nsecrets = ["OPENAI_API_KEY", "OPENAI_BASE_URL"]\n'
    )
    (folder / "buckets").mkdir()
    with serving(folder / "model", say(DONE)) as model, buckets.serving(folder / "buckets") as server:
        keys = {name: value for name, value in provider(model.url).items() if name.startswith("OPENAI")}
        yield Reader(place, env | keys | server.env | {"ARCHIVE": server.make_bucket("evals")})


def newest(reader: Reader) -> str:
    """The id of the batch that was made last."""
    return str(json.loads(reader.type("parallelhassnes status latest --json"))["batch_id"])


def of_a_batch(reader: Reader) -> Callable[[str], str]:
    """Changes of a script: the page's batch is the newest here."""
    batch = newest(reader)
    return lambda script: re.sub(r"\b\d{8}T\d{6}Z-[a-z0-9]{8}\b", batch, script)


def analyses(reader: Reader) -> None:
    reader.page("docs/analyses.md")


def results(reader: Reader) -> None:
    both = "parallelhassnes run examples/tasks/hello examples/tasks/leap-years -a oracle -a nop -e sandbox"
    reader.type(f"{both} --experiment nightly")
    runs = [each for each in doc_blocks.of_page("docs/results.md") if " run tasks/" in each.text]
    assert len(runs) == 2
    reader.page("docs/results.md", lambda script: "" if " run tasks/" in script else script)
    for each in runs:
        first, _, more = each.script.partition("\n")
        reader.type(first.replace("terminus-2 -m openai/gpt-5.2", "oracle"))  # a model is asked below
        while more:  # each line of the page names the batch that the one before has made
            line, _, more = more.partition("\n")
            reader.type(of_a_batch(reader)(line))


def files(reader: Reader) -> None:
    reader.type("parallelhassnes run examples/tasks/hello -a oracle\nparallelhassnes pack latest")
    batch = newest(reader)
    (seals,) = (reader.place / "runs" / batch).glob("packed.seals.jsonl")
    attempt = str(json.loads(seals.read_text().splitlines()[0])["attempt"])
    job, _, step, _, name = attempt.split("/")
    words = {"BATCH": batch, "JOB": job, "STEP": step, "ATTEMPT": name}
    reader.page("docs/files.md", lambda script: re.sub(r"\b[A-Z]{3,}\b", lambda found: words[found[0]], script))


def audit(reader: Reader) -> None:
    key = reader.place / "checkpoint_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (reader.place / "allowed_signers").write_text(f"ann {key.with_suffix('.pub').read_text()}")
    (signing,) = (each for each in doc_blocks.of_page("docs/audit.md") if "checkpoint_key" in each.text)
    with (reader.place / "parallelhassnes.toml").open("a") as settings:
        settings.write(signing.text.replace("/etc/parallelhassnes/checkpoint_key", str(key)))
        settings.write(f'\nsend_to = "{reader.env["ARCHIVE"]}"\n')
    reader.type("parallelhassnes run examples/tasks/hello -a oracle\nparallelhassnes audit checkpoint --full")
    made = reader.place / "runs" / "_system" / "checkpoints"
    number = max(int(path.stem) for path in made.glob("[0-9]*.json"))
    shutil.copytree(made, reader.place / "kept")
    for path in made.glob(f"{number}.json*"):
        shutil.copy(path, reader.place / path.name.replace(str(number), "12", 1))

    def change(script: str) -> str:
        proof = reader.place / "proof.json"
        if "HEX" in script:
            script = script.replace(
                "HEX", hashlib.sha256(json.loads(proof.read_text())["checkpoint"].encode()).hexdigest()
            )
        script = script.replace("s3://anchors/evals", reader.env["ARCHIVE"])
        return script.replace("kept/12.json", f"kept/{number}.json")

    reader.page("docs/audit.md", change)


def archive(reader: Reader) -> None:
    reader.type("parallelhassnes run examples/tasks/hello -a oracle")
    reader.page("docs/archive.md", lambda script: script.replace("s3://my-bucket/evals", reader.env["ARCHIVE"]))


def imports(reader: Reader) -> None:
    reader.type("parallelhassnes run examples/tasks/hello -a oracle")
    reader.type("parallelhassnes export latest --to jobs")  # as Harbor writes a job
    reader.page("docs/import.md", lambda script: of_a_batch(reader)(script) if " compare " in script else script)


def start(reader: Reader) -> None:
    reader.page("docs/start.md", language="sh")


def readme(reader: Reader) -> None:
    (reader.place / ".venv" / "bin").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", reader.place / ".venv"], check=True)
    reader.page("README.md", language="sh")


TYPED = {
    "analyses": analyses,
    "results": results,
    "audit": audit,
    "archive": archive,
    "import": imports,
    "files": files,
    "start": start,
    "README": readme,
}


@pytest.mark.namespaces
@pytest.mark.seaweedfs
@pytest.mark.programs("zstdgrep", "ssh-keygen", "tmux")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", TYPED)
def test_what_a_page_says_is_typed(reader: Reader, page: str) -> None:
    TYPED[page](reader)


@pytest.mark.docker
@pytest.mark.timeout(200)
def test_a_line_of_harbor_is_typed(reader: Reader) -> None:
    reader.page("docs/compatibility.md")


def test_every_page_with_commands_is_typed() -> None:
    pages = {each.page for each in EVERY if each.language in SHELL and each.not_run is None}
    assert pages - set(RUN_BY) == {f"docs/{name}.md" for name in {*TYPED, "compatibility"} - {"start", "README"}}
    assert {each.page for each in EVERY if each.language == "sh" and each.page in RUN_BY and each.not_run is None} == {
        "README.md",
        "docs/cluster.md",
        "docs/start.md",
    }
