"""Lines of a ledger for people: what operators have said, and what was decided about one attempt."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import formatting
from parallelhassnes.store.evidence import ledger

TAIL = 1 << 18
"""Bytes of the end of a ledger in which operators' words are looked for."""
_SHOWN_ELSEWHERE = frozenset({"seq", "prev", "at", "event", "by", "reason"})


class Word(NamedTuple):
    """One thing that an operator said."""

    at: str
    by: str
    event: str
    said: str
    """What they did, as a verb."""
    target: str
    """Batch, job or step, queue key or runner; empty where the ledger itself tells."""
    reason: str
    value: str
    """The new limit, priority or budget; empty where there is none."""
    touched: int
    """Attempts and steps that it was about."""


class AttemptEvent(NamedTuple):
    """One decision about an attempt."""

    at: str
    by: str
    event: str
    reason: str
    facts: dict[str, Any]
    """The rest of the line."""


def operators_words(folder: Path, words: Mapping[str, str], most: int = 12) -> list[Word]:
    """Return the newest words in the ledger of a batch, or of the store (``_system``); newest first.

    Args:
        words: event → what somebody did, as a verb; lines of other events are passed over.
    """
    start = max(0, ledger.size(folder) - TAIL)
    found = [event for _, event in ledger.read(folder, start) if event.get("event") in words]
    return [_word(event, words) for event in found[: -most - 1 : -1]]


def _word(event: dict[str, Any], words: Mapping[str, str]) -> Word:
    return Word(
        at=str(event.get("at", "")),
        by=str(event.get("by", "")),
        event=event["event"],
        said=words[event["event"]],
        target=str(event.get("target") or event.get("queue_key") or event.get("runner") or ""),
        reason=str(event.get("reason") or ""),
        value=_value(event),
        touched=len(event.get("attempts") or ()) + len(event.get("steps") or ())
        if isinstance(event.get("steps"), list)
        else 0,
    )


def _value(event: dict[str, Any]) -> str:
    if event["event"] == "budget":
        usd, tokens = event.get("usd"), event.get("tokens")
        parts = ([f"{formatting.fixed(usd)} USD"] if usd is not None else []) + (
            [formatting.counted(tokens, "token")] if tokens is not None else []
        )
        return " and ".join(parts)
    number = event.get("limit", event.get("priority"))
    return str(number) if isinstance(number, int) else ""


def about_attempt(batch_dir: Path, attempt: str) -> list[AttemptEvent]:
    """Return every line of the batch's ledger that names the attempt, oldest first."""
    run_id = attempt.partition("_")[2].encode()
    found = []
    with (batch_dir / ledger.LEDGER).open("rb") as stream:
        for line in stream:
            if run_id in line and line.endswith(b"\n"):
                document = json.loads(line)
                facts = {k: v for k, v in document.items() if k not in _SHOWN_ELSEWHERE}
                found.append(
                    AttemptEvent(document["at"], document["by"], document["event"], document.get("reason", ""), facts)
                )
    return found
