"""What the ledger's line of an attempt's end says of its report: the line's ``trial``, ``used`` or ``verdict``, by kind.

    {"event": "ended", "kind": "trial", …, "cost_usd": 0.5, "tokens": 1200, "trial": {"result": "scored", "reward": 1.0, …}}

Every view of a batch reads these lines alone. Lines of older versions have none of these: what they lack is read from the
attempt's files, once, by the same functions.
"""

from collections.abc import Mapping
from typing import Any

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import untrusted
from parallelhassnes.steps.trial_data import amounts, facts

SAID = frozenset({"trial", "used", "verdict"})
"""The keys of which a line has one, where its kind has anything to say."""
SILENT = frozenset({"command", "baseline"})
"""Kinds that have nothing to say."""
VERDICT = ("task_broken", "scored", "passes", "steps", "task_quality")
"""What of a verdict's report is told."""


def line(step: StepSpec, status: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an attempt of the step that ended so, for its line."""
    said: dict[str, Any] = {"kind": step.kind}
    if step.kind == "trial":
        found = facts.of_report(status, report, step)
        counts = [count for count in (found.tokens[0], found.tokens[2]) if count is not None]
        said |= {"trial": facts.compact(found), "cost_usd": found.cost_usd}
        return {
            **said,
            "tokens": sum(counts) or None,
            "cost_unknown": found.cost_incomplete or None,
        }
    if step.kind in ("agent", "analysis"):
        used = _used(untrusted.mapping(report.get(step.kind)))
        counts = [count for count in (used["input"], used["output"]) if count is not None]
        told = {name: value for name, value in used.items() if value is not None}
        return {**said, "used": told, "cost_usd": used["cost_usd"], "tokens": sum(counts) or None}
    if step.kind == "verdict":
        found_verdict = untrusted.mapping(report.get("verdict"))
        said["verdict"] = {name: found_verdict.get(name) for name in VERDICT if found_verdict}
    return said


def _used(part: Mapping[str, Any]) -> dict[str, Any]:
    tokens = untrusted.mapping(part.get("tokens"))
    return {
        "cost_usd": amounts.usd(part.get("cost_usd")),
        **{name: amounts.tokens(tokens.get(name)) for name in amounts.TOKENS},
        "seconds": untrusted.number(part.get("seconds")),
    }
