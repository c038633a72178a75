"""Each member of the store by itself: what cannot be read is passed over and named, and the others go on.

A member is a table, batch, job, step, attempt, ticket, queue key, token, runner or uploaded task. Every loop over members
does what it does with one of them inside ``apart``. What goes wrong there is that member's, whatever the file
system says of it (no permission, a bad block, a stale handle, a name too long, a folder where a file should be), except what is wrong with the
host itself: no space, no memory, no descriptors, a disk that is read-only. That goes on up.

What was passed over is told to whoever ``collecting`` it: a tick, a reader's answer.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from parallelhassnes.store import atomic

type Told = Callable[[Exception], object]

_collected: ContextVar[list[str] | None] = ContextVar("passed_over", default=None)


class apart:  # noqa: N801 - used as a verb, in a with statement
    """Leave the block where this member cannot be read or written.

    Args:
        place: its file or folder, which is named where the error names none.
        told: what is done about it; ``pass_over`` where nothing is said.
    """

    def __init__(self, place: Path | str, told: Told | None = None) -> None:
        self._place, self._told = place, told

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, atomic.CorruptFile | OSError) or not atomic.is_damage(error):
            return False
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self._place)
        (self._told or pass_over)(error)
        return True


def pass_over(error: Exception) -> None:
    """Have the damage told by whoever collects."""
    say(atomic.describe_damage(error))


def say(line: str) -> None:
    """Have a line on a member that was passed over told by whoever collects."""
    lines = _collected.get()
    if lines is not None and line not in lines:
        lines.append(line)


@contextmanager
def collecting(*, alone: bool = False) -> Iterator[list[str]]:
    """Give a list that gets a line for each member that is passed over in the block.

    Args:
        alone: whoever collects around the block is not told too.
    """
    lines: list[str] = []
    token = _collected.set(lines)
    try:
        yield lines
    finally:
        _collected.reset(token)
        for line in () if alone else lines:
            say(line)


def names(folder: Path | str, told: Told | None = None) -> list[str]:
    """Return the names in a member's folder, sorted, without hidden ones; none where it is not there or cannot be listed."""
    with apart(folder, told):
        try:
            return sorted(name for name in os.listdir(folder) if name[0] != ".")
        except (FileNotFoundError, NotADirectoryError):
            return []
    return []


def is_there(path: Path | str) -> bool:
    """Tell whether something is there; what cannot be looked at counts as there: not seen is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
