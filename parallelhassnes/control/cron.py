"""The lines that let a host tick by itself: a crontab line, or a systemd timer."""

import os
import shlex
import sys
from pathlib import Path

from pydantic import BaseModel


class Units(BaseModel):
    """File name → content of the systemd user units."""

    files: dict[str, str]


def crontab_line(root: Path) -> str:
    """One line for ``crontab -e``: absolute paths, the PATH of now, silent unless there is trouble."""
    path = os.environ.get("PATH", os.defpath)
    command = f"PATH={shlex.quote(path)} {_tick(root)}"
    return f"* * * * * {command.replace('%', chr(92) + '%')}"


def systemd_units(root: Path) -> Units:
    """A oneshot service and its timer, for ``~/.config/systemd/user/``."""
    path = os.environ.get("PATH", os.defpath).replace("%", "%%")
    service = f"""\
[Unit]
Description=ParallelHassnes tick of {root}

[Service]
Type=oneshot
WorkingDirectory={str(root).replace("%", "%%")}
Environment="PATH={path}"
ExecStart={_tick(root).replace("%", "%%")}
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


def _tick(root: Path) -> str:
    command = [sys.executable, "-m", "parallelhassnes", "tick", "--quiet", "--root", str(root)]
    return shlex.join(command)
