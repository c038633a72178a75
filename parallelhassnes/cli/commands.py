"""The commands: in which order ``--help`` has them, and which module of this folder makes each.

A module is imported when one of its commands is asked for: a program that looks at a store costs what it uses.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, override

import typer
from typer.core import TyperGroup
from typer.main import get_command

from parallelhassnes.actions.registry import ACTIONS

SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "init": "work",
        "validate": "work",
        "submit": "work",
        "run": "run",
        "harbor": "harbor",
        "tick": "work",
        "append": "append",
        "rerun": "upkeep",
        "import": "harbor",
    },
    "Look": {
        "status": "watch",
        "ls": "watch",
        "scoreboard": "watch",
        "show": "watch",
        "explain": "upkeep",
        "logs": "watch",
        "tail": "artifacts",
        "artifact": "artifacts",
        "diff": "artifacts",
        "open": "artifacts",
    },
    "Results": {
        "results": "results",
        "compare": "results",
        "errors": "results",
        "report": "report",
        "analyze": "analyses",
        "analyses": "analyses",
        "feedback": "artifacts",
        "export": "upkeep",
    },
    "Steer": dict.fromkeys((action.command for action in ACTIONS), "operators"),
    "Many hosts": {"runner": "runners", "runners": "runners", "pilot": "runners"},
    "Look after": {"doctor": "upkeep", "cron": "upkeep", "audit": "audit", "api": "serve", "token": "token"},
}
"""Title in ``--help`` → name of a command → module that registers it."""
_MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()}


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
