"""The commands: in which order ``--help`` has them, and which module of this folder makes each.

A module is imported when one of its commands is asked for: a program that looks at a store costs what it uses. What ``--help``
says of each is in ``summaries.json``, which ``reference.py`` writes from their docstrings, so that a list of them imports none.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, override

import typer
from typer.core import TyperGroup
from typer.main import get_command

from parallelhassnes.actions.registry import ACTIONS
from parallelhassnes.errors import UserError

SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "init": "work",
        "validate": "work",
        "submit": "work",
        "run": "run",
        "harbor": "harbor",
        "tick": "work",
        "append": "run",
        "rerun": "upkeep",
        "regrade": "upkeep",
        "import": "harbor",
    },
    "Look": {
        "status": "watch",
        "ls": "watch",
        "watch": "watch",
        "scoreboard": "watch",
        "show": "watch",
        "explain": "upkeep",
        "logs": "watch",
        "tail": "artifacts",
        "artifact": "artifacts",
        "diff": "artifacts",
        "open": "artifacts",
        "view": "serve",
        "help": "upkeep",
    },
    "Report": {
        "results": "results",
        "compare": "results",
        "errors": "results",
        "report": "report",
        "analyze": "analyses",
        "analyses": "analyses",
        "feedback": "artifacts",
        "export": "upkeep",
    },
    "Operate": dict.fromkeys((action.command for action in ACTIONS), "operators"),
    "Administer": {
        "doctor": "upkeep",
        "notify": "upkeep",
        "cron": "upkeep",
        "audit": "audit",
        "api": "serve",
        "mcp": "serve",
        "token": "token",
        "pack": "upkeep",
        "unpack": "upkeep",
        "gc": "upkeep",
        "archive": "archive",
        "du": "upkeep",
        "runner": "runners",
        "runners": "runners",
        "pilot": "runners",
    },
}
"""Title in ``--help`` → name of a command → module that registers it."""
_MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()}


WHOLE_HELP = 1000
"""Characters of a command's line in ``--help``: more than any has, so that none is cut."""
_SAME = {"close-batch": "close"}
_OF_A_STEP = {"force-retry": "retry", "requeue": "retry", "mark-failed": "cancel --ended"}
_GONE = {
    "serve": "`parallelhassnes api` stays up and ticks; `parallelhassnes cron` prints the line for cron",
    "tail-events": "use `parallelhassnes tail ID`, or `logs ID --follow`",
    "lint-terminology": "it was for the earlier program's own documents",
}
EARLIER = {*_SAME, *_OF_A_STEP, *_GONE}
"""Commands of the earlier ParallelHassnes that have another name here, or none."""


def of_today(args: list[str]) -> list[str]:
    """Return a command line of the earlier ParallelHassnes as it is written today; any other as it is.

    Raises:
        UserError: its command is gone.
    """
    name, words = args[0], args[1:]
    if name in _SAME:
        return [_SAME[name], *words]
    if name in _OF_A_STEP and len(words) >= 3 and not any(word.startswith("-") for word in words[:3]):
        command, *options = _OF_A_STEP[name].split()
        return [command, "/".join(words[:3]), *options, *words[3:]]
    if name in EARLIER:
        fix = _GONE.get(name) or f"use `parallelhassnes {_OF_A_STEP[name]} BATCH/JOB/STEP`"
        raise UserError(f"{name} is a command of the earlier ParallelHassnes", fix=fix)
    return args


SUMMARIES = Path(__file__).with_name("summaries.json")


def summaries() -> dict[str, str]:
    """Return the first line of each command's help, by its name."""
    found: dict[str, str] = json.loads(SUMMARIES.read_text(encoding="utf-8"))
    return found


class CommandGroup(TyperGroup):
    """Commands below a command; none of their lines is cut."""

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(WHOLE_HELP)) for name, each in self.commands.items()])


class Commands(Mapping[str, Any]):
    """Name → command, made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    @override
    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            group = get_command(_registered(_MODULES[name]))
            assert isinstance(group, TyperGroup)  # noqa: S101 - it has a callback
            self._made |= group.commands
        return self._made[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    @override
    def __len__(self) -> int:
        return len(_MODULES)


def _registered(module: str) -> typer.Typer:
    """What a module of this folder registers, as a program of its own."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    import_module(f"{__package__}.{module}").register(app)
    return app
