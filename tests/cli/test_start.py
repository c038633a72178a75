"""What the program loads before it does what it was asked to: most of what a short command costs."""

import subprocess
import sys

import pytest
from stores import environment, python

PROGRAM = """
import atexit, sys
from parallelhassnes import __main__
atexit.register(lambda: print("\\n", *sys.modules, file=sys.stderr))
__main__.main()
"""


def loaded(*arguments: str) -> set[str]:
    done = python(PROGRAM, *arguments, env={"COLUMNS": ""})
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_no_command():
    found = loaded("--help")
    assert not found & {"pydantic", "pydantic_core", "rich", "filelock", "yaml", "asyncio", "tempfile", "tarfile"}
    ours = {name for name in found if name.startswith("parallelhassnes")}
    assert "parallelhassnes.cli.app" in ours
    assert len(ours) <= 23, sorted(ours)


def test_a_module_that_is_run_calls_itself_by_the_programs_name():
    done = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", "statsu"], capture_output=True, text=True, env=environment()
    )
    assert done.stderr == "statsu: there is no such command; did you mean status?\n"


@pytest.mark.parametrize("command", ["scoreboard", "status", "ls"])
def test_a_look_loads_nothing_that_runs_attempts(command, root):
    loaded("init", "--root", str(root))
    found = loaded(command, "--root", str(root))
    assert "parallelhassnes.views.system_scoreboard" in found
    ours = (
        "execute.supervisor",
        "execute.finish",
        "steps.failure_evidence",
        "schedule.launch",
        "schedule.cluster.cluster_jobs",
        "steps.verdict.judge",
        "steps.trial.leftovers",
        "steps.final_report",
        "cli.output.drawing",
    )
    assert not found & ({f"parallelhassnes.{name}" for name in ours} | {"harbor", "asyncio", "filelock", "yaml"})
    assert not found & {"rich.console", "rich.table", "numpy"}  # standard output is no terminal here
    assert len([name for name in found if name.startswith("parallelhassnes")]) <= 103


def test_a_job_of_slurm_loads_what_its_attempt_needs_and_nothing_that_decides():
    """It begins anew for each attempt, so what it loads is most of what that costs."""
    code = "import sys, parallelhassnes.schedule.entry_points, parallelhassnes.schedule.cluster.cluster_attempt; print(*sys.modules)"
    said = python(code)
    found = set(said.stdout.split())
    assert "parallelhassnes.execute.supervisor" in found
    deciding = ("schedule.tick", "schedule.launch", "schedule.settle", "schedule.repair", "schedule.joining.ask_probe")
    assert not found & ({f"parallelhassnes.{name}" for name in deciding} | {"harbor", "asyncio", "filelock", "yaml"})


ENDS = """
import atexit, sys, threading
from parallelhassnes import __main__
atexit.register(print, "at the end")
if sys.argv.pop(1) == "thread":
    def last():
        threading.main_thread().join()
        print("the thread went on")
    threading.Thread(target=last).start()
__main__.main()
"""


@pytest.mark.parametrize("kept", ["alone", "thread"])
@pytest.mark.parametrize(("arguments", "code"), [(("--version",), 0), (("show", "nothing"), 2)])
def test_a_program_ends_whole(kept, arguments, code, root):
    """What was to be done at its end is done, and a thread that goes on is waited for, though nothing is taken apart."""
    loaded("init", "--root", str(root))
    more = ("--root", str(root)) if code else ()
    done = python(ENDS, kept, *arguments, *more, check=False)
    assert done.returncode == code, done.stderr
    said = ["the thread went on"] * (kept == "thread") + ["at the end"]
    assert done.stdout.splitlines()[-len(said) :] == said


@pytest.mark.parametrize("name", ["COLUMNS", "FORCE_COLOR", "none"])
def test_a_file_has_the_lines_that_a_drawing_has(name, root):
    """A variable that asks for a width or colours has rich draw; what it draws says the same."""
    loaded("init", "--root", str(root))
    values = {
        "COLUMNS": {"COLUMNS": "200"},
        "FORCE_COLOR": {"FORCE_COLOR": "1", "TERM": "dumb"},
        "none": {"COLUMNS": ""},
    }
    command = [sys.executable, "-m", "parallelhassnes", "scoreboard", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(values[name]), timeout=100)
    assert done.stdout == (
        "0 batches, 0 steps: nothing; 0 of 8 live\nNo batch yet: `parallelhassnes run PATH` makes one.\n"
    )
