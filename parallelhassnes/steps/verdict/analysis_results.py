"""What the analyses of a job's trials say, as far as a verdict needs it: one entry per trial and engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parallelhassnes.plan import JobSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.store import attempts

KIND = "analysis"
PROVING_ENGINE = "rules"
"""Says only what the files prove; the others give opinions."""
BLAMING = frozenset({"bad_failure", "bad_success"})
"""The outcomes that are the task's doing, or are no success of the agent's."""
SILENT = frozenset({"unknown", "harness_error"})
"""The outcomes that say nothing about the task."""


@dataclass(frozen=True)
class EngineOpinion:
    """What one engine says of one trial."""

    step_id: str
    """Of the analysis."""
    trial: str
    """step_id of the trial."""
    engine: str
    """Who said it; with ``only_unknown`` a step of a model's engine may hand on what the rules had proven."""
    missing: bool = False
    """There is no record of the trial as it stands: the analysis failed, was not started, contradicts the reward, or is
    about an attempt that another one has followed. It counts nowhere."""
    attempt: str | None = None
    """Folder of the analysis, relative to the job's."""
    outcome: str = ""
    subtype: str = ""
    root_cause: str = ""
    recommendation: str = ""
    confidence: float = 0.0

    @property
    def blames(self) -> bool:
        return not self.missing and self.outcome in BLAMING

    @property
    def speaks(self) -> bool:
        return not self.missing and self.outcome not in SILENT

    @property
    def proves(self) -> bool:
        return self.engine == PROVING_ENGINE


def of_job(job_dir: Path, job: JobSpec, trials: Mapping[str, str | None]) -> list[EngineOpinion]:
    """Return the newest analysis of each trial by each engine, in the job's order.

    Args:
        trials: step_id → the folder of the attempt that counts, relative to the job's; None where there is none.
    """
    found = []
    for step in job.steps:
        trial = safe_read.text(step.spec.get("trial"))
        if step.kind == KIND and trial is not None and trial in trials:
            engine = safe_read.text(step.spec.get("engine")) or PROVING_ENGINE
            found.append(_read(job_dir, step.step_id, trial, trials[trial], engine))
    return found


def _read(job_dir: Path, step_id: str, trial: str, attempt: str | None, engine: str) -> EngineOpinion:
    step_dir = job_dir / "steps" / step_id
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        report = safe_read.read_object(folder / "final.json")
        if report is None or report.get("status") != "succeeded":
            continue
        found = safe_read.mapping(report.get("analysis"))
        about = safe_read.text(safe_read.mapping(found.get("trial")).get("attempt"))
        if attempt is None or about != attempt.rpartition("/")[2]:
            break
        by = safe_read.text(safe_read.mapping(found.get("engine")).get("name"), 100)
        return EngineOpinion(
            step_id,
            trial,
            by or engine,
            attempt=folder.relative_to(job_dir).as_posix(),
            outcome=safe_read.text(found.get("outcome"), 100) or "unknown",
            subtype=safe_read.text(found.get("subtype"), 100) or "unknown",
            root_cause=safe_read.text(found.get("root_cause"), 1000) or "",
            recommendation=safe_read.text(found.get("recommendation"), 1000) or "",
            confidence=min(1.0, max(0.0, float(safe_read.number(found.get("confidence")) or 0.0))),
        )
    return EngineOpinion(step_id, trial, engine, missing=True)
