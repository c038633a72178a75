"""Where the program's output goes nowhere, and where its root cannot be written: one line, or none."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stores

from parallelhassnes.schedule.context import Context


@pytest.fixture
def ctx(root: Path) -> Context:
    return stores.context(root)


def shell(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which ``$PROGRAM`` and ``$ROOT`` are what they say."""
    values = {"PROGRAM": f"{sys.executable} -m parallelhassnes", "ROOT": str(root)}
    return subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=stores.environment(values),
        cwd=stores.CHECKOUT,
    )


@pytest.mark.parametrize("more", ["", "--json"])
def test_a_full_disk_is_told_in_one_line(root: Path, ctx: Context, more: str) -> None:
    done = shell(root, f"$PROGRAM scoreboard --root $ROOT {more} >/dev/full")
    assert (done.returncode, done.stderr) == (2, "writing: No space left on device; free some space\n")


@pytest.mark.parametrize(
    "command", ["--help", "init --root $ROOT --help", "scoreboard --root $ROOT --json", "doctor --bad"]
)
def test_a_reader_that_has_gone_is_no_trouble(root: Path, ctx: Context, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        values = {"PROGRAM": f"{sys.executable} -m parallelhassnes", "ROOT": str(root)}
        done = subprocess.run(
            ["sh", "-c", f"$PROGRAM {command}"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            env=stores.environment(values),
            cwd=stores.CHECKOUT,
        )
    finally:
        os.close(write)
    assert ("bad" in command) == bool(done.stderr), done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode in ((2,) if "bad" in command else (0, 1)), (
        done.stderr
    )  # help ends as the library for it ends then


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_closed_standard_output_takes_nothing_from_the_work(root: Path, ctx: Context, closed: str) -> None:
    batch_id = stores.put(ctx, stores.table(stores.job("j", stores.command("c", "echo", "hello"))))
    done = shell(root, f"$PROGRAM tick --until-idle --root $ROOT {closed}")
    assert (done.returncode, "Error" in done.stderr) == (0, False)
    (log,) = (root / "runs" / batch_id).glob("j/steps/c/attempts/*/stdout.log")
    assert log.read_text() == "hello\n"


@pytest.mark.bubblewrap
@pytest.mark.parametrize("command", ["tick", "doctor", "drain"])
def test_a_root_that_is_read_only_is_told_in_one_line(root: Path, ctx: Context, command: str) -> None:
    bound = "bwrap --bind / / --ro-bind $ROOT $ROOT --dev /dev --proc /proc"
    done = shell(root, f"{bound} $PROGRAM {command} --root $ROOT --json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["ok"] is False
    (line,) = done.stderr.splitlines()
    assert line.startswith(str(root))
    assert line.endswith("Read-only file system; make it writable, or choose another --root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into another user's folder")
def test_root_does_not_lock_the_owner_out_of_a_private_store(root: Path, ctx: Context) -> None:
    stores.put(ctx, stores.table(stores.job("j", stores.command("c", "true"))))
    runs = root / "runs"
    for path in (runs, *runs.rglob("*")):
        os.chown(path, 65534, 65534)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    for command in (["tick"], ["submit", str(stores.CHECKOUT / "examples/launch_table.example.json")]):
        done = stores.program(root, *command, check=False)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert line.startswith(f"{runs}: is nobody's and private; what root makes there would keep")
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    assert stores.program(root, "scoreboard", "latest").returncode == 0
    with (root / "parallelhassnes.toml").open("a") as stream:
        stream.write("private = false\n")
    assert stores.program(root, "tick").returncode == 0


def test_what_an_encoding_cannot_say_is_escaped(root: Path, ctx: Context) -> None:
    stores.put(ctx, stores.table(stores.job("j", stores.command("c", "true")), experiment="größer"))
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = stores.program(root, "scoreboard", "latest", env=ascii_only)
    assert "gr\\u00f6\\u00dfer" in done.stdout
    document = json.loads(stores.program(root, "scoreboard", "latest", "--json", env=ascii_only).stdout)
    assert document["experiment"] == "größer"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "there is no such command"),
        (["cancel"], "ID is missing"),
        (["scoreboard", "--nope"], "there is no such option"),
        (["priority", "latest", "x"], "is no whole number"),
    ],
)
def test_a_wrong_command_line_is_a_document_too(root: Path, ctx: Context, arguments: list[str], said: str) -> None:
    done = stores.program(root, *arguments, "--json", check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert said in json.loads(done.stdout)["error"]


def test_ctrl_c_while_modules_are_loaded_prints_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = f"{tmp_path}{os.pathsep}{stores.CHECKOUT}"
    done = stores.program(root, "scoreboard", env={"PYTHONPATH": path}, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("KeyboardInterrupt", 130),
        ("RuntimeError('x') from KeyboardInterrupt()", 130),
        ("SchemaError('Error building `dict` serializer:\\n  KeyboardInterrupt: ')", 130),
        ("SchemaError('Error building `dict` serializer')", 3),
        ("RuntimeError('KeyboardInterrupt')", 3),
    ],
)
def test_an_interrupt_that_a_library_makes_an_error_of_is_one(root: Path, raised: str, code: int) -> None:
    """Ctrl-C while pydantic builds a model comes as its own SchemaError."""
    script = (
        "import sys\n"
        "from pydantic_core import SchemaError\n"
        "from parallelhassnes.cli import app\n"
        f"def obey(self, *_, **__): raise {raised}\n"
        "app.app.__class__.__call__ = obey\n"
        f"sys.argv = ['parallelhassnes', 'tick', '--root', {str(root)!r}]\n"
        "app.main()\n"
    )
    argv = [sys.executable, "-c", script]
    done = subprocess.run(
        argv, env=stores.environment({}), cwd=stores.CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done
    assert code == 3 or "internal error" not in done.stderr


@pytest.mark.bubblewrap
def test_a_full_disk_leaves_no_store_half_made_and_names_the_file(root: Path, tmp_path: Path) -> None:
    """Of 400 KB, as much is taken as leaves room for the folders and for none of the files."""
    script = (
        "cd $FULL && head -c 10M /dev/zero >fill 2>/dev/null; $PROGRAM init --root $FULL; echo $?; "
        "ls -A $FULL | grep toml; rm fill; $PROGRAM init --root $FULL; echo $?; grep -c concurrency parallelhassnes.toml; "
        "printf 'min_free_disk_mb = 0\\nmin_free_files = 0\\n' >parallelhassnes.toml; "
        "head -c 10M /dev/zero >fill 2>/dev/null; $PROGRAM pause openai/gpt-5; echo $?; rm fill; $PROGRAM audit verify"
    )
    inner = tmp_path / "inner.sh"
    inner.write_text(script)
    bound = f"bwrap --bind / / --dev /dev --proc /proc --size 400000 --tmpfs /mnt --setenv FULL /mnt sh {inner}"
    done = shell(root, f"export PROGRAM; {bound}")
    codes = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert [codes[0], codes[1], codes[3]] == ["2", "0", "2"], done
    assert int(codes[2]) > 0, done
    first, *_, last = [line for line in done.stderr.splitlines() if "No space left" in line]
    assert first.endswith("No space left on device; free some space, or choose another --root")
    assert last.startswith("/mnt")
    assert "No space left on device; free some space" in last
    assert "everything is as it was written" in done.stdout
