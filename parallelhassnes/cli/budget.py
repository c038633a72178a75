"""``budget``."""

from typing import Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(budget)


def budget(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, or latest.")],
    usd: Annotated[
        float | None,
        typer.Option("--raise", metavar="USD", help="Let it spend so many USD in all."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", help="Let it use so many tokens in all.")
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a batch has spent, or raise what it may.

    Example: parallelhassnes budget latest --raise 30
    """
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.control import budget as control
    from parallelhassnes.control.find import resolve

    ctx = open_store(root)
    batch_id = resolve(ctx.layout, batch).batch_id
    if usd is None and tokens is None:
        done = control.show(ctx, batch_id)
    else:
        done = control.change(ctx, batch_id, usd=usd, tokens=tokens)
    if json:
        typer.echo(done.model_dump_json())
        return
    of_usd = "" if done.usd_limit is None else f" of {done.usd_limit:.2f}"
    of_tokens = "" if done.tokens_limit is None else f" of {done.tokens_limit}"
    typer.echo(f"{batch_id}: {done.usd:.2f}{of_usd} USD, {done.tokens}{of_tokens} tokens spent")
    if done.changed:
        typer.echo("the new budget counts from the next tick on")
