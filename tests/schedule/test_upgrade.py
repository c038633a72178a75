"""The package upgraded in place under a store: its files are away for some seconds, or those of a later version."""

import re
import shutil
import sys

import pytest
from harness import make_task
from stores import CHECKOUT, command, context, idle, job, program, put, read, shell, states, table, wait_for

from parallelhassnes.store.evidence.ledger import read as lines_of

pytestmark = pytest.mark.timeout(240)
FAST = "durable = false\nenvironment = 'sandbox'\n"
NOBODY = {"engine": "api", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
LATE = """
import os
import sys

OF_AN_ATTEMPT = {"supervise", "end_dead"}


def note(event, arguments):
    told = event == "import" and arguments[0].startswith("parallelhassnes")
    read = event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(PACKAGE)
    if not told and not read:
        return
    frame, names = sys._getframe(1), set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    if names & OF_AN_ATTEMPT:
        with open(LOG, "a") as log:
            log.write(f"{arguments[0]} in {'a worker' if 'start_worker' in names else 'a supervisor'}\\n")


sys.addaudithook(note)
"""
"""Writes down what of the package is imported or read between an attempt's start and its seal."""


@pytest.fixture
def package(tmp_path):
    """A copy of the package, alone in a folder."""
    path = tmp_path / "lib" / "parallelhassnes"
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "parallelhassnes", path, ignore=left_out)
    return path


def agent_step(step_id, root, prompt, **more):
    program = str(CHECKOUT / "tests" / "support" / "agent_program.py")
    argv = [sys.executable, program, "{prompt_file}", "{output_file}"]
    agent = {"name": "parrot", "command": argv}
    return {"step_id": step_id, "prompt": prompt, "agent": agent, "working_directory": str(root), **more}


@pytest.mark.namespaces
def test_what_an_attempt_needs_of_the_package_is_there_before_the_attempt_is(root, tmp_path):
    """So files that go away, or become others, while it runs make no difference to it."""
    log, place = tmp_path / "late", tmp_path / "hook"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        f"LOG, PACKAGE = {str(log)!r}, {str(CHECKOUT / 'parallelhassnes')!r}\n{LATE}"
    )
    ctx = context(root, FAST)
    trial = {"kind": "trial", "task": {"path": str(make_task(root))}, "environment": {"type": "sandbox"}}
    steps = [
        command("ok", "true"),
        shell("reports", """echo '{"summary": "Heard."}' >$PARALLELHASSNES_REPORT"""),
        shell("bad", "exit 3", retry={"max_attempts": 1}),
        {**trial, "step_id": "oracle", "agent": {"name": "oracle"}},
        {**trial, "step_id": "nop", "agent": {"name": "nop"}},
        {"step_id": "verdict", "kind": "verdict"},
        agent_step("parrot", root, "Say {{ steps.ok.status }}", depends_on=["ok"]),
        agent_step("broken", root, "SAY\n{{ 1 }}", depends_on=["ok"]),
    ]
    batch = put(ctx, table(job("j", *steps), analysis=NOBODY, verdict=NOBODY, retry={"max_attempts": 1}))
    env = {"PYTHONPATH": f"{place}:{CHECKOUT}"}
    program(root, "tick", "--until-idle", "--fail-on", "never", env=env)
    assert {ref for ref, found in states(ctx, batch).items() if found == ["failed"]} == {
        "j/bad",
        "j/nop.api",
        "j/oracle.api",
    }
    assert not log.exists(), log.read_text()


def upgraded(away, package, version="99.0"):
    """Put the files back as those of a later version."""
    path = away / "version.py"
    path.write_text(re.sub(r'(?m)^__version__ = ".*"', f'__version__ = "{version}"', path.read_text()))
    away.rename(package)


def held_batch(root, package, *steps, **env):
    """A store with a batch whose first step waits for ``root/go``, started by a tick of the package."""
    ctx = context(root, FAST)
    script = f"touch {root}/there; until [ -e {root}/go ]; do sleep 0.05; done"
    batch = put(ctx, table(job("j", shell("a", script), *steps)))
    program(root, "tick", env={"PYTHONPATH": str(package.parent), **env}, cwd=package.parent)
    wait_for((root / "there").exists, "the first step")
    return ctx, batch


def attempt_of(ctx, batch, step):
    (found,) = wait_for(lambda: [*ctx.layout.step(batch, "j", step).glob("attempts/*")], step)
    return found


def test_an_attempt_that_runs_through_an_upgrade_ends_and_later_ones_are_of_the_later_version(root, package):
    ctx, batch = held_batch(root, package, agent_step("b", root, "SAY\nFine.", depends_on=["a"]))
    first, away = attempt_of(ctx, batch, "a"), package.with_name("away")
    package.rename(away)
    (root / "go").touch()
    wait_for((first / "seal.json").exists, "the end of what ran")
    assert states(ctx, batch)["j/a"] == ["succeeded"]
    upgraded(away, package)
    wait_for(lambda: states(ctx, batch).get("j/b") == ["succeeded"], "who was there before to go on")
    wait_for(lambda: idle(ctx), "all of it")
    later = put(ctx, table(job("j", command("c", "true"))))
    program(root, "tick", "--until-idle", env={"PYTHONPATH": str(package.parent)}, cwd=package.parent)
    assert read(attempt_of(ctx, later, "c") / "meta.json")["harness_version"] == "99.0"
    assert read(first / "meta.json")["harness_version"] != "99.0"
    assert program(root, "audit", "verify", batch).returncode == 0


def test_an_attempt_that_could_not_begin_without_the_package_is_tried_again(root, package):
    """Where supervisors are fresh interpreters, one that is started while the files are away dies at once."""
    spawn = {"PARALLELHASSNES_START": "spawn"}
    ctx, batch = held_batch(root, package, command("b", "true", depends_on=["a"]), **spawn)
    # Not all of it: a fresh interpreter would find the checkout that the tests' environment is installed from.
    part, away = package / "schedule", package.with_name("away")
    part.rename(away)
    (root / "go").touch()
    died = wait_for(lambda: [*ctx.layout.step(batch, "j", "b").glob("attempts/*/supervisor.log")], "b")
    wait_for(lambda: "No module named" in died[0].read_text(), "its words")
    away.rename(part)
    program(root, "tick", "--until-idle", env={"PYTHONPATH": str(package.parent)}, cwd=package.parent)
    assert states(ctx, batch) == {"j/a": ["succeeded"], "j/b": ["lost", "succeeded"]}
    launched = [line for _, line in lines_of(ctx.layout.batch(batch)) if line["event"] == "launched"]
    assert [line["step_id"] for line in launched] == ["a", "b", "b"]
