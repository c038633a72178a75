"""The whole prompt of an attempt, as text."""

from pathlib import Path
from typing import Any

from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPlan


def whole(plan: AgentPlan) -> str:
    """``prompt`` or the text of ``prompt_ref``, then ``append_prompt``.

    Raises:
        UserError: the file cannot be read.
    """
    text = plan.prompt
    if plan.prompt_ref:
        try:
            text = Path(plan.prompt_ref).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise UserError(f"prompt_ref {plan.prompt_ref} cannot be read: {why}") from None
    return "\n\n".join(part for part in (text.rstrip("\n"), plan.append_prompt) if part) + "\n"


def repair(problems: list[str], schema: dict[str, Any]) -> str:
    """What is said to an agent whose report was not valid."""
    import json

    shown = "\n".join(f"- {line}" for line in problems[:50])
    return (
        "Your last message is not the report that was asked for:\n"
        f"{shown}\n\n"
        "Answer with the report alone: one JSON document, without any other text, that fits this JSON Schema:\n"
        f"{json.dumps(schema)}\n"
    )
