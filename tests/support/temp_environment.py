"""A Harbor environment for tests: commands run on the host, below a directory of their own.

The paths that a task uses (``/app``, ``/tests``, ``/solution``, ``/logs``) are rewritten to lie below
that directory, which is good enough for the scripts of these tests.
"""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

from harbor.environments.base import BaseEnvironment, ExecResult
from harbor.environments.capabilities import EnvironmentCapabilities

ROOTS = re.compile(r"(?<![\w./-])/(app|tests|solution|logs|harbor)(?![\w-])")


class TempEnvironment(BaseEnvironment):
    """``environment.import_path = "temp_environment:TempEnvironment"``; ``stop_when``: a file that its end waits for."""

    def __init__(self, *args, **kwargs):
        self._root = Path(tempfile.mkdtemp(prefix="env-"))
        self._stop_when = kwargs.pop("stop_when", None)
        # It mounts, and Harbor would bring the logs from where they are to where they are.
        super().__init__(*args, **{"auto_mounting": True, **kwargs})

    @staticmethod
    def type():
        return "temp"

    @property
    def capabilities(self):
        return EnvironmentCapabilities(mounted=True, disable_internet=True)

    def _validate_definition(self):
        return

    async def start(self, force_build):
        (self._root / "app").mkdir(parents=True)
        for mount in self._mounts:
            os.makedirs(mount["source"], exist_ok=True)

    def _may_stop(self):
        return Path(self._stop_when).exists()

    async def stop(self, delete):
        if self._stop_when:
            (self.trial_paths.trial_dir / "stopping").touch()
            while not self._may_stop():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.01)
        shutil.rmtree(self._root, ignore_errors=True)
        (self.trial_paths.trial_dir / "stopped").touch()

    def _rewrite(self, text):
        """Mounted folders are their sources, everything else lies below our root."""
        for mount in self._mounts:
            text = text.replace(mount["target"], mount["source"])
        return ROOTS.sub(rf"{self._root}/\1", text)

    def _path(self, path):
        if str(path).startswith("/tmp/tmp."):  # of a command's own mktemp, which ran on the host
            return Path(path)
        rewritten = self._rewrite(str(path))
        return Path(rewritten) if rewritten != str(path) else self._root / str(path).lstrip("/")

    async def upload_file(self, source_path, target_path):
        target = self._path(target_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source_path, target)

    async def upload_dir(self, source_dir, target_dir):
        shutil.copytree(source_dir, self._path(target_dir), dirs_exist_ok=True)
        for script in self._path(target_dir).rglob("*.sh"):
            script.write_text(self._rewrite(script.read_text()))

    async def download_file(self, source_path, target_path):
        shutil.copy2(self._path(source_path), target_path)

    async def download_dir(self, source_dir, target_dir):
        shutil.copytree(self._path(source_dir), target_dir, dirs_exist_ok=True)

    async def exec(self, command, cwd=None, env=None, timeout_sec=None, user=None):
        process = await asyncio.create_subprocess_exec(
            "/bin/bash",
            "-c",
            self._rewrite(command),
            cwd=self._path(cwd or "/app"),
            env={"PATH": os.environ["PATH"], "ROOT": str(self._root), **(self._merge_env(env) or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_sec)
        except TimeoutError as error:
            raise RuntimeError(f"Command timed out after {timeout_sec} seconds") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return ExecResult(stdout=out.decode(), stderr=err.decode(), return_code=process.returncode)
