"""What the analyses of a batch or of an attempt say, trial by trial, and how far the engines agree."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.refs import Found, resolve
from parallelhassnes.results import collect
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.analysis.analysis_step import ANALYSIS_FILE
from parallelhassnes.steps.analysis.record import Analysis
from parallelhassnes.store import attempts, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus
from parallelhassnes.views.scoreboard_models import View


class Opinion(View):
    """What one engine says of a trial."""

    engine: str
    """``codex``, or ``codex · gpt-5.2`` where the step names a model."""
    state: Literal["done", "needs_attention", "missing", "failed"]
    """``missing``: it has not ended; ``failed``: it ended without an analysis, which says nothing of the trial."""
    outcome: str | None = None
    subtype: str | None = None
    confidence: float | None = None
    root_cause: str = ""
    stale: bool = False
    """It is about an earlier attempt of the trial."""
    step: str
    """``job_id/step_id`` of the analysis."""
    attempt: str | None = None
    """Its newest attempt's folder, relative to the root."""


class AnalysedTrial(View):
    """One trial."""

    trial: str
    """``job_id/step_id``."""
    reward: float | None = None
    result: str
    """``scored``, ``unscored``, ``infrastructure``, ``canceled``, ``skipped`` or ``missing``."""
    opinions: list[Opinion]


class Agreement(View):
    """How two engines compare over the trials that both have classified."""

    engines: tuple[str, str]
    both: int
    """Trials that both have classified; ``unknown`` classifies nothing."""
    same_outcome: int
    same_subtype: int
    kappa: float | None = None
    """Cohen's kappa of the outcomes (1960): 1 is full agreement, 0 what chance gives; None where both say one thing only."""


class Analysed(View):
    """What ``analyses`` prints with ``--json``."""

    schema_version: Literal[1] = 1
    ok: bool = True
    id: str
    """What was asked about."""
    trials: list[AnalysedTrial]
    outcomes: dict[str, dict[str, int]]
    """Engine → outcome → trials."""
    agreement: list[Agreement]
    disagree: list[str]
    """Trials on whose outcome the engines do not agree."""


def analyses(layout: Layout, text: str) -> Analysed:
    """Return the analyses under an id.

    Raises:
        UnknownId: there is no such thing.
    """
    found = resolve(layout, text)
    return collected(str(found), list(_trials(layout, found)))


def collected(name: str, trials: list[AnalysedTrial]) -> Analysed:
    """Return the same of these trials."""
    outcomes: dict[str, dict[str, int]] = {}
    for trial in trials:
        for opinion in trial.opinions:
            counts = outcomes.setdefault(opinion.engine, {})
            said = opinion.outcome if opinion.state == "done" and opinion.outcome else opinion.state
            counts[said] = counts.get(said, 0) + 1
    split = [t.trial for t in trials if len({o.outcome for o in t.opinions if _says(o)}) > 1]
    return Analysed(
        id=name,
        trials=trials,
        outcomes=outcomes,
        disagree=split,
        agreement=[agreement(trials, pair) for pair in combinations(outcomes, 2)],
    )


class _Pair(NamedTuple):
    one: Opinion
    other: Opinion


def agreement(trials: list[AnalysedTrial], engines: tuple[str, str]) -> Agreement:
    """Tell how far two engines agree."""
    pairs = []
    for trial in trials:
        said = {opinion.engine: opinion for opinion in trial.opinions if _says(opinion)}
        if engines[0] in said and engines[1] in said:
            pairs.append(_Pair(said[engines[0]], said[engines[1]]))
    return Agreement(
        engines=engines,
        both=len(pairs),
        same_outcome=sum(pair.one.outcome == pair.other.outcome for pair in pairs),
        same_subtype=sum(pair.one.subtype == pair.other.subtype for pair in pairs),
        kappa=kappa([(str(pair.one.outcome), str(pair.other.outcome)) for pair in pairs]),
    )


def kappa(pairs: list[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa: (p_o - p_e) / (1 - p_e); None of nothing, and where chance alone agrees always."""
    if not pairs:
        return None
    n = len(pairs)
    observed = sum(one == other for one, other in pairs) / n
    names = {name for pair in pairs for name in pair}
    expected = sum(
        sum(one == name for one, _ in pairs) * sum(other == name for _, other in pairs) for name in names
    ) / (n * n)
    return None if expected == 1 else round((observed - expected) / (1 - expected), 6)


def _says(opinion: Opinion) -> bool:
    return opinion.state == "done" and opinion.outcome != "unknown" and not opinion.stale


def _trials(layout: Layout, found: Found) -> Iterator[AnalysedTrial]:
    status = batch_status.read_told(layout, found.batch_id)
    for job_dir in batches.job_dirs(layout, found.batch_id):
        if found.job_id in (None, job_dir.name):
            yield from _of_job(layout, status, batches.read_job(job_dir), found.step_id)


def _of_job(layout: Layout, status: BatchStatus, job: JobSpec, only: str | None) -> Iterator[AnalysedTrial]:
    trials = [step for step in job.steps if step.kind == "trial"]
    about: dict[str, list[StepSpec]] = {}
    for step in job.steps:
        if step.kind == "analysis":
            about.setdefault(str(step.spec.get("trial")), []).append(step)
    known = collect.of_job(status, job)
    for trial in trials:
        fact = known[trial.step_id]
        own = about.get(trial.step_id, [])
        if only not in (None, trial.step_id, *(step.step_id for step in own)):
            continue
        yield AnalysedTrial(
            trial=f"{job.job_id}/{trial.step_id}",
            reward=fact.reward,
            result=fact.result,
            opinions=[_opinion(layout, job, step, fact.attempt) for step in own],
        )


def engine_of(spec: dict[str, Any]) -> str:
    """Tell how an engine is called: by its name, and its model where one is named."""
    return " · ".join(str(part) for part in (spec.get("engine"), spec.get("model")) if part)


def _opinion(layout: Layout, job: JobSpec, step: StepSpec, trial: str | None) -> Opinion:
    step_dir = layout.step(job.batch_id, job.job_id, step.step_id)
    ref = attempts.newest(step_dir)
    name, engine = f"{job.job_id}/{step.step_id}", engine_of(step.spec)
    if ref is None or not attempts.is_sealed(ref.dir):
        return Opinion(engine=engine, state="missing", step=name)
    place = str(ref.dir.relative_to(layout.root))
    report = safe_read.read_object(ref.dir / attempts.FINAL) or {}
    try:
        made = Analysis.model_validate(report.get("analysis"))
    except ValidationError:
        return Opinion(engine=engine, state="failed", step=name, attempt=place)
    return Opinion(
        engine=engine,
        state=made.status,
        outcome=made.outcome,
        subtype=made.subtype,
        confidence=made.confidence,
        root_cause=made.contradiction or made.root_cause,
        step=name,
        attempt=place,
        stale=trial is not None and not trial.endswith(f"/{made.trial.attempt}"),
    )


class AnalysisSaid(NamedTuple):
    """One analysis."""

    record: Analysis
    attempt: str
    """``BATCH/JOB/STEP/ATTEMPT`` of the analysis."""
    trial: str
    """The same of the trial that it is about."""


def analyses_of(layout: Layout, found: Found) -> list[AnalysisSaid]:
    """Return the analyses that an attempt made, or that were made of it; the newest of each step."""
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
