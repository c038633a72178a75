"""``runs/_system/store_id``: what a store is known by, and what its containers are marked with, so that two stores on one
Docker host never touch each other's. Written once, when the store is made; where it was deleted, a new one is made, and
what bears the old one is nobody's any more.

Only ``init`` and ``run`` make a store. Anything else that finds none leaves it at that: a root whose disk is not mounted, or that
was moved away, is not made again at its old place.
"""

from pathlib import Path

from parallelhassnes import names
from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout

STORE_ID = "store_id"


class NoStore(UserError):
    """There is no store where one is to be."""


def check(layout: Layout) -> None:
    """See that the store is there.

    Raises:
        NoStore: there is no store; nothing was made.
    """
    # Earlier versions made the id when it was first needed; a store whose system folder was lost has batches.
    if members.is_there(layout.system / STORE_ID) or layout.system.is_dir() or layout.arrivals():
        return
    raise NoStore(
        f"there is no store in {layout.root}",
        fix=f"mount or move it back, if it has one, or make one with `parallelhassnes init --root {layout.root}`",
    )


def store_id(runs: Path) -> str:
    """Return the id of the store whose ``runs`` folder this is; makes it where there is none, or what is there names nothing."""
    path = runs / "_system" / STORE_ID
    while True:
        try:
            found = path.read_bytes().decode("ascii", "replace").strip()
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            atomic.claim(path, f"{names.new_run_id()}\n".encode("ascii"))
            continue
        if names.is_safe_id(found):
            return found
        path.unlink(missing_ok=True)  # a power cut: with an empty id, stores would take each other's containers
