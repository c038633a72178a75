"""What was planned before a batch ran, what was run, and what deviates; from its ledger alone."""

from collections import Counter
from typing import Any, NamedTuple

from parallelhassnes.plan import Preregistration
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

_WORDS = {
    "closed": "was closed",
    "reopened": "was reopened",
    "budget": "had its budget changed",
    "rejected": "had steps rejected",
    "retry": "had steps retried by hand",
    "canceled": "had steps canceled",
}


class Planned(NamedTuple):
    """One batch with a plan."""

    batch_id: str
    plan: Preregistration
    sha256: str
    at: str
    """When it was written down."""
    trials: dict[str, tuple[int, int, int]]
    """Agent → trials that were planned, that were started, that succeeded at last."""
    deviations: tuple[str, ...]
    """One line each; none where it ran as planned."""


def of(layout: Layout, batch_id: str) -> Planned | None:
    """The plan of a batch against its ledger; None where it has none."""
    batch_dir = layout.batch(batch_id)
    plan = batches.read_batch(batch_dir).plan
    if plan is None:
        return None
    at, deviations = "", list[str]()
    wanted, labels, ends = Counter[str](), dict[str, str](), dict[str, str]()
    for _, line in ledger.read(batch_dir):
        event = line.get("event")
        if event == "planned":
            at = str(line.get("at"))
            if line.get("plan_sha256") != plan.sha256():
                deviations.append("the plan in batch_meta.json is not the one of the ledger")
        elif event == "submitted":
            wanted = Counter(line.get("trials") or {})
        elif event in ("launched", "carried") and line.get("label"):
            labels[f"{line['job_id']}/{line['step_id']}"] = str(line["label"])
        elif event == "added" and line.get("trials"):
            deviations.append(_said(line, f"{sum(line['trials'].values())} trials were added"))
        elif event in _WORDS:
            deviations.append(_said(line, f"the batch {_WORDS[event]}"))
        if event in ("ended", "carried"):
            ends[f"{line['job_id']}/{line['step_id']}"] = str(line.get("status"))
    return Planned(
        batch_id, plan, plan.sha256(), at, _trials(wanted, labels, ends), (*deviations, *_short(wanted, labels, ends))
    )


def _trials(wanted: Counter[str], labels: dict[str, str], ends: dict[str, str]) -> dict[str, tuple[int, int, int]]:
    started = Counter(labels.values())
    done = Counter(label for step, label in labels.items() if ends.get(step) == "succeeded")
    return {name: (wanted[name], started[name], done[name]) for name in {**wanted, **started}}


def _short(wanted: Counter[str], labels: dict[str, str], ends: dict[str, str]) -> list[str]:
    return [
        f"{name}: {planned} trials were planned, {started} were started and {done} succeeded"
        for name, (planned, started, done) in _trials(wanted, labels, ends).items()
        if not planned == started == done
    ]


def _said(line: dict[str, Any], what: str) -> str:
    reason = f": {line['reason']}" if line.get("reason") else ""
    return f"{what} by {line.get('by')} at {line.get('at')}{reason}"
