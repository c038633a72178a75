"""``pause``, ``resume``, ``close``, ``reopen``, ``drain``, ``undrain``, ``limit``, ``priority``, ``explain``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.cancel_retry import IdArgument, ReasonOption
from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.cli.work import open_store

if TYPE_CHECKING:
    from parallelhassnes.actions.pause_resume import Held
    from parallelhassnes.schedule.context import Context

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, or latest.")]
BatchOrKeyArgument = Annotated[str, typer.Argument(metavar="BATCH|KEY", help="A batch id, latest, or a queue key.")]
RunnerArgument = Annotated[str | None, typer.Argument(metavar="RUNNER", help="A runner's id. [default: this host's]")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (pause, resume, close, reopen, drain, undrain, limit, priority, explain):
        app.command()(command)


def pause(
    target: BatchOrKeyArgument, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False
) -> None:
    """Start nothing of a batch, or on a queue key, until it is resumed; what runs goes on.

    Example: parallelhassnes pause latest --reason "the proxy is down"
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.pause(ctx, target, reason))


def resume(
    target: BatchOrKeyArgument, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False
) -> None:
    """Let a paused batch or queue key go on, also a key that its provider's refusals paused.

    Example: parallelhassnes resume latest
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.resume(ctx, target, reason))


def close(batch: BatchArgument, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False) -> None:
    """Start nothing more of a batch; what runs ends, what waits stays undone.

    Example: parallelhassnes close latest --reason "enough seen"
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.close(ctx, batch, reason))


def reopen(batch: BatchArgument, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False) -> None:
    """Let a closed batch go on.

    Example: parallelhassnes reopen latest
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.reopen(ctx, batch, reason))


def drain(
    runner: RunnerArgument = None, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False
) -> None:
    """Have a host start nothing more, of any batch; what runs there ends.

    Example: parallelhassnes drain --reason "reboot at noon"
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.drain(ctx, runner, reason))


def undrain(
    runner: RunnerArgument = None, reason: ReasonOption = "", root: RootOption = None, json: JsonOption = False
) -> None:
    """Let a drained host start attempts again.

    Example: parallelhassnes undrain
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.undrain(ctx, runner, reason))


def limit(
    setting: Annotated[str, typer.Argument(metavar="KEY=N", help="A queue key and its limit; KEY= takes it away.")],
    reason: ReasonOption = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Set the live attempts of a queue key while things run, in the place of the configured limit.

    Example: parallelhassnes limit agent:oracle=2
    """
    from parallelhassnes.actions import pause_resume
    from parallelhassnes.errors import UserError

    key, sign, text = setting.rpartition("=")
    number = int(text) if text.isdecimal() and len(text) < 7 else None
    if not sign or not key or (text and not number):
        raise UserError(f"{setting}: is not KEY=N", fix="write openai/gpt-5.2=3, or openai/gpt-5.2=")
    _do(root, json, lambda ctx: pause_resume.limit(ctx, key, number, reason))


def priority(
    batch: BatchArgument,
    number: Annotated[
        int, typer.Argument(metavar="N", help="-1000 to 1000; higher starts first.", min=-1000, max=1000)
    ],
    reason: ReasonOption = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Change the priority of a batch while it runs.

    Example: parallelhassnes priority latest 10
    """
    from parallelhassnes.actions import pause_resume

    _do(root, json, lambda ctx: pause_resume.priority(ctx, batch, number, reason))


def explain(target: IdArgument, root: RootOption = None, json: JsonOption = False) -> None:
    """Say why a step is where it is: what it waits for, until when, or how it ended and what follows.

    Example: parallelhassnes explain latest
    """
    from parallelhassnes.views import explain as action

    ctx = open_store(root)
    found = action.explain(ctx, target)
    if json:
        typer.echo(found.model_dump_json())
        return
    for step in found.steps:
        typer.echo(f"{step.step}: {step.state}")
        for line in step.why:
            typer.echo(f"  {line}")
    if found.more:
        typer.echo(f"… and {found.more} more steps; name one, or use --json")


def _do(root: Path | None, json: bool, act: "Callable[[Context], Held]") -> None:
    done = act(open_store(root))
    if json:
        typer.echo(done.model_dump_json())
        return
    typer.echo(done.line if done.changed else f"{done.line} (as before)")
    if done.started:
        typer.echo(f"{done.started} attempts started")
