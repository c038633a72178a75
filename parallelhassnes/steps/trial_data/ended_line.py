"""What the ledger's line of an attempt's end says of its report: the line's ``trial``, ``used`` or ``verdict``, by kind.

    {"event": "ended", "kind": "trial", …, "cost_usd": 0.5, "tokens": 1200, "phases": [2.1, 30.5, 1.2],
     "trial": {"result": "scored", "reward": 1.0, …}}

Every view of a batch reads these lines (``views.projection``), and every sum of money and tokens is one over ``spent`` of them.
Lines of older versions have none of these, or leave out whose trial it was: what they lack is read from the attempt's files,
by the same functions.
"""

from collections.abc import Mapping
from typing import Any

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read, usage
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.usage import Tokens

SAID = frozenset({"trial", "used", "verdict"})
"""The keys of which a line has one, where its kind has anything to say."""
SILENT = frozenset({"command", "baseline"})
"""Kinds that have nothing to say."""
PHASE_TIMINGS = {
    "set-up": ("environment_setup", "agent_setup"),
    "agent": ("agent_execution",),
    "verifier": ("verifier",),
}
"""Phase of a trial → what Harbor calls its parts; a trial's line has their seconds under ``phases``, in this order."""
VERDICT = ("task_broken", "scored", "passes", "steps", "task_quality")
"""What of a verdict's report is told."""
QUALITY_OF_1: dict[bool | None, str] = {True: "broken", False: "good", None: "unknown"}
"""``task_broken``, which was all that verdicts before 2.0.0 said, as ``task_quality``."""


def line(step: StepSpec, status: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an attempt of the step that ended so, for its line."""
    said: dict[str, Any] = {"kind": step.kind}
    if step.kind == "trial":
        found = facts.of_report(status, report, step)
        said |= {"trial": facts.compact(found, step), "cost_usd": found.cost_usd}
        return {
            **said,
            "tokens": found.tokens.whole or None,
            "cost_unknown": found.cost_incomplete or None,
            "phases": phases(safe_read.mapping(report.get("trial"))),
        }
    if step.kind in ("agent", "analysis"):
        part = safe_read.mapping(report.get(step.kind))
        cost, tokens = usage.usd(part.get("cost_usd")), Tokens.read(part.get("tokens"))
        used = {"cost_usd": cost, **tokens._asdict(), "seconds": safe_read.number(part.get("seconds"))}
        told = {name: value for name, value in used.items() if value is not None}
        return {**said, "used": told, "cost_usd": cost, "tokens": tokens.whole or None}
    if step.kind == "verdict":
        found_verdict = safe_read.mapping(report.get("verdict"))
        said["verdict"] = {name: found_verdict.get(name) for name in VERDICT if found_verdict}
    return said


def phases(trial: Mapping[str, Any]) -> list[float]:
    """Return the seconds of each phase of a trial, by its report; 0 where it says nothing."""
    timings = safe_read.mapping(trial.get("timings_sec"))
    return [
        round(sum(safe_read.number(timings.get(name)) or 0.0 for name in parts), 3) for parts in PHASE_TIMINGS.values()
    ]


def spent(line: Mapping[str, Any]) -> usage.UsageSum:
    """Tell what the attempt of such a line has used.

    A line of an older version names the sum of its tokens, which counts as input; what it says is checked again.
    """
    kind, used = line.get("kind"), safe_read.mapping(line.get("used"))
    cost = usage.usd(line.get("cost_usd"))
    unknown = bool(line.get("cost_unknown")) or (cost is None and line.get("cost_usd") is not None)
    if line.keys().isdisjoint(SAID):
        tokens = Tokens(usage.tokens(line.get("tokens")))
    elif kind == "trial":
        found = safe_read.mapping(line.get("trial")).get("tokens")
        counts = found if isinstance(found, list | tuple) and len(found) == 3 else ()
        tokens = Tokens(*map(usage.tokens, counts))
    else:
        tokens = Tokens(*map(used.get, Tokens._fields))
    # An analysis by rules alone costs nothing.
    must_say = kind in ("trial", "agent", None)
    return usage.one_attempt(cost, tokens, cost_unknown=unknown, must_say=must_say)
