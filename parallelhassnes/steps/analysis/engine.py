"""What an engine with a model is: the Protocol, what it is asked, what it hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.record import Tokens


class EngineFailed(Exception):
    """An engine came to no answer: the analysis is missing, which says nothing about the trial."""

    def __init__(self, failure_class: str, line: str, evidence: str = "") -> None:
        super().__init__(line)
        self.failure_class, self.line, self.evidence = failure_class, line, evidence


@dataclass(frozen=True)
class Question:
    """What an engine is asked."""

    prompt: str
    schema: Mapping[str, Any]
    facts: Sequence[str]
    """What the rules have found."""
    case: Case
    name: str
    """Of a Harbor trial, should it take one."""
    folder: Path
    """An empty folder of its own, inside the analysis's attempt; not below TMPDIR."""
    settings: Mapping[str, Any]
    """The step's ``spec``: ``model``, ``base_url`` …"""
    environ: Mapping[str, str]
    timeout_sec: float


@dataclass(frozen=True)
class Reply:
    """What came back."""

    document: Any
    """Of the question's schema, if the engine kept to it; None where it said no JSON."""
    model: str | None = None
    version: str | None = None
    tokens: Tokens = field(default_factory=Tokens)
    cost_usd: float | None = None


class AnalysisEngine(Protocol):
    """Who looks at a trial. Implementations are stateless."""

    def ask(self, question: Question) -> Reply:
        """Ask once, in a conversation of its own.

        Raises:
            EngineFailed: it came to no reply; the class says whether another attempt may help.
        """


_ENGINES = {
    "codex": ("parallelhassnes.steps.analysis.engine_cli", "codex"),
    "claude": ("parallelhassnes.steps.analysis.engine_cli", "claude"),
    "harbor": ("parallelhassnes.steps.analysis.engine_harbor", "harbor"),
    "api": ("parallelhassnes.steps.analysis.engine_api", "api"),
}


def engine(name: str) -> AnalysisEngine:
    """The engine of that name; raises EngineFailed where there is none."""
    if name not in _ENGINES:
        raise EngineFailed("task_definition", f"there is no engine {name}")
    module, maker = _ENGINES[name]
    made: AnalysisEngine = getattr(import_module(module), maker)()
    return made
