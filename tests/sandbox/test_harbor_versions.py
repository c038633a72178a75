"""The sandbox is an environment of the installed Harbor's, whichever that is, and works in Harbor's own programs."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import IMPORT_PATH
from harbor.environments.base import BaseEnvironment
from harness import make_task

from parallelhassnes.sandbox.environment import SandboxEnvironment

pytestmark = pytest.mark.harbor
HARBOR = Path(sys.executable).with_name("harbor")


def overridden() -> list[str]:
    own = [name for name, value in vars(SandboxEnvironment).items() if callable(value) or hasattr(value, "__func__")]
    return sorted(name for name in own if hasattr(BaseEnvironment, name))


def test_every_overridden_method_takes_what_harbors_own_takes() -> None:
    assert {"__init__", "exec", "preflight", "start", "stop", "download_dir"} <= {*overridden()}
    for name in overridden():
        theirs = inspect.signature(getattr(BaseEnvironment, name)).parameters
        ours = inspect.signature(getattr(SandboxEnvironment, name)).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in ours.values())
        known = {*ours} if not takes_all else {*ours, *theirs}
        named = {key for key, parameter in theirs.items() if parameter.kind not in (2, 4)}
        assert named <= known, f"{name}: {sorted(named - known)}"
        # What has no default there must not be wanted here in another place.
        if not takes_all:
            assert [key for key in ours if key in named] == [key for key in theirs if key in named], name
        wanted = [key for key, parameter in ours.items() if parameter.default is parameter.empty and key not in theirs]
        assert [key for key in wanted if ours[key].kind not in (2, 4)] == [], name


def test_preflight_takes_what_either_end_gives() -> None:
    SandboxEnvironment.preflight()
    SandboxEnvironment.preflight(kwargs={"network": "none"})


def test_harbor_run_with_the_sandbox_by_its_name(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [
            HARBOR,
            "run",
            "-p",
            task,
            "-a",
            "oracle",
            "-e",
            IMPORT_PATH,
            "-o",
            tmp_path / "jobs",
            "--job-name",
            "one",
            "-y",
        ],
        env={**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    (result,) = (tmp_path / "jobs" / "one").glob("*/result.json")
    found = json.loads(result.read_text())
    assert found["exception_info"] is None, done.stdout
    assert found["verifier_result"]["rewards"] == {"reward": 1.0}
    log = (result.parent / "verifier" / "test-stdout.txt").stat()
    assert log.st_nlink == 1


@pytest.mark.parametrize("mounting", [True, False])
def test_what_is_mounted_is_not_brought_onto_itself(maker, mounting: bool) -> None:
    async def go() -> list[str]:
        async with maker.running(auto_mounting=mounting) as sandbox:
            await sandbox.exec("echo inside >/logs/agent/a.txt; mkdir -p /logs/agent/deep; echo d >/logs/agent/deep/b")
            before = (sandbox.trial_paths.agent_dir / "a.txt").stat()
            await sandbox.download_dir("/logs/agent", sandbox.trial_paths.agent_dir)
            await sandbox.download_file("/logs/agent/a.txt", sandbox.trial_paths.agent_dir / "a.txt")
            after = (sandbox.trial_paths.agent_dir / "a.txt").stat()
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
            # Another place is another matter.
            target = maker.folder / "else"
            target.mkdir()
            await sandbox.download_dir("/logs/agent/deep", target)
            return [path.name for path in target.iterdir()]

    assert asyncio.run(go()) == ["b"]
