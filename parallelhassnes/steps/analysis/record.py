"""The record of an analysis: what an engine said of one trial, after its quotes were looked up.

    <attempt>/analysis.json     written by the worker, once, by rename; ``final.json`` holds it under ``analysis``

``schemas/analysis.schema.json`` is made from ``Analysis``.
"""

from typing import Annotated, Literal

from pydantic import Field

from parallelhassnes.plan import Record
from parallelhassnes.steps.analysis.taxonomy import Outcome, Subtype
from parallelhassnes.steps.usage import StoredTokens, Tokens

type Text = Annotated[str, Field(max_length=4000)]


class Quote(Record):
    """Something that stands in a file, word for word."""

    file: Annotated[str, Field(max_length=500)]
    """Relative to the trial's attempt folder (``trial/verifier/test-stdout.txt``), or below ``task/`` for the task's own files."""
    line: Annotated[int, Field(ge=1)] | None = None
    """Number of its first line, from 1."""
    quote: Text
    """The words."""


class TrialRef(Record):
    """Which trial it is about."""

    batch_id: str
    job_id: str
    step_id: str
    attempt: str
    """Name of the attempt's folder."""
    run_id: str
    agent: str | None = None
    model: str | None = None
    task: str | None = None
    reward: float | None = None
    """As the verifier gave it; None where the trial was not scored."""


class EngineRef(Record):
    """Who said it."""

    name: Literal["rules", "codex", "claude", "api", "harbor"]
    model: str | None = None
    version: str | None = None
    """Of the program or rule set, where it says one."""


class Analysis(Record):
    """What one engine says of one trial."""

    schema_version: Literal[1] = 1
    trial: TrialRef
    engine: EngineRef
    status: Literal["done", "needs_attention"] = "done"
    """``needs_attention``: it contradicts the verified reward, and did so again when asked a second time."""
    outcome: Outcome
    """Whose doing the result is."""
    subtype: Subtype
    """How it came about; each belongs to one outcome."""
    evidence: tuple[Quote, ...] = ()
    """Quotes that were found in the trial's files, with the line where they stand."""
    struck: tuple[Quote, ...] = ()
    """Quotes that the engine gave and that do not stand where it said; each lowered the confidence."""
    root_cause: Text = ""
    """Why it came out so, in one or two sentences."""
    recommendation: Text = ""
    """What to do about it."""
    confidence: Annotated[float, Field(ge=0, le=1)]
    """0 to 1, after what struck quotes have taken from it."""
    contradiction: Text = ""
    """Why it needs attention."""
    facts: tuple[Text, ...] = ()
    """What the rules had found; given to the engine."""
    asked: Annotated[int, Field(ge=1)] = 1
    """How often the engine was asked."""
    tokens: StoredTokens = Field(default_factory=Tokens)
    """Over all answers."""
    cost_usd: float | None = None
    """US dollars, where the engine says what it has cost."""


class Answer(Record):
    """What an engine hands back; the JSON Schema that models are given is made from this."""

    outcome: Outcome
    subtype: Subtype
    evidence: Annotated[tuple[Quote, ...], Field(max_length=20)] = ()
    root_cause: Text
    recommendation: Text
    confidence: Annotated[float, Field(ge=0, le=1)]
