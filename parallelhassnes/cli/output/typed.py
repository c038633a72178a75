"""Problems of the table that ``run`` makes of its options, told by the options as they were typed."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parallelhassnes.errors import InvalidInput, Problem

TASKS = {r"/sweep/(path|tasks)(/\d+)?": "", r"/datasets/\d+/path": "-p", r"/tasks/\d+/path": "-p"}
"""What names tasks; that of ``run`` is an argument."""
OPTIONS = TASKS | {
    r"/sweep/task_names(/\d+)?": "-t",
    r"/sweep/exclude_task_names(/\d+)?": "-x",
    r"/sweep/dataset": "-d",
    r"/datasets/\d+/task_names(/\d+)?": "-i",
    r"/datasets/\d+/exclude_task_names(/\d+)?": "-x",
    r"/datasets/\d+(/(name|version|ref))?": "-d",
    r"/agents/\d+/name": "-a",
    r"/agents/\d+/(model_name|models/.*)": "-m",
    r"/agents/\d+/kwargs.*": "--ak",
    r"/agents/\d+/env.*": "--ae",
    r"/environment(/type)?": "-e",
    r"/environment/kwargs.*": "--ek",
    r"/n_attempts": "-k",
    r"/n_concurrent_trials": "-n",
    r"/sweep/agents/\d+/name": "-a",
    r"/sweep/agents/\d+/model(_name)?": "-m",
    r"/sweep/agents/\d+/models/.*": "-m",
    r"/sweep/agents/\d+/kwargs.*": "--ak",
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
MAY_BE_SECRET = frozenset({"--ae", "--ve", "--ek", "--ak", "--secret"})
"""Options whose values are never repeated; what they set is named."""


@contextmanager
def told_by_options(data: bytes, name: str, command: str = "run", file: str = "") -> Iterator[None]:
    """Tell problems of this table, which nobody has written, by the options that it was made of.

    Args:
        name: of the table in messages.
        command: what was typed; it stands before what no option says.
        file: what was typed, where a file of that name was changed by options into this table.
    """
    try:
        yield
    except InvalidInput as error:
        if file:
            raise InvalidInput(
                [each._replace(where=file) if each.where == name else each for each in error.problems]
            ) from None
        table = json.loads(data)
        found = [_typed(each, table, command) if each.where == name else each for each in error.problems]
        raise InvalidInput(list(dict.fromkeys(found))) from None


def _typed(problem: Problem, table: Any, command: str) -> Problem:
    fix = re.sub(
        "^name it in (secrets|model_name), or ", "", problem.fix
    )  # a table's way; here there are options alone
    for pattern, option in OPTIONS.items():
        if re.fullmatch(pattern, problem.pointer):
            value = _value(table, problem.pointer) if option not in MAY_BE_SECRET else _named(problem.pointer)
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                value = " ".join(value)
            said = f"{option or command} {value}" if isinstance(value, str | int | float) else option or command
            # "run nosuch: path nosuch does not exist" says it twice.
            message = re.sub(rf"^(path|dataset) {re.escape(str(value))} ", "", problem.message)
            return problem._replace(where=said, pointer="", message=message, fix=fix)
    return problem._replace(where=command, fix=fix)


def _named(pointer: str) -> str | None:
    """Return the variable or argument that a pointer leads to; None where it leads to all of them."""
    name = pointer.rpartition("/")[2]
    return None if name.isdecimal() or name in ("secrets", "env", "kwargs") else name


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
