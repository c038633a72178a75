"""Options that every command has, and how a command gets its root."""

from pathlib import Path
from typing import Annotated

import typer

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Folder that holds runs/ and parallelhassnes.toml. [default: the nearest one upwards, else the current one]",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]


def root_or_default(root: Path | None) -> Path:
    """The root that a command works on, absolute."""
    from parallelhassnes.config import find_root

    return root.absolute() if root is not None else find_root(Path.cwd())
