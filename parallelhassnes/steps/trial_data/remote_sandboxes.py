"""Sandboxes of trials that run at somebody else's (Daytona, Modal, E2B, Runloop …), as long as they may be up.

    runs/_system/sandboxes/<run_id>.json     written by the worker as soon as Harbor knows the sandbox's id; removed by whoever has taken
                                             it down: the worker, repair after its death, or ``doctor --reap``

It lies outside of the attempt, so it outlives a batch's folder, and a seal does not speak of it. A crash between the sandbox's end and the
file's leaves a record of what is gone: the next one that looks is told so by the provider. ``state.json`` of the attempt has the id, too.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallelhassnes.plan import Record
from parallelhassnes.store import atomic


class RemoteSandbox(Record):
    """One sandbox."""

    run_id: str
    environment: str
    """Harbor's environment type, or an import path."""
    sandbox_id: str
    """The provider's."""
    config: dict[str, Any]
    """Harbor's config of the environment, as the plan has it: names of variables, not their values."""

    @property
    def text(self) -> str:
        return f"{self.environment}:{self.sandbox_id}"


def _folder(runs: Path) -> Path:
    return runs / "_system" / "sandboxes"


def _place(runs: Path, run_id: str) -> Path:
    return _folder(runs) / f"{run_id}.json"


def note(runs: Path, sandbox: RemoteSandbox) -> None:
    """Remember a sandbox that is up."""
    _folder(runs).mkdir(mode=0o700, exist_ok=True)
    atomic.write_json(_place(runs, sandbox.run_id), sandbox.model_dump(mode="json"))


def forget(runs: Path, run_id: str) -> None:
    """Forget one that is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_place(runs, run_id))  # noqa: PTH108 - also of every trial that had none


def of_attempt(runs: Path, run_id: str) -> RemoteSandbox | None:
    """Return the sandbox of an attempt that may be up."""
    with contextlib.suppress(OSError, atomic.CorruptFile):
        return atomic.read_record(RemoteSandbox, _place(runs, run_id))
    return None


def every(runs: Path) -> Iterator[RemoteSandbox]:
    """Yield all that may be up."""
    with contextlib.suppress(OSError):
        for name in atomic.json_files(_folder(runs)):
            if (found := of_attempt(runs, name.removesuffix(".json"))) is not None:
                yield found
