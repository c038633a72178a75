"""Options that several commands share, and how a command gets its root."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parallelhassnes.store.layout import Layout

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="The folder with runs/; default: the nearest one upwards with parallelhassnes.toml, else here.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the ledger.")]
ID_HELP = "A batch, BATCH/JOB, BATCH/JOB/STEP or an attempt."
IdArgument = Annotated[str, typer.Argument(metavar="ID", help=ID_HELP)]
RawOption = Annotated[
    bool, typer.Option("--raw", help="Print the bytes as they are: on a terminal, too, which they may command.")
]


def root_or_default(root: Path | None, *, may_be_made: bool = False) -> Path:
    """Return the root that a command works on, absolute.

    Args:
        may_be_made: the command makes a store where there is none, so the folder may be missing.

    Raises:
        UserError: the folder that was named is not there, or is none.
    """
    from parallelhassnes.errors import UserError
    from parallelhassnes.store.layout import find_root

    if root is None:
        return find_root(Path.cwd())
    if not (root.is_dir() or (may_be_made and not root.exists())):
        raise UserError(f"--root {root}: is not a folder", fix="make it with `parallelhassnes init --root DIR`")
    return root.absolute()


def layout_of(root: Path | None) -> "Layout":
    """Return the store of ``--root``, or of the folder that we are in."""
    from parallelhassnes.store.layout import Layout

    return Layout(root_or_default(root))


ReuseOption = Annotated[
    bool, typer.Option("--reuse", help="Take over trials that a batch of the store has scored by the same content.")
]
