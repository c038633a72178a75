"""Problems of the table that ``run`` makes of its options, told by the options as they were typed."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parallelhassnes.errors import InvalidInput, Problem

OPTIONS = {
    r"/sweep/agents/\d+/name": "-a",
    r"/sweep/agents/\d+/model(_name)?": "-m",
    r"/sweep/agents/\d+/(models|kwargs)/.*": "-a",
    r"/sweep/agents/\d+/env.*": "--ae",
    r"/sweep/environment(/type)?": "-e",
    r"/sweep/environment/kwargs.*": "--ek",
    r"/sweep/verifier/env.*": "--ve",
    r"/sweep/(n_trials|trials)": "-k",
    r"/sweep/pass.*": "--pass",
    r"/limits/.*": "--limit",
    r"/secrets.*": "--secret",
    r"/experiment": "-E",
    r"/priority": "-P",
    r"/analysis.*": "--analyze-with",
}
"""What of a table an option says; a pointer that is not here is told as it is."""


@contextmanager
def told_by_options(data: bytes, name: str) -> Iterator[None]:
    """Tell problems of this table, which nobody has written, by the options that it was made of.

    Args:
        name: of the table in messages.
    """
    try:
        yield
    except InvalidInput as error:
        table = json.loads(data)
        raise InvalidInput([_typed(each, table) if each.where == name else each for each in error.problems]) from None


def _typed(problem: Problem, table: Any) -> Problem:
    for pattern, option in OPTIONS.items():
        if re.fullmatch(pattern, problem.pointer):
            value = _value(table, problem.pointer)
            said = f"{option} {value}" if isinstance(value, str | int | float) else option
            return problem._replace(where=said, pointer="")
    return problem._replace(where="run")


def _value(table: Any, pointer: str) -> Any:
    """Return what the pointer leads to, or the value in whose place it expects an object; None where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        if isinstance(table, list) and part.isdecimal() and int(part) < len(table):
            table = table[int(part)]
        elif isinstance(table, dict):
            table = table.get(part.replace("~1", "/").replace("~0", "~"))
        else:
            return None if isinstance(table, list) else table
    return table
