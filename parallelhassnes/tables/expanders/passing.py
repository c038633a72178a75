"""What a pass is: as the step, the sweep, the table or the task says it, in this order; the first that says anything counts."""

import re
from typing import Any

from pydantic import ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.plan import PassRule, PassSource
from parallelhassnes.tables.expanders.tasks import FoundTask
from parallelhassnes.tables.model import PassPart

type Said = tuple[PassPart | None, PassSource]
"""What one place says, and which place that is."""

_OPTION = re.compile(r"(?P<name>[^<>=]*?)\s*(?:>=\s*(?P<limit>\S+))?", re.DOTALL)


def rule_for(task: FoundTask, *said: Said) -> dict[str, Any] | None:
    """Return the rule of a trial of this task, for its ``spec``; None where nobody says anything."""
    for part, source in (*said, (task.passing, "task")):
        if part is not None:
            rule = PassRule(**part.model_dump(exclude_none=True), source=source)
            return rule.model_dump()
    return None


def of_option(text: str) -> dict[str, Any]:
    """Return ``NAME``, ``NAME>=X`` or ``>=X`` of a command line as a table says it.

    Raises:
        UserError: it is none of these.
    """
    found = _OPTION.fullmatch(text.strip())
    part: dict[str, Any] = {}
    try:
        if found is not None and found["name"].strip():
            part["reward"] = found["name"].strip()
        if found is not None and found["limit"] is not None:
            part["at_least"] = float(found["limit"])
        return PassPart.model_validate(part).model_dump(exclude_none=True)
    except (ValueError, ValidationError):
        raise UserError(
            f"--pass {text}: is no rule", fix="write --pass 'NAME>=0.5', --pass NAME or --pass '>=0.5'"
        ) from None
