"""Verdicts in a table: an engine that writes prose about each."""

from parallelhassnes.tables.expanders.expansion import Draft, Expansion
from parallelhassnes.tables.model import VerdictPart

KEY = "verdict"


def told(drafts: list[Draft], part: VerdictPart | None, context: Expansion) -> list[Draft]:
    """The jobs with the engine's settings in the ``spec`` of their verdicts, which then have a queue key of their own."""
    if part is None:
        return drafts
    spec = part.model_dump(exclude_none=True, exclude={"queue_key"})
    key = context.key(part.queue_key or f"{KEY}:{part.engine}", "/verdict/queue_key")
    return [
        draft._replace(
            steps=[
                step.model_copy(update={"spec": spec, "queue_key": key if step.queue_key == KEY else step.queue_key})
                if step.kind == "verdict"
                else step
                for step in draft.steps
            ]
        )
        for draft in drafts
    ]
