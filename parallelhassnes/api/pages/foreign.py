"""What others wrote, as a page shows it: a part that is missing or odd is its default, and the rest is shown all the same.

Reports of agents, of earlier versions and of other programs have keys that nobody here has promised. Templates are strict, so that
no name in them lies; what they are given has every name.
"""

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.usage import Tokens, usd


class Foreign(BaseModel):
    """A document of somebody else's."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_default(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[info.field_name or ""].get_default(call_default_factory=True)

    @classmethod
    def of(cls, document: object) -> Self:
        """Return what the document says; the defaults where it is no object."""
        return cls.model_validate(safe_read.mapping(document))


class AgentSaid(Foreign):
    """Which agent a trial had."""

    name: str = ""
    model: str = ""


class TestsSaid(Foreign):
    """How many of a trial's tests passed."""

    passed: int = 0
    total: int = 0


class TrialSaid(Foreign):
    """``trial`` of a report."""

    reward: float | None = None
    rewards: dict[str, float] = {}
    undecided: str = ""
    passed: bool | None = None
    agent: AgentSaid = AgentSaid()
    tokens: Annotated[Tokens, BeforeValidator(Tokens.read)] = Tokens()
    cost_usd: Annotated[float | None, BeforeValidator(usd)] = None
    tests: TestsSaid | None = None
    timings_sec: dict[str, float | None] = {}


class Artifact(Foreign):
    """A file that is worth opening."""

    path: str = ""
    description: str = ""


class ReportSaid(Foreign):
    """``final.json`` of an attempt."""

    summary: str = ""
    artifacts: list[Artifact] = []
    trial: TrialSaid | None = None


class RecordSaid(Foreign):
    """``meta.json`` of an attempt."""

    kind: str = "unknown"
    queue_key: str = "unknown"
    stand_in: bool = False


class Baseline(Foreign):
    """What a verdict says of the oracle, or of the agent that does nothing."""

    present: bool = False
    ok: bool | None = None
    evidence: list[str] = []


class VerdictSaid(Foreign):
    """``verdict.json`` of a job."""

    task_quality: str = "unknown"
    confidence: float | None = None
    primary_issue: str = ""
    reasons: list[str] = []
    recommendations: list[str] = []
    baselines: dict[str, Baseline] = {}
