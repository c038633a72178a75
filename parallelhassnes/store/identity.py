"""``runs/_system/store_id``: what this store's containers are marked with, so that two stores on one Docker host
never touch each other's. Written once; where it was deleted, a new one is made, and what bears the old
one is nobody's any more.
"""

import os
from pathlib import Path

from parallelhassnes import names

STORE_ID = "store_id"


def store_id(runs: Path) -> str:
    """The id of the store whose ``runs`` folder this is; makes it where there is none."""
    path = runs / "_system" / STORE_ID
    while True:
        try:
            found = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            _make(path)
            continue
        return found


def _make(path: Path) -> None:
    """Claim the name by a link, which fails where somebody was faster; the content is whole from the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{STORE_ID}.{os.getpid()}")
    fresh.write_text(names.new_run_id() + "\n", encoding="ascii")
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        return
    finally:
        fresh.unlink(missing_ok=True)
