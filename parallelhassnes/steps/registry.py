"""The kinds of steps by name; each is imported when it is first asked for."""

from importlib import import_module

from parallelhassnes.errors import UserError
from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import Kind

_KINDS: dict[str, tuple[str, str]] = {
    "agent": ("parallelhassnes.steps.agent.agent_step", "AgentKind"),
    "analysis": ("parallelhassnes.steps.analysis.analysis_step", "AnalysisKind"),
    "baseline": ("parallelhassnes.steps.baseline", "BaselineKind"),
    "command": ("parallelhassnes.steps.command", "CommandKind"),
    "trial": ("parallelhassnes.steps.trial.outcome", "TrialKind"),
    "verdict": ("parallelhassnes.steps.verdict.verdict_step", "VerdictKind"),
}


def names() -> tuple[str, ...]:
    """Return every kind that this version can run, sorted."""
    return tuple(sorted(_KINDS))


def kind(name: str) -> Kind:
    """Return the kind called ``name``; raises ``UserError`` where this version has none of that name."""
    if name not in _KINDS:
        known = ", ".join(names())
        raise UserError(f"unknown kind of step {name!r}", fix=f"use one of {known}")
    module, attribute = _KINDS[name]
    made: Kind = getattr(import_module(module), attribute)()
    return made


def needs(step: StepSpec) -> tuple[str, ...]:
    """Return what decides what ``preload`` imports for a step, without importing its kind: two steps of one answer need the same."""
    agent = safe_read.mapping(safe_read.mapping(step.spec.get("config")).get("agent")).get("name")
    return step.kind, safe_read.text(agent) or "", safe_read.text(step.spec.get("engine")) or ""
