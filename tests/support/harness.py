"""Running a kind of step in tests as a supervisor would: fork, redirect, work, wait, conclude."""

import contextlib
import json
import os
import signal
import sys
import time
import uuid
import warnings
from pathlib import Path

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import final_report, registry
from parallelhassnes.steps.step_types import StepAttempt, WorkerEnd

KEPT = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
TEMP = {"import_path": "temp_environment:TempEnvironment"}


def make_attempt(root: Path, kind: str, spec: dict, *, step_id="s1", stand_in=False, env=None) -> StepAttempt:
    run_id = uuid.uuid4().hex[:16]
    job_dir = root / "batch" / "job"
    directory = job_dir / "steps" / step_id / "attempts" / f"20260101T000000Z_{run_id}"
    (directory / "tmp").mkdir(parents=True)
    step = StepSpec(step_id=step_id, kind=kind, queue_key="k", spec=spec, env=env or {})
    return StepAttempt(
        dir=directory,
        job_dir=job_dir,
        batch_id="batch",
        job_id="job",
        run_id=run_id,
        number=1,
        step=step,
        stand_in=stand_in,
    )


def fork_worker(attempt: StepAttempt) -> int:
    """Start the worker of an attempt; returns its pid."""
    kind = registry.kind(attempt.step.kind)
    kind.preload(attempt.step)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        # Python's own filters, not pytest's: Harbor uses what Harbor deprecates.
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for name, descriptor in (("stdout.log", 1), ("stderr.log", 2)):
            log = os.open(attempt.dir / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, descriptor)
        kept = {k: os.environ[k] for k in KEPT if k in os.environ}
        os.environ.clear()
        os.environ.update(kept, TMPDIR=str(attempt.dir / "tmp"), **attempt.step.env)
        os.chdir(attempt.dir)
        code = kind.work(attempt)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid: int, timeout: float = 110) -> int:
    """The exit code of a worker; kills it if it does not end in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"worker {pid} did not end in {timeout} s")


def kill_group(pid: int) -> int:
    """Kill a worker and its process group; the worker's exit code, once nothing of the group does anything any more."""
    os.killpg(pid, signal.SIGKILL)
    code = wait(pid)
    until(lambda: not any(_works_for(pid, name) for name in os.listdir("/proc") if name.isdigit()))
    return code


def _works_for(group: int, name: str) -> bool:
    try:
        state, _, found = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:  # it has ended
        return False
    return int(found) == group and state not in "ZX"


def until(condition, timeout: float = 60):
    """Poll until ``condition()`` is true; returns what it returned."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.005)
    return found


def finish(attempt: StepAttempt, end: WorkerEnd):
    """Conclude an attempt, write its files as a supervisor does; returns outcome and report."""
    outcome = registry.kind(attempt.step.kind).conclude(attempt, end)
    final = final_report.build(attempt, outcome)
    assert final_report.validate(final) == []
    (attempt.dir / "final.json").write_text(json.dumps(final))
    (attempt.dir / "state.json").write_text(json.dumps({"status": outcome.status}))
    return outcome, final


def run(attempt: StepAttempt, timeout: float = 110):
    """Run an attempt to its end; returns exit code, outcome and report."""
    code = wait(fork_worker(attempt), timeout)
    return code, *finish(attempt, WorkerEnd(code, "exited"))


def make_task(root: Path, name="hello", *, solution="echo hi > /app/out", test=None, toml="", **files) -> Path:
    """A small Harbor task; its test gives 1 where the solution ran."""
    task = root / name
    test = test or "if [ -f /app/out ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt"
    content = {
        "task.toml": f'version = "1.0"\n[agent]\ntimeout_sec = 30.0\n[verifier]\ntimeout_sec = 30.0\n{toml}',
        "instruction.md": "Make /app/out.\n",
        "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /app\n",
        "solution/solve.sh": f"#!/bin/bash\n{solution}\n",
        "tests/test.sh": f"#!/bin/bash\n{test}\n",
        **files,
    }
    for path, body in content.items():
        file = task / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
        if file.suffix == ".sh":
            file.chmod(0o755)
    return task


def trial_spec(task: Path, agent="oracle", environment=None, **config) -> dict:
    return {
        "config": {
            "task": {"path": str(task)},
            "agent": agent if isinstance(agent, dict) else {"name": agent},
            "environment": environment or TEMP,
            **config,
        },
        "task_name": task.name,
    }


def write_job(job_dir: Path, specs: dict) -> None:
    """``job.json`` with these trials and an analysis of the first."""
    trials = [StepSpec(step_id=i, kind="trial", queue_key="k", spec=spec) for i, spec in specs.items()]
    analysis = StepSpec(step_id="a", kind="analysis", queue_key="a", spec={"trial": trials[0].step_id})
    job = JobSpec(batch_id="batch", job_id="job", steps=(*trials, analysis))
    job_dir.mkdir(parents=True, exist_ok=True)
    (job_dir / "job.json").write_text(job.model_dump_json())
