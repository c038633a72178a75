"""What people type without reading: names of batches, the newest by default, several ids, ``help``, ``view``, completion."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import stores

from parallelhassnes.schedule.context import Context
from parallelhassnes.views.batch_summary import name_of

COMPLETE = "import sys; from parallelhassnes.cli.app import app; app(prog_name='parallelhassnes')"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, list[str]]:
    """A store with two batches, oldest first."""
    ctx = stores.context(tmp_path_factory.mktemp("store"))
    tables = (
        stores.table(stores.job("first", stores.command("a", "true"), stores.command("b", "true"))),
        stores.table(stores.job("one", stores.command("c", "true")), stores.job("two", stores.command("c", "true"))),
    )
    made = [stores.put(ctx, table) for table in tables]
    stores.program(ctx.layout.root, "tick", "--until-idle", "-q")
    return ctx, made


def test_a_batch_is_called_by_what_runs_in_it_with_whom(tmp_path: Path) -> None:
    task = tmp_path / "parallelhassnes-hello"
    task.mkdir()
    (task / "job.json").write_text('{"labels": {"task": "parallelhassnes/hello"}}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "job.json").write_text("{")
    for jobs, agents, said in (
        (["parallelhassnes-hello"], ["oracle", "nop"], "hello × oracle, nop"),
        (
            ["parallelhassnes-hello", "broken", "gone"],
            ["codex · openai/gpt-5"],
            "hello, broken, gone × codex · openai/gpt-5",
        ),
        (list("abcd"), list("vwxyz"), "4 tasks × 5 agents"),
        (["gone"], [], "gone"),
        (list("abcd"), [], "4 jobs"),
        ([], [], "0 jobs"),
    ):
        assert name_of(tmp_path, {"job_ids": jobs}, agents) == said
    assert name_of(tmp_path, {"job_ids": ["a"], "experiment": "nightly"}, ["nop"]) == "nightly"


def test_names_stand_where_batches_are_listed(store: tuple[Context, list[str]]) -> None:
    ctx, (old, new) = store
    root = ctx.layout.root
    first, second = stores.program(root, "ls").stdout.splitlines()
    assert (first.split()[0], first.endswith("  one, two")) == (new, True)
    assert (second.split()[0], second.endswith("  first")) == (old, True)
    assert re.search(rf"^{new} .* one, two$", stores.program(root, "status").stdout, re.MULTILINE)
    assert stores.program(root, "status", old).stdout.startswith(f"{old} done  first\n")


@pytest.mark.parametrize(
    "command", ["show", "logs", "explain", "tail", "artifact", "diff", "open", "feedback", "analyses", "report"]
)
def test_what_only_looks_takes_the_newest_batch(store: tuple[Context, list[str]], command: str) -> None:
    ctx, (_, new) = store
    more = ("--markdown",) if command == "report" else ()
    bare = stores.program(ctx.layout.root, command, *more)
    named = stores.program(ctx.layout.root, command, new, *more)
    same = re.compile(r"started \S+ ago|T[\d:.]+Z</sub>")
    assert same.sub("", bare.stdout + bare.stderr) == same.sub("", named.stdout + named.stderr)


@pytest.mark.parametrize("command", ["cancel", "retry", "pause", "resume", "close", "reopen", "approve", "rerun"])
def test_what_changes_something_asks_whose(store: tuple[Context, list[str]], command: str) -> None:
    done = stores.program(store[0].layout.root, command, check=False)
    assert (done.returncode, " is missing (" in done.stderr) == (2, True), done.stderr


def test_several_ids_are_taken_in_turn_and_none_where_one_is_unknown(store: tuple[Context, list[str]]) -> None:
    ctx, (old, new) = store
    root = ctx.layout.root
    done = stores.program(root, "cancel", new, old)
    assert done.stdout.splitlines() == [f"nothing to cancel: {each} is over" for each in (new, old)]
    before = stores.program(root, "close", new, "nosuch", check=False)
    assert (before.returncode, before.stdout) == (2, "")
    assert not (ctx.layout.batch(new) / "control.json").exists()
    shown = stores.program(root, "show", f"{old}/first/a", f"{new}/one").stdout
    assert shown.index(f"{old}/first/a") < shown.index(f"{new}/one")
    refused = stores.program(root, "show", old, new, "--json", check=False)
    assert (refused.returncode, refused.stderr) == (2, "--json prints one document; name one id\n")


def test_help_is_a_command_and_no_list_of_commands_is_cut(tmp_path: Path) -> None:
    def printed(*words: str) -> str:
        return stores.warm.run([*words], env=stores.environment(), cwd=tmp_path, timeout=60).stdout

    assert printed("help") == printed("--help")
    assert printed("help", "run") == printed("run", "--help")
    assert printed("help", "audit", "verify") == printed("audit", "verify", "--help")
    for words in ((), ("harbor",), ("audit",), ("token",), ("pilot",)):
        assert "..." not in printed(*words, "--help").partition("Commands:")[2] + printed("--help").partition("Run:")[2]


def completed(root: Path, line: str) -> list[str]:
    asked = {"_PARALLELHASSNES_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    program = [sys.executable, "-c", COMPLETE]
    return subprocess.run(
        program, capture_output=True, text=True, env=stores.environment(asked), cwd=root
    ).stdout.split()


def test_a_shell_completes_batches_jobs_and_steps(store: tuple[Context, list[str]], tmp_path: Path) -> None:
    ctx, (old, new) = store
    root = ctx.layout.root
    assert completed(root, "parallelhassnes cancel ") == ["latest", new, old]
    assert completed(root, "parallelhassnes show latest/t") == ["latest/two"]
    assert completed(root, f"parallelhassnes logs {old}/first/") == [f"{old}/first/a", f"{old}/first/b"]
    assert completed(root, "parallelhassnes rerun l") == ["latest"]
    assert completed(tmp_path, f"parallelhassnes --root {root}") == []
    assert completed(tmp_path, f"parallelhassnes show --root {root} late") == ["latest"]
    assert completed(tmp_path, "parallelhassnes show 2") == []


def test_completing_an_id_loads_no_model_and_no_store() -> None:
    said = "import sys; from parallelhassnes.cli import options; import types\n"
    said += "options.complete(types.SimpleNamespace(params={}), '2')\n"
    said += "print([m for m in ('pydantic', 'rich', 'harbor', 'asyncio') if m in sys.modules])"
    done = stores.python(said, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_view_prints_the_page_and_serves_it_until_ctrl_c(store: tuple[Context, list[str]]) -> None:
    ctx, (old, new) = store
    root = ctx.layout.root
    toml = (root / "parallelhassnes.toml").read_text()
    free = _free_port()
    (root / "parallelhassnes.toml").write_text(f"{toml}[api]\nport = {free}\n")
    server = stores.started(root, "view", "--no-tick")
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{free}/batches/{new}"
        with urllib.request.urlopen(address, timeout=60) as page:
            assert new in page.read().decode()
        # A second one finds the first, and does not stay.
        again = stores.program(root, "view", f"{old}/first/a")
        assert again.stdout.startswith(f"http://127.0.0.1:{free}/attempts/{old}/first/a")
        with urllib.request.urlopen(again.stdout.strip(), timeout=60) as page:
            assert "first" in page.read().decode()
    finally:
        os.kill(server.pid, signal.SIGINT)
        _, said = server.communicate(timeout=60)
        (root / "parallelhassnes.toml").write_text(toml)
    assert said == "a server was started for it; Ctrl-C ends it, attempts go on\n"
    assert server.returncode == 0


def _free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_wide_draws_every_column_on_a_narrow_terminal(store: tuple[Context, list[str]]) -> None:
    root = store[0].layout.root
    narrow = stores.program(root, "status", env={"COLUMNS": "44"}).stdout
    wide = stores.program(root, "status", "--wide", env={"COLUMNS": "44"}).stdout
    assert "no room for" in narrow
    assert "`--wide`" in " ".join(narrow.split())
    assert "no room for" not in wide
    assert "one, two" in wide
