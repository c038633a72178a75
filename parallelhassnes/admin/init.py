"""``init``: the folders of a root and a commented configuration; overwrites nothing."""

from pathlib import Path
from typing import NamedTuple

from parallelhassnes.config import Config
from parallelhassnes.errors import UserError
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.schedule import reboot
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import atomic, identity, space
from parallelhassnes.store.layout import Layout

_TEMPLATE = Path(__file__).with_name("template.toml")


class Initialised(NamedTuple):
    """What ``init`` found and made."""

    root: Path
    made: list[str]
    """Paths relative to the root; empty where all was there already."""


def init(root: Path) -> Initialised:
    """Make what is missing of a root.

    Raises:
        UserError: a folder cannot be made there, or the root lies in a task.
    """
    layout = Layout(root.absolute())
    check_apart(layout)
    made = []
    try:
        for folder in (*layout.folders(), layout.runners):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                made.append(str(folder.relative_to(layout.root)))
        config = layout.root / CONFIG_NAME
        if not config.exists():
            text = _TEMPLATE.read_text(encoding="utf-8").format(concurrency=Config().concurrency)
            atomic.claim(config, text.encode())  # whole, or not at all: an empty one would be taken for what was wished
            made.append(CONFIG_NAME)
        identity.store_id(layout.runs)
    except OSError as error:
        raise _refused(root, error) from None
    return Initialised(layout.root, made)


def ensure(ctx: Context, *, make: bool = False, look: bool = False) -> None:
    """Make the store's folders where they are missing: a queue that was deleted, or torn by a power cut, comes back.

    Args:
        look: for whoever only looks: nothing is made where another host works on the root.
        make: make a store where there is none.

    Raises:
        NoStore: there is none, and none is to be made.
        SecondHost: another host works on the root, and this one has not joined; nothing was changed.
        UserError: the folders cannot be made there, or a new store would lie in a task.
    """
    check_apart(ctx.layout)
    if not make:
        identity.check(ctx.layout)
    if look and not check_host.may_work(ctx):
        return
    check_host.check(ctx)
    try:
        if not all(folder.is_dir() for folder in ctx.layout.folders()):
            rebuild(ctx)
        identity.store_id(ctx.layout.runs)
        reboot.recover(ctx)
    except OSError as error:
        raise _refused(ctx.layout.root, error) from None


def _refused(root: Path, error: OSError) -> UserError:
    """Return what a host refuses of a root, in one line with what to do."""
    fix = "choose another --root, or free the path"
    if space.is_full(error):
        fix = "free some space, or choose another --root"
    return UserError(f"{error.filename or root}: {error.strerror}", fix=fix)


def check_apart(layout: Layout) -> None:
    """Refuse to make a store in a task's folder, before anything is made: it would change what the task is."""
    runs = layout.runs.resolve()
    if layout.system.is_dir():
        return
    task = next((folder for folder in runs.parents if (folder / "task.toml").is_file()), None)
    if task is not None:
        raise UserError(
            f"the store {layout.runs} would lie inside the task {task}, and would change it",
            fix="use a root outside of the task: --root DIR",
        )
