"""A Harbor environment whose sandboxes are somebody else's: a folder of ``RENTED`` has a file for each that is up, whoever has died meanwhile."""

import os
import uuid
from pathlib import Path
from types import SimpleNamespace

from temp_environment import TempEnvironment


class SandboxNotFoundError(Exception):
    """The provider has none of that id."""


class RentedEnvironment(TempEnvironment):
    """``import_path = "rented_environment:RentedEnvironment"``; ``deaf``: a file with which the provider takes nothing down."""

    def __init__(self, *args, deaf="", **kwargs):
        super().__init__(*args, **kwargs)
        self._deaf = Path(deaf) if deaf else None
        self._provider = Path(os.environ["RENTED"])
        self._sandbox = None

    async def start(self, force_build):
        sandbox_id = f"sb-{uuid.uuid4().hex[:8]}"
        (self._provider / sandbox_id).touch()
        self._sandbox = SimpleNamespace(id=sandbox_id)
        await super().start(force_build)

    async def reconnect(self, sandbox_id):
        if not (self._provider / sandbox_id).exists():
            raise SandboxNotFoundError(sandbox_id)
        self._sandbox = SimpleNamespace(id=sandbox_id)

    def _is_deaf(self):
        return self._deaf is not None and self._deaf.exists()

    async def stop(self, delete):
        if self._is_deaf():
            self.logger.error("Error stopping sandbox: the provider does not answer")
        else:
            (self._provider / self._sandbox.id).unlink()
        if self._root.exists() and (self._root / "app").exists() and self.trial_paths.trial_dir.exists():
            await super().stop(delete)
