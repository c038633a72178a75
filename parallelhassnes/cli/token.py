"""``token create``, ``token revoke``, ``token list``."""

from typing import Annotated

import typer

from parallelhassnes.cli.commands import CommandGroup
from parallelhassnes.cli.options import JsonOption, RootOption

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the ledger calls its holder.")]


def register(app: typer.Typer) -> None:
    """Add this group."""
    group = typer.Typer(
        cls=CommandGroup,
        help="Say who may use the HTTP interface.\n\nExample: parallelhassnes token list",
        no_args_is_help=True,
    )
    for command in (create, revoke):
        group.command()(command)
    group.command("list")(list_tokens)
    app.add_typer(group, name="token")


def create(
    name: NameArgument,
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="read|submit|operate",
            help="See everything; also submit tables and tasks; also cancel, retry, pause, limit ….",
        ),
    ] = "read",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="PART",
            help="Only for this part of the interface, such as metrics or results; may be repeated.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="30d", help="Refused after so long: hours (h), days (d) or weeks (w)."),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and print it; it is shown only now.

    Example: parallelhassnes token create ci --role submit --expires 30d
    """
    from parallelhassnes.admin import tokens
    from parallelhassnes.cli.work import open_store

    made = tokens.create(open_store(root), name, role, scopes=scope or (), expires=expires)
    typer.echo(made.model_dump_json() if json else made.token)
    if not json:
        typer.echo(f"{name} may {role}; keep the token, nothing can show it again", err=True)


def revoke(name: NameArgument, root: RootOption = None, json: JsonOption = False) -> None:
    """Have a token refused from now on.

    Example: parallelhassnes token revoke ci
    """
    from parallelhassnes.admin import tokens
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.store.atomic import dumps

    tokens.revoke(open_store(root), name)
    typer.echo(dumps({"ok": True, "name": name}) if json else f"{name} is revoked", nl=not json)


def list_tokens(root: RootOption = None, json: JsonOption = False) -> None:
    """List the tokens, without the tokens themselves.

    Example: parallelhassnes token list
    """
    from parallelhassnes.admin import tokens
    from parallelhassnes.cli.options import layout_of
    from parallelhassnes.store.atomic import dumps

    found = tokens.every(layout_of(root))
    if json:
        shown = [token.model_dump(exclude={"sha256", "schema_version"}) for token in found]
        typer.echo(dumps({"ok": True, "tokens": shown}), nl=False)
        return
    for token in found:
        until = f", {'expired' if token.expired else 'until'} {token.expires_at}" if token.expires_at else ""
        only = f", only for {', '.join(token.scopes)}" if token.scopes else ""
        typer.echo(f"{token.name:20} {token.role:8} {token.created_at} by {token.by}{until}{only}")
    if not found:
        typer.echo("there is no token; make one: parallelhassnes token create NAME --role operate")
