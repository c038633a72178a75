"""``feedback``: what agents said about their own prompts, gathered over a batch.

A line of an agent's final text that begins with a marker (``PROMPT_AMBIGUITY:``, ``MISSING_INPUT:``, ``PROMPT_DELTA:``, or those
of the configuration) is one; list bullets and bold print before it do not matter. Looked at are the texts in the
agent's report, ``final.txt`` and, where the report is prose, what was said; a line that stands in several of them counts once.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from parallelhassnes.steps import final_report, safe_read
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.layout import Layout

LAST_MESSAGE = "agent/last_message.txt"
MAX_TEXT = 4 << 20


class FeedbackLine(BaseModel):
    """One line."""

    marker: str
    """Without its colon."""
    text: str
    step: str
    """``job_id/step_id``."""
    attempt: str
    """Name of the attempt's folder."""
    number: int
    """Which of the step's attempts that is, from 1."""


class Feedback(BaseModel):
    """What was said, in the table's order."""

    schema_version: Literal[1] = 1
    ok: bool = True
    batch_id: str
    markers: list[str]
    attempts: int
    """Ended attempts of agent steps that were looked at."""
    lines: list[FeedbackLine]


def feedback(layout: Layout, batch_id: str, markers: Sequence[str]) -> Feedback:
    """Gather the lines of every ended attempt of the batch's agent steps.

    Args:
        markers: the words that a line begins with, with or without the colon.
    """
    words = [marker.rstrip(":") for marker in markers]
    found = Feedback(batch_id=batch_id, markers=words, attempts=0, lines=[])
    pattern = _pattern(words)
    for job_dir in batches.job_dirs(layout, batch_id):
        for step in batches.read_job(job_dir).steps:
            if step.kind != "agent":
                continue
            step_dir = job_dir / "steps" / step.step_id
            for number, name in enumerate(attempts.names(step_dir), 1):
                folder = step_dir / "attempts" / name
                if attempts.is_sealed(folder):
                    found.attempts += 1
                    found.lines += [
                        FeedbackLine(
                            marker=marker, text=text, step=f"{job_dir.name}/{step.step_id}", attempt=name, number=number
                        )
                        for marker, text in dict.fromkeys(_said(folder, pattern))
                    ]
    return found


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    anyone = "|".join(map(re.escape, words))
    return re.compile(rf"^[\s>*_`#\-•\d.)]*({anyone})[*_`]*:[*_`]*[ \t]*(.*)$", re.MULTILINE)


def _said(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for text in _texts(folder):
        for match in pattern.finditer(text):
            said = match[2].strip().rstrip("*_`").strip()
            if said:
                yield match[1], said


def _texts(folder: Path) -> Iterator[str]:
    own = final_report.of(folder)
    agent = safe_read.mapping(own["report"].get("agent"))
    yield from _strings(agent.get("report"))
    if agent.get("report") is None:  # prose: the whole of it
        message = safe_read.read_bytes(folder / LAST_MESSAGE, MAX_TEXT) or b""
        yield message.decode("utf-8", "replace")
    yield own["text"]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
