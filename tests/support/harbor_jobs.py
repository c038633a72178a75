"""Jobs that the real ``harbor run`` has made, for imports: whole, with retries, and killed half-way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from harness import make_task, until

HARBOR = Path(sys.executable).with_name("harbor")
SUPPORT = Path(__file__).parent
ENVIRONMENT = "temp_environment:TempEnvironment"


def environment(folder: Path, **more: str) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "HOME": str(home), "PYTHONPATH": str(SUPPORT), "PYTHONWARNINGS": "ignore", **more}


def tasks(folder: Path) -> Path:
    """Two tasks; the second one is passed by nobody."""
    made = folder / "tasks"
    make_task(made, "easy")
    make_task(made, "hard", test="echo 0 > /logs/verifier/reward.txt")
    return made


def start(folder: Path, name: str, *options: str, mode: str = "", count: str = "1") -> subprocess.Popen[str]:
    """Start ``harbor run`` on both tasks; the job is ``<folder>/jobs/<name>``."""
    counter = folder / f"count-{name}"
    counter.mkdir()
    command = [HARBOR, "run", "-p", folder / "tasks", "-e", ENVIRONMENT, "-o", folder / "jobs", "--job-name", name]
    return subprocess.Popen(
        [*command, "-y", "-n", count, *options],
        env=environment(folder / f"of-{name}", TEMPER_DIR=str(counter), TEMPER=mode),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=folder,
    )


def end(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said


def kill_when(process: subprocess.Popen[str], condition) -> None:
    until(condition)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def resume(folder: Path, name: str) -> None:
    """Have Harbor itself go on with a job that was killed."""
    config = folder / "jobs" / name / "config.json"
    was = json.loads(config.read_text())["jobs_dir"]
    for path in [
        config,
        *config.parent.glob("*/config.json"),
    ]:  # of a copy, too: Harbor goes by the folder that these name
        path.write_text(path.read_text().replace(was, str(folder / "jobs")))
    done = subprocess.run(
        [HARBOR, "job", "resume", "-p", folder / "jobs" / name],
        env=environment(folder / f"of-{name}", TEMPER_DIR=str(folder / f"count-{name}"), TEMPER=""),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
