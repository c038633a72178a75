"""What the program loads before it does what it was asked to: most of what a short command costs."""

import subprocess
import sys

import pytest
from stores import environment

PROGRAM = """
import atexit, sys
from parallelhassnes import __main__
atexit.register(lambda: print("\\n", *sys.modules, file=sys.stderr))
__main__.main()
"""


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=environment(), timeout=100
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_no_command():
    found = loaded("--help")
    assert not found & {"pydantic", "pydantic_core", "rich", "filelock", "yaml", "asyncio", "tempfile", "tarfile"}
    ours = {name for name in found if name.startswith("parallelhassnes")}
    assert "parallelhassnes.cli.app" in ours
    assert len(ours) <= 21, sorted(ours)


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
    )
    assert not found & ({f"parallelhassnes.{name}" for name in ours} | {"harbor", "asyncio", "filelock", "yaml"})


def test_a_job_of_slurm_loads_what_its_attempt_needs_and_nothing_that_decides():
    """It begins anew for each attempt, so what it loads is most of what that costs."""
    code = "import sys, parallelhassnes.schedule.entry_points, parallelhassnes.schedule.cluster.cluster_attempt; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    found = set(said.stdout.split())
    assert "parallelhassnes.execute.supervisor" in found
    deciding = ("schedule.tick", "schedule.launch", "schedule.settle", "schedule.repair", "schedule.joining.ask_probe")
    assert not found & ({f"parallelhassnes.{name}" for name in deciding} | {"harbor", "asyncio", "filelock", "yaml"})
