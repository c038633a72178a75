"""What the analyses of a job's trials say, as far as a verdict needs it: one entry per trial and engine."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from parallelhassnes.plan import JobSpec
from parallelhassnes.steps import untrusted

KIND = "analysis"
PROVING_ENGINE = "rules"
"""Says only what the files prove; the others give opinions."""
BLAMING = frozenset({"bad_failure", "bad_success"})
"""The outcomes that are the task's doing, or are no success of the agent's."""
SILENT = frozenset({"unknown", "harness_error"})
"""The outcomes that say nothing about the task."""


@dataclass(frozen=True)
class Opinion:
    """What one engine says of one trial."""

    step_id: str
    """Of the analysis."""
    trial: str
    """step_id of the trial."""
    engine: str
    missing: bool = False
    """There is no record: it failed, was not started, or contradicts the reward. It counts nowhere."""
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


def of_job(job_dir: Path, job: JobSpec, trials: Collection[str]) -> list[Opinion]:
    """The newest analysis of each of these trials by each engine, in the job's order."""
    return [
        _read(job_dir, step.step_id, trial, untrusted.text(step.spec.get("engine")) or PROVING_ENGINE)
        for step in job.steps
        if step.kind == KIND and (trial := untrusted.text(step.spec.get("trial"))) in trials and trial is not None
    ]  # fmt: skip


def _read(job_dir: Path, step_id: str, trial: str, engine: str) -> Opinion:
    for folder in _newest_first(job_dir / "steps" / step_id / "attempts"):
        report = untrusted.read_object(folder / "final.json")
        if report is None or report.get("status") != "succeeded":
            continue
        found = untrusted.mapping(report.get("analysis"))
        return Opinion(
            step_id, trial, engine,
            attempt=folder.relative_to(job_dir).as_posix(),
            outcome=untrusted.text(found.get("outcome"), 100) or "unknown",
            subtype=untrusted.text(found.get("subtype"), 100) or "unknown",
            root_cause=untrusted.text(found.get("root_cause"), 1000) or "",
            recommendation=untrusted.text(found.get("recommendation"), 1000) or "",
            confidence=min(1.0, max(0.0, float(untrusted.number(found.get("confidence")) or 0.0))),
        )  # fmt: skip
    return Opinion(step_id, trial, engine, missing=True)


def _newest_first(attempts: Path) -> Iterator[Path]:
    try:
        names = sorted((path.name for path in attempts.iterdir()), reverse=True)
    except OSError:
        return
    yield from (attempts / name for name in names if not name.startswith("."))
