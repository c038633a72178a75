"""``approve``, ``reject``."""

from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.cli.work import open_store

if TYPE_CHECKING:
    from parallelhassnes.actions.approve import Decided

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A step; or a job or batch, for all its steps that wait for a person.")
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (approve, reject):
        app.command()(command)


def approve(
    target: IdArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the ledger.")] = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Let steps start that wait for a person (gate: human).

    Example: parallelhassnes approve latest --reason "read it"
    """
    from parallelhassnes.actions import approve as action

    _say(action.approve(open_store(root), target, reason), "approved", json)


def reject(
    target: IdArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the ledger.")],
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Have steps that wait for a person never start, nor what needs them; approve takes it back.

    Example: parallelhassnes reject latest --reason "not this week"
    """
    from parallelhassnes.actions import approve as action

    _say(action.reject(open_store(root), target, reason), "rejected", json)


def _say(done: "Decided", word: str, json: bool) -> None:
    if json:
        typer.echo(done.model_dump_json())
        return
    if not done.steps:
        typer.echo(f"nothing of {done.target} waits for a person")
    for step in done.steps:
        typer.echo(f"{word} {step}")
    if done.started:
        typer.echo(f"{done.started} attempts started")
