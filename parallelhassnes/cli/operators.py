"""An operator's words: a command for each action of ``actions.registry``. ``limit`` and ``budget`` are written out."""

from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallelhassnes.actions.registry import ACTIONS, BY_NAME, Action, Value, parameter
from parallelhassnes.cli.options import ID_HELP, JsonOption, ReasonOption, RootOption, complete, complete_batch
from parallelhassnes.cli.work import open_store
from parallelhassnes.errors import UserError
from parallelhassnes.refs import resolve

if TYPE_CHECKING:
    from parallelhassnes.actions.attribution import ActionResult

_TARGETS: dict[tuple[str, ...], tuple[str, str]] = {
    ("batch",): ("BATCH", "A batch id, or latest."),
    ("batch", "key"): ("BATCH|KEY", "A batch id, latest, or a queue key."),
    ("batch", "job", "step"): ("ID", ID_HELP),
    ("runner",): ("RUNNER", "A runner's id. [default: this host's]"),
}
"""What an action can be about → the argument's name and help."""


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    by_hand: dict[str, Callable[..., None]] = {"limit": limit, "budget": budget}
    for name, command in {**{a.name: _command(a) for a in ACTIONS if not a.by_hand}, **by_hand}.items():
        example = f"parallelhassnes {name} {BY_NAME[name].example}".strip()
        app.command(name, help=f"{BY_NAME[name].help}\n\nExample: {example}\n")(command)


def _command(action: Action) -> Callable[..., None]:
    metavar, about = _TARGETS[action.targets]
    # Several can be named, where no other argument follows.
    many = metavar != "RUNNER" and not any(value.shape == "number" for value in action.values)

    def command(*, target: list[str] | str | None, root: Path | None, json: bool, **values: Any) -> None:
        ctx = open_store(root)
        if isinstance(target, list) and len(target) > 1:
            if json:
                raise UserError("--json prints one document", fix="name one id")
            if "key" not in action.targets:  # before the first is done, see that all are there
                target = [str(resolve(ctx.layout, each)) for each in target]
        for each in target if isinstance(target, list) else [target]:
            _print(action.do(ctx, each, **values), json=json)

    completion = None if metavar == "RUNNER" else complete if "step" in action.targets else complete_batch
    argument = typer.Argument(metavar=metavar, help=action.target_help or about, autocompletion=completion)
    kind: Any = list[str] if many else str | None
    command.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            parameter("target", Annotated[kind, argument], None if metavar == "RUNNER" else Parameter.empty),
            *map(_value, action.values),
            parameter("reason", ReasonOption, Parameter.empty if action.needs_reason else ""),
            parameter("root", RootOption, None),
            parameter("json", JsonOption, default=False),
        ]
    )
    return command


def _value(value: Value) -> Parameter:
    if value.shape == "number":
        argument = typer.Argument(metavar=value.metavar, help=value.help, min=value.least, max=value.most)
        return parameter(value.name, Annotated[int, argument])
    option = typer.Option(f"--{value.word}", metavar=value.metavar, help=value.help)
    if value.shape == "amount":
        return parameter(value.name, Annotated[float | None, option], None)
    if value.shape == "flag":
        return parameter(value.name, Annotated[bool, option], default=False)
    return parameter(value.name, Annotated[list[str] | None, option], None)


def limit(
    setting: Annotated[str, typer.Argument(metavar="KEY=N", help="A queue key and its limit; KEY= takes it away.")],
    reason: ReasonOption = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    key, sign, text = setting.rpartition("=")
    number = int(text) if text.isdecimal() and len(text) < 7 else None
    if not sign or not key or (text and not number):
        raise UserError(f"{setting}: is not KEY=N", fix="write openai/gpt-5.2=3, or openai/gpt-5.2=")
    _print(BY_NAME["limit"].do(open_store(root), key, reason, number=number), json=json)


def budget(
    batch: Annotated[
        str | None, typer.Argument(metavar="[BATCH]", help="A batch id, or latest.", autocompletion=complete_batch)
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Instead: of a queue key, over all batches.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Instead: of all its batches together.")
    ] = None,
    usd: Annotated[
        float | None, typer.Option("--raise", metavar="USD", help="Let it spend so many USD in all.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", help="Let it use so many tokens in all.")
    ] = None,
    reason: ReasonOption = "",
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    named = {"budget": batch, "budget-key": key, "budget-experiment": experiment}
    chosen = [(name, target) for name, target in named.items() if target is not None]
    if len(chosen) != 1:
        why = "several are named" if chosen else "whose is not said"
        raise UserError(f"budget: {why}", fix="name one batch, --key KEY or --experiment NAME")
    [(name, target)] = chosen
    # A part that is None stays as it is, so without any the budget is only shown.
    _print(BY_NAME[name].do(open_store(root), target, reason, usd=usd, tokens=tokens), json=json)


def _print(done: "ActionResult", *, json: bool) -> None:
    typer.echo(done.model_dump_json() if json else "\n".join(done.lines()))
