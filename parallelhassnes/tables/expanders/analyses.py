"""Analyses in a table: each trial gets a step per engine that is asked for, which waits for an attempt of it to end.

Verdicts may have an engine, too, that writes prose about each.
"""

from typing import Any, get_args

from parallelhassnes.errors import UserError
from parallelhassnes.names import Ids, safe_id, suggestion
from parallelhassnes.plan import Retry, StepSpec
from parallelhassnes.tables.expanders.expansion import Draft, Expansion
from parallelhassnes.tables.model import AnalysisAsked, AnalysisPart, Engine, VerdictPart
from parallelhassnes.tables.parse.located_errors import pointer
from parallelhassnes.tables.parse.secret_check import check_env, templates

KEY = "analysis"
"""Queue keys of analyses are ``analysis:<engine>``: an analysis never takes the place of a trial."""


def parts(asked: AnalysisAsked | None) -> list[AnalysisPart]:
    """Return each engine that is asked for, with its settings."""
    if asked is None:
        return []
    every = asked if isinstance(asked, list) else [asked]
    return [AnalysisPart(engine=one) if isinstance(one, str) else one for one in every]


def part_of(engine: str, model: str | None = None, **settings: object) -> AnalysisPart:
    """Return an engine by its name, with its settings.

    Raises:
        UserError: there is no such engine.
    """
    known = get_args(Engine.__value__)
    if engine not in known:
        fix = suggestion(engine, known, "use one of")
        raise UserError(f"there is no engine {engine}", fix=fix)
    return AnalysisPart(engine=engine, model=model, **settings)  # type: ignore[arg-type]


def checked(asked: AnalysisAsked | None, at: str, context: Expansion) -> list[AnalysisPart]:
    """As ``parts``; what is wrong with them is reported."""
    found = parts(asked)
    for index, part in enumerate(found):
        place = at + pointer(index) if isinstance(asked, list) else at
        check_env(part.env, place + "/env", context.problems)
        for variable in templates(part.env):
            context.used_variables[variable] = None
        if part.engine == "api" and not part.model:
            context.problems.add(place + "/model", "is missing", "the engine api needs a model")
        if part.key_name:
            context.used_variables[part.key_name] = None
    return found


def limits(found: list[AnalysisPart], context: Expansion) -> dict[str, int]:
    """Queue key → live analyses at most, as the parts say it."""
    made: dict[str, int] = {}
    for part in found:
        if part.limit is not None:
            key = _key(part, context)
            made[key] = min(part.limit, made.get(key, part.limit))
    return made


def analysis_steps(
    trial: StepSpec, job_id: str, found: list[AnalysisPart], context: Expansion, retry: Retry, taken: Ids
) -> list[StepSpec]:
    """Return the steps that analyse this trial; their ids are put into ``taken``."""
    made = []
    for part in found:
        step_id = safe_id(f"{trial.step_id}.{part.engine}", taken)
        taken.add(step_id)
        made.append(
            StepSpec(
                step_id=step_id,
                kind="analysis",
                queue_key=_key(part, context),
                label=part.engine,
                depends_on=(f"{job_id}/{trial.step_id}",),
                after="attempt",
                timeout_sec=part.timeout_sec,
                env=part.env,
                retry=retry,
                spec=spec(part, trial.step_id),
            )
        )
    return made


def spec(part: AnalysisPart, trial_id: str) -> dict[str, Any]:
    """Tell what the kind ``analysis`` reads."""
    said = part.model_dump(
        exclude_none=True, exclude={"queue_key", "limit", "timeout_sec", "env"}, exclude_defaults=True
    )
    return {**said, "engine": part.engine, "trial": trial_id}


def _key(part: AnalysisPart, context: Expansion) -> str:
    if part.queue_key:
        return context.key(part.queue_key, "/analysis/queue_key")
    return context.key(f"{KEY}:{part.engine}", "/analysis")


VERDICT_KEY = "verdict"


def told_verdicts(drafts: list[Draft], part: VerdictPart | None, context: Expansion) -> list[Draft]:
    """Return the jobs with the engine's settings in the ``spec`` of their verdicts, which then have a queue key of their own."""
    if part is None:
        return drafts
    spec = part.model_dump(exclude_none=True, exclude={"queue_key"})
    key = context.key(part.queue_key or f"{VERDICT_KEY}:{part.engine}", "/verdict/queue_key")
    return [
        draft._replace(
            steps=[
                step.model_copy(
                    update={"spec": spec, "queue_key": key if step.queue_key == VERDICT_KEY else step.queue_key}
                )
                if step.kind == "verdict"
                else step
                for step in draft.steps
            ]
        )
        for draft in drafts
    ]
