"""The whole prompt of an attempt, as text."""

from pathlib import Path
from typing import Any

from parallelhassnes.errors import UserError
from parallelhassnes.plan import AgentPlan
from parallelhassnes.steps import prompt_inputs
from parallelhassnes.steps.step_types import StepAttempt


def whole(attempt: StepAttempt, plan: AgentPlan) -> str:
    """The pack's text, ``prompt`` or the text of ``prompt_ref``, ``append_prompt``, and what the step is given besides.

    Raises:
        UserError: a file cannot be read, or a template cannot be filled in.
    """
    texts = [_text(plan.pack_prompt, plan.pack_prompt_ref), _text(plan.prompt, plan.prompt_ref), plan.append_prompt]
    given = prompt_inputs.rest(attempt, texts if plan.templates else [])
    if plan.templates:
        texts = prompt_inputs.fill(attempt, texts)
    parts = [text.rstrip("\n") for text in (*texts, *given)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str, path: str) -> str:
    if not path:
        return text
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UserError(f"prompt_ref {path} cannot be read: {why}") from None


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
