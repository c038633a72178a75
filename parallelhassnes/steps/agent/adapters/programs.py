"""Finding an agent's program and asking its version."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from parallelhassnes.steps.agent.adapters.agent_cli import NotInstalled

_VERSION = re.compile(r"\d+\.\d+[^\s)]*")
_WAIT_SEC = 30.0


def version(program: str, install: str, environ: Mapping[str, str]) -> str:
    """The version that ``program --version`` prints.

    Args:
        program: a name to look up in ``environ``'s PATH, or a path.
        install: what to do where it is not there, as an imperative.

    Raises:
        NotInstalled: there is no such program, or it says no version.
    """
    path = shutil.which(program, path=environ.get("PATH"))
    if path is None:
        raise NotInstalled(f"{program} is not installed (not on PATH)", fix=install)
    try:
        told = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_WAIT_SEC,
            check=False,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{path} --version fails: {error}", fix=install) from None
    found = _VERSION.search(told.stdout)
    if told.returncode != 0 or found is None:
        said = (told.stderr or told.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise NotInstalled(f"{path} --version ends with {told.returncode} and says {said[0][:200]!r}", fix=install)
    return found[0]


def link_login(name: str, user_home: Path | None, home: Path) -> None:
    """Link the user's login file into an agent's home, never copy it: what the agent renews is then the user's own.

    Args:
        user_home: where the user's own one is; None for no link.
    """
    link = home / name
    link.unlink(missing_ok=True)
    if user_home is not None and (user_home / name).is_file():
        link.symlink_to((user_home / name).absolute())


def user_home(environ: Mapping[str, str], variable: str, folder: str) -> Path | None:
    """The agent's home of this user: what ``variable`` says, else ``folder`` below HOME."""
    if environ.get(variable):
        return Path(environ[variable])
    return Path(environ["HOME"]) / folder if environ.get("HOME") else None
