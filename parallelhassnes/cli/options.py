"""Options and arguments that several commands share, what a shell completes them to, and how a command gets its root."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parallelhassnes.store.layout import Layout

_LATEST = "latest"
_MOST = 200
"""Names that a shell is offered at most, the newest."""


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what an id may go on as: batches, newest first; behind ``BATCH/`` its jobs, behind ``BATCH/JOB/`` its steps."""
    from parallelhassnes.errors import UserError

    try:
        layout = layout_of(ctx.params.get("root"))
        known = layout.batch_ids()[::-1]
    except (UserError, OSError):  # a shell has no use for messages
        return []
    batch, *below = incomplete.split("/")
    if not below:
        return [name for name in (_LATEST, *known) if name.startswith(batch)][:_MOST]
    place = layout.batch(known[0] if batch == _LATEST and known else batch)
    for number, part in enumerate(below[:-1]):
        place = place / "steps" / part if number else place / part
    folder = place if len(below) == 1 else place / ("steps" if len(below) == len(("job", "step")) else "attempts")
    before = incomplete.rpartition("/")[0]
    return [f"{before}/{name}" for name in _folders(folder) if name.startswith(below[-1])][:_MOST]


def complete_batch(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the batches that an id may go on as."""
    return complete(ctx, incomplete.partition("/")[0])


def _folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as found:
            return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


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
WideOption = Annotated[
    bool, typer.Option("--wide", help="Draw tables with all their columns, wider than the terminal.")
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="Print the bytes as they are: on a terminal, too, which they may command.")
]

ID_HELP = "A batch, BATCH/JOB, BATCH/JOB/STEP or an attempt."
LookArgument = Annotated[
    str,
    typer.Argument(
        metavar="[ID]", help=f"{ID_HELP} [default: the newest batch]", show_default=False, autocompletion=complete
    ),
]
"""Of what only looks."""
NewestArgument = Annotated[
    str,
    typer.Argument(
        metavar="[ID]",
        help="An attempt; or a step, job or batch, for its newest attempt. [default: the newest batch's]",
        show_default=False,
        autocompletion=complete,
    ),
]
LookBatchArgument = Annotated[
    str,
    typer.Argument(
        metavar="[BATCH]", help="A batch. [default: the newest]", show_default=False, autocompletion=complete_batch
    ),
]
BatchArgument = Annotated[
    str, typer.Argument(metavar="BATCH", help="A batch id, or latest.", autocompletion=complete_batch)
]
"""Of what changes something: it is to be named."""


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
