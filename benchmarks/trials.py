"""Harbor trials: the same job config given to ``harbor run`` and to ``parallelhassnes run``."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import setting as s
from benchmarks.results import OURS, Row, compare
from benchmarks.setting import CHECKOUT, HARBOR, SANDBOX, Setting

DOCKER = {"type": "docker"}
STOP_AT_ONCE = "harbor run, immediate stop"
OUR_RESULTS = "runs/*/*/steps/*/attempts/*/trial/result.json"
HARBORS_RESULTS = "jobs/*/*/result.json"
_CONCURRENCY = 4


def sandbox(setting: Setting) -> Row:
    """50 oracle trials in the sandbox, 4 at a time."""
    count = 4 if setting.quick else 50
    row = Row(name="sandbox", work=f"{count} oracle trials, sandbox environment, 4 at a time")
    job = job_config(count, _CONCURRENCY, SANDBOX, [{"name": "oracle"}])
    sides = run(setting, row, {HARBOR: job, OURS: job}, count, 5)
    row.figures = compare(sides[OURS], sides[HARBOR], {"wall": 1.0, "CPU": 1.15})
    return row


def docker(setting: Setting) -> Row:
    """12 oracle trials in Docker, 4 at a time; plain Harbor waits 10 s for each container to stop."""
    count = 2 if setting.quick else 12
    row = Row(name="docker", work=f"{count} oracle trials, Docker, 4 at a time")
    if shutil.which("docker") is None:
        row.skipped = "no program docker"
        return row
    job = job_config(count, _CONCURRENCY, DOCKER, [{"name": "oracle"}])
    jobs = {HARBOR: job, STOP_AT_ONCE: at_once(setting, job), OURS: job}
    sides = run(setting, row, jobs, count, 2)
    row.figures = compare(sides[OURS], sides[HARBOR], {"wall": 0.4, "CPU": 1.05})
    row.figures += compare(sides[OURS], sides[STOP_AT_ONCE], {})
    return row


def sweep(setting: Setting) -> Row:
    """The 40-trial Docker sweep at 4."""
    count = 4 if setting.quick else 40
    row = Row(name="sweep", work=f"{count} oracle trials, Docker, 4 at a time")
    if shutil.which("docker") is None:
        row.skipped = "no program docker"
        return row
    job = job_config(count, _CONCURRENCY, DOCKER, [{"name": "oracle"}])
    jobs = {HARBOR: job, STOP_AT_ONCE: at_once(setting, job), OURS: job}
    sides = run(setting, row, jobs, count, 1, memory=False)
    row.figures = compare(sides[OURS], sides[HARBOR], {})
    row.figures += compare(sides[OURS], sides[STOP_AT_ONCE], {"wall": 0.8})
    return row


def job_config(
    trials: int, concurrency: int, environment: dict[str, Any], agents: list[dict[str, Any]]
) -> dict[str, Any]:
    """A Harbor job config of so many trials of the task ``hello``."""
    return {
        "job_name": "benchmark",
        "n_attempts": trials,
        "n_concurrent_trials": concurrency,
        "environment": environment,
        "agents": agents,
        "tasks": [{"path": str(CHECKOUT / "examples/tasks/hello")}],
    }


def at_once(setting: Setting, job: dict[str, Any]) -> dict[str, Any]:
    """The job with an overlay that has Compose stop containers at once, as our own trials do."""
    setting.work.mkdir(parents=True, exist_ok=True)
    overlay = s.write_json(setting.work / "stop-at-once.json", {"services": {"main": {"stop_grace_period": "0s"}}})
    return {**job, "environment": {**job["environment"], "extra_docker_compose": [str(overlay)]}}


def run(
    setting: Setting,
    row: Row,
    jobs: dict[str, dict[str, Any]],
    count: int,
    usual_runs: int,
    *,
    memory: bool = True,
    config: str = "",
    **variables: str,
) -> dict[str, Any]:
    """Run each side's job in turn.

    Args:
        jobs: name of the side → its job config; ``OURS`` is run by this project, the others by Harbor.
        config: our ``parallelhassnes.toml``.
        variables: environment variables, of every side.
    """
    program = s.harbor()
    if program is None:
        raise FileNotFoundError("harbor: not installed beside this interpreter; pip install harbor")

    programs: dict[str, tuple[s.Make, s.Check]] = {}
    for name, job in jobs.items():
        make = partial(_ours, job, config) if name == OURS else partial(_harbors, program, job)
        programs[name] = make, partial(check, count=count, results=OUR_RESULTS if name == OURS else HARBORS_RESULTS)
    environ = s.environment(**variables)
    return s.alternate(setting, row, programs, setting.runs(usual_runs), environ, memory=memory)


def _harbors(program: str, job: dict[str, Any], folder: Path) -> list[str]:
    path = s.write_json(folder / "job.json", {**job, "jobs_dir": str(folder / "jobs")})
    return [program, "run", "-c", str(path), "-q", "-y"]


def _ours(job: dict[str, Any], config: str, folder: Path) -> list[str]:
    path = s.write_json(folder / "job.json", job)
    (folder / "parallelhassnes.toml").write_text(config, encoding="utf-8")
    at_once = str(job["n_concurrent_trials"])
    place = ["--root", str(folder), "--concurrency", at_once]
    return s.ours("run", "-c", str(path), *place, "--fail-on", "any")


def check(folder: Path, count: int, results: str) -> None:
    """Every trial must have ended with reward 1, on every side.

    Args:
        results: a pattern of their ``result.json``, below the folder.
    """
    rewards = []
    for path in folder.glob(results):
        result = json.loads(path.read_bytes())
        rewards.append(((result.get("verifier_result") or {}).get("rewards") or {}).get("reward"))
    if rewards != [1.0] * count:
        raise ValueError(f"{folder}: {rewards.count(1.0)} of {count} trials have reward 1")
