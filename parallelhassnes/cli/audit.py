"""``audit verify``."""

from typing import Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption

SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add this group."""
    group = typer.Typer(
        help="Prove that the store is as it was written.\n\nExample: parallelhassnes audit verify",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(verify)
    group.callback()(_group)
    app.add_typer(group, name="audit")


def _group() -> None:
    """Prove that the store is as it was written.

    Example: parallelhassnes audit verify
    """


def verify(
    batch: Annotated[
        str | None,
        typer.Argument(metavar="[BATCH]", help="A batch id, or latest; left out: every batch."),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Compare every file with its seal and every ledger with its chain; exit 1 if anything differs.

    Example: parallelhassnes audit verify latest
    """
    from parallelhassnes.cli.terminal import plain
    from parallelhassnes.cli.work import open_store
    from parallelhassnes.control.audit import verify as check
    from parallelhassnes.control.find import resolve
    from parallelhassnes.store.atomic import dumps

    layout = open_store(root).layout
    done = check(layout, None if batch is None else [resolve(layout, batch).batch_id])
    if json:
        typer.echo(dumps(done.model_dump()), nl=False)
        raise typer.Exit(0 if done.ok else 1)
    for finding in [*done.notes, *done.problems][:SHOWN]:
        text = f": {finding.text}" if finding.text else ""
        said = f"{finding.place}{text}".encode("utf-8", "backslashreplace").decode()
        typer.echo(f"{finding.what:11}{plain(said.replace('\n', '\\n'))}")
    more = len(done.notes) + len(done.problems) - SHOWN
    if more > 0:
        typer.echo(f"and {more} more; --json has all of them")
    word = (
        "everything is as it was written" if done.ok else f"{len(done.problems)} things are not as they were written"
    )  # fmt: skip
    typer.echo(
        f"{done.batches} batches, {done.attempts} attempts, {done.files} files, {done.bytes / 1e6:.1f} MB: {word}"
    )
    raise typer.Exit(0 if done.ok else 1)
