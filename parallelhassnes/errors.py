"""What a user can cause: one exception family, printed as one line each.

Everything else that goes wrong is ours: it goes to a log file with its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with an input."""

    where: str
    """The file, or the name of the input (``-`` for standard input, ``--limit`` for an option)."""
    pointer: str
    """JSON pointer (RFC 6901) inside ``where``; empty for the whole of it. A line may be named as ``line 3``."""
    message: str
    """What is wrong, without a full stop."""
    fix: str = ""
    """What to do about it, as an imperative."""

    def line(self) -> str:
        place = f"{self.where}{' ' + self.pointer if self.pointer else ''}"
        return f"{place}: {self.message}{'; ' + self.fix if self.fix else ''}"


class UserError(Exception):
    """Something that the user asked for cannot be done; exit code 2."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        self.message = message
        self.fix = fix
        super().__init__(f"{message}; {fix}" if fix else message)

    def lines(self) -> list[str]:
        return [str(self)]


class InvalidInput(UserError):
    """An input with one or more problems, all of them reported at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(problems[0].line() if problems else "invalid input")

    def lines(self) -> list[str]:
        return [problem.line() for problem in self.problems]


class UnknownId(UserError):
    """An id that names nothing in the store."""


class StoreBusy(UserError):
    """Somebody else holds a lock of the store, and does not let go of it."""


def why_not_started(program: str, error: OSError) -> str:
    """Say why a program did not start: it is not there, or it is and may not be run."""
    if isinstance(error, FileNotFoundError):
        return f"there is no program {program}"
    return f"the program {program} cannot be run: {error.strerror}"


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Import packages of an extra within such a block.

    Args:
        name: the extra, as ``pyproject.toml`` calls it.
        what: what needs them, with its verb.

    Raises:
        UserError: one of them is not installed; says what to type.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} {error.name}, which is not installed", fix=f"pip install 'parallelhassnes[{name}]'"
        ) from None
