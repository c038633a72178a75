"""What engines have said of an attempt: an analysis's own record, or those about a trial."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from parallelhassnes.refs import Found
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.analysis.analysis_step import ANALYSIS_FILE
from parallelhassnes.steps.analysis.record import Analysis
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.layout import Layout


class AnalysisSaid(NamedTuple):
    """One analysis."""

    record: Analysis
    attempt: str
    """``BATCH/JOB/STEP/ATTEMPT`` of the analysis."""
    trial: str
    """The same of the trial that it is about."""


def analyses_of(layout: Layout, found: Found) -> list[AnalysisSaid]:
    """The analyses that an attempt made, or that were made of it; the newest of each step."""
    job_dir = layout.job(found.batch_id, found.job_id or "")
    made = []
    for step in batches.read_job(job_dir).steps:
        if step.kind != "analysis":
            continue
        step_dir = layout.step(found.batch_id, found.job_id or "", step.step_id)
        own = step.step_id == found.step_id
        ref = attempts.newest(step_dir)
        if ref is None or not (own or step.spec.get("trial") == found.step_id):
            continue
        name = found.attempt or ref.name if own else ref.name
        record = _record(step_dir / "attempts" / name / ANALYSIS_FILE)
        if record is not None and (own or record.trial.attempt == found.attempt):
            place = f"{found.batch_id}/{found.job_id}"
            trial = f"{place}/{record.trial.step_id}/{record.trial.attempt}"
            made.append(AnalysisSaid(record, f"{place}/{step.step_id}/{name}", trial))
    return made


def _record(path: Path) -> Analysis | None:
    document = safe_read.read_object(path)
    if document is None:
        return None
    try:
        return Analysis.model_validate(document)
    except ValidationError:  # of a later version, or not ours
        return None
