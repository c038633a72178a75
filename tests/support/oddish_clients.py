"""The real command lines of Oddish, against a server of ours."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from servers import serving, token
from stores import SUPPORT


class OddishClient:
    """Runs one version of the program; what it says."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.server, self.key = None, ""

    def called(self, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "ODDISH_API_URL": self.server.url,
            "ODDISH_API_KEY": self.key,
            "COLUMNS": "200",
            "TERM": "dumb",
            "USER": "anna",
            "LOGNAME": "anna",
        }
        command = [self.name, *arguments]
        return subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=300, **more)

    def __call__(self, *arguments: str, **more) -> str:
        done = self.called(*arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def served(self, root: Path):
        """Serve a store to it."""
        self.key = token(root, "oddish", "operate")
        with serving(root, "--auth", "token", token=self.key, env=SUPPORT) as server:
            self.server = server
            yield server
