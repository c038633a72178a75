"""The lines that let a host tick by itself: a crontab line, or a systemd timer."""

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from parallelhassnes.errors import UserError
from parallelhassnes.execute.processes import OURSELVES

_LONGEST = 998
"""Bytes of a line that cron reads; the rest is cut off."""
_NEEDED = (
    "sh",
    "docker",
    "docker-compose",
    "podman",
    "git",
    "bwrap",
    "pasta",
    "slirp4netns",
    "codex",
    "claude",
    "node",
    "ssh-keygen",
    "uv",
)
"""Programs that attempts start by name."""


class Units(BaseModel):
    """File name → content of the systemd user units."""

    files: dict[str, str]


class CrontabLine(NamedTuple):
    """A crontab line."""

    text: str
    left_out: list[str]
    """Folders of the PATH of now for which it has no room, and in which nothing is that attempts are known to need."""


def crontab_line(root: Path, *, gc: bool = False) -> CrontabLine:
    """Return one line for ``crontab -e``: absolute paths, the PATH of now, silent unless there is trouble.

    Args:
        gc: the line that removes and packs by rule once a day, instead of the one that ticks.

    Raises:
        UserError: it would be longer than cron reads.
    """
    folders = list(dict.fromkeys(filter(None, os.environ.get("PATH", os.defpath).split(os.pathsep))))
    text, left_out = _line(folders, root, gc=gc), []
    if len(os.fsencode(text)) > _LONGEST:
        kept = [f for f in folders if any(os.access(os.path.join(f, p), os.X_OK) for p in _NEEDED)]  # noqa: PTH118
        text, left_out = _line(kept, root, gc=gc), [folder for folder in folders if folder not in kept]
    if len(os.fsencode(text)) > _LONGEST:
        raise UserError(
            f"the line would have {len(os.fsencode(text))} bytes, and cron reads {_LONGEST}",
            fix="use `cron --systemd`, or a shorter PATH",
        )
    return CrontabLine(text, left_out)


def _line(folders: list[str], root: Path, *, gc: bool) -> str:
    command = f"PATH={shlex.quote(os.pathsep.join(folders))} {_command(root, 'gc', '--yes') if gc else _command(root, 'tick')}"
    return f"{'23 4 * * *' if gc else '* * * * *'} {command.replace('%', chr(92) + '%')}"


def systemd_units(root: Path) -> Units:
    """Return a oneshot service and its timer, for ``~/.config/systemd/user/``."""
    path = os.environ.get("PATH", os.defpath).replace("%", "%%")
    service = f"""\
[Unit]
Description=ParallelHassnes tick of {root}

[Service]
Type=oneshot
WorkingDirectory={str(root).replace("%", "%%")}
Environment="PATH={path}"
ExecStart={_command(root, "tick").replace("%", "%%")}
# Attempts outlive the tick that starts them.
KillMode=process
"""
    timer = """\
[Unit]
Description=ParallelHassnes tick, every minute

[Timer]
OnCalendar=minutely
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
    return Units(files={"parallelhassnes.service": service, "parallelhassnes.timer": timer})


def _command(root: Path, *words: str) -> str:
    command = [*OURSELVES, "parallelhassnes", *words, "--quiet", "--root", str(root)]
    return shlex.join(command)
