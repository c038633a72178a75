"""``budget``."""

from typing import Annotated

import typer

from parallelhassnes.cli.cancel_retry import ReasonOption
from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.errors import UserError


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(budget)


def budget(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="A batch id, or latest.")] = None,
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
    """Show what a batch (or queue key, or experiment) has spent, or raise what it may.

    Example: parallelhassnes budget latest --raise 30
    """
    from parallelhassnes import formatting
    from parallelhassnes.actions import budget as action
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.refs import resolve

    named = [each for each in (batch, key, experiment) if each is not None]
    if len(named) != 1:
        raise UserError("whose budget?", fix="name a batch, or one of --key and --experiment")
    ctx, name = open_store(root), named[0]
    look_only = usd is None and tokens is None
    done: action.Money
    if batch is not None:
        name = resolve(ctx.layout, batch).batch_id
        done = action.show(ctx, name) if look_only else action.change(ctx, name, usd=usd, tokens=tokens, reason=reason)
    else:
        scope: action.Scope = "key" if key is not None else "experiment"
        done = (
            action.show_shared(ctx, scope, name)
            if look_only
            else action.change_shared(ctx, scope, name, usd=usd, tokens=tokens, reason=reason)
        )
    if json:
        typer.echo(done.model_dump_json())
        return
    of_usd = "" if done.usd_limit is None else f" of {formatting.fixed(done.usd_limit)}"
    of_tokens = "" if done.tokens_limit is None else f" of {done.tokens_limit}"
    least = "at least " if done.attempts_unknown else ""
    unknown = f"; the cost of {formatting.counted(done.attempts_unknown, 'attempt')} is not known" if least else ""
    typer.echo(
        f"{name}: {least}{formatting.fixed(done.usd)}{of_usd} USD, {done.tokens}{of_tokens} tokens spent{unknown}"
    )
    if done.changed:
        typer.echo("the new budget counts from the next tick on")
