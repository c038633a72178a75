"""Every command of the README and every example of a help text runs as written."""

import json
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import warm
from doc_blocks import commands_of
from stores import CHECKOUT, environment, readers_place
from typer.main import get_command

from parallelhassnes.cli.app import app

README = CHECKOUT / "README.md"
COMMANDS = commands_of("README.md")
TROUBLE_IS_NO_ERROR = ("parallelhassnes doctor",)
"""What doctor finds is about the host, not about the README."""
STARTS_ATTEMPTS = ("append", "rerun", "retry")


@pytest.fixture
def shell(tmp_path):
    """Run a line as a reader of the README would: in a checkout, the program on the PATH."""
    place, env = readers_place(tmp_path)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        if re.fullmatch(r"parallelhassnes [^|&;<>$()*?`~]+", line):  # the shell has only to take it apart
            return warm.run(shlex.split(line)[1:], env=env, cwd=place, timeout=100)
        return subprocess.run(line, shell=True, cwd=place, env=env, capture_output=True, text=True, timeout=100)

    return run


@pytest.mark.namespaces
@pytest.mark.timeout(300)
def test_the_readmes_commands_run_in_their_order(shell):
    assert len(COMMANDS) > 15
    for line in COMMANDS:
        done = shell(line)
        allowed = (0, 1) if line.startswith(TROUBLE_IS_NO_ERROR) else (0,)
        assert done.returncode in allowed, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line


def help_of(*arguments: str) -> str:
    done = warm.run([*arguments, "--help"], env=environment({"COLUMNS": "400"}), cwd=CHECKOUT, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> list[str]:
    return re.findall(r"^  ([a-z]+) +[A-Z]", help_of(), re.MULTILINE)


def test_every_command_stands_once_in_the_list_of_commands():
    assert sorted(commands()) == sorted(get_command(app).commands)


def test_a_shell_is_told_how_to_complete_commands():
    asked = {"_PARALLELHASSNES_COMPLETE": "complete_bash", "COMP_WORDS": "parallelhassnes rer", "COMP_CWORD": "1"}
    program = [sys.executable, "-c", "from parallelhassnes.cli.app import app; app(prog_name='parallelhassnes')"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment(asked))
    assert done.stdout.split() == ["rerun"], done.stderr


@pytest.mark.namespaces
@pytest.mark.timeout(300)
def test_every_command_has_help_with_an_example_that_runs(shell):
    examples, going_on = {}, list[str]()
    for name in commands():
        found = re.search(r"Example: (parallelhassnes .*)", help_of(name))
        assert found, f"{name} has no example"
        examples[name] = found[1].strip()
    first = ["init", "validate", "run", "submit", "tick"]
    last = ["pack", "unpack", "regrade"]  # of a batch that nothing comes after
    for name in [*first, *sorted(set(examples) - {*first, *last}), *last]:
        line = examples[name]
        if name == last[0]:
            assert len(going_on) >= 4
            with ThreadPoolExecutor() as pool:  # they go on until they are told to end
                for endless, done in zip(going_on, pool.map(shell, going_on), strict=True):
                    assert done.returncode == 0, f"{endless}\n{done.stdout}\n{done.stderr}"
        if name == "api":  # on a port that is free here
            line = line.replace("8765", "0")
        if name == "run":
            again = shell("parallelhassnes run examples/tasks/hello -a oracle -e sandbox --keep-workspace --json")
            kept = json.loads(again.stdout)["batch_id"]
        if name == "unpack":
            assert shell("parallelhassnes pack latest").returncode == 0
        if name == "regrade":  # what can be judged again
            line = line.replace("latest", kept)
        if name == "archive":  # a folder of this test's
            line = line.replace("/mnt/", "")
        if name == "import":  # the job that an export has made
            line = line.replace("jobs/", "view/")
        if "--watch" in line or " -f" in line or name in ("api", "runner", "view", "watch"):
            going_on.append(f"timeout -s INT 5 {line}; test $? -eq 0 -o $? -eq 124 -o $? -eq 130")
            continue
        done = shell(line)
        allowed = (0, 1) if line.startswith(TROUBLE_IS_NO_ERROR) else (0, 2) if name in ("notify", "gc") else (0,)
        assert done.returncode in allowed, (
            f"{line}\n{done.stdout}\n{done.stderr}"
        )  # 2: nobody is named to be told, no rule
        if name in STARTS_ATTEMPTS:  # later examples look at the files of the newest attempt
            assert shell("parallelhassnes tick --until-idle --fail-on never").returncode == 0, name


def test_every_option_and_command_of_the_readme_exists():
    text = README.read_text()
    known = {name: help_of(name) for name in commands()}
    for name, rest in re.findall(r"`?parallelhassnes ([a-z]+)([^`\n]*)", text):
        if name == "below":
            continue
        assert name in known, name
        for option in re.findall(r"(?<![\w-])(--[a-z-]+)", rest.split("&&")[0]):
            assert option in known[name], f"{name} {option}"
