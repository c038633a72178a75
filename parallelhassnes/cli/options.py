"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from parallelhassnes.config import find_root
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
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


def layout_of(root: Path | None) -> Layout:
    """The store of ``--root``, or of the folder that we are in."""
    return Layout(root.absolute() if root is not None else find_root(Path.cwd()))
