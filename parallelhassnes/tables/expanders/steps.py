"""Jobs that are written out: from each step as written to the StepSpec that runs."""

from collections.abc import Collection, Mapping
from typing import Any

from parallelhassnes import places
from parallelhassnes.errors import UserError
from parallelhassnes.names import BATCH_FILES, Ids, as_folder, check_id
from parallelhassnes.plan import CAPS, Retry, StepSpec
from parallelhassnes.tables.expanders import baseline_check, caps
from parallelhassnes.tables.expanders.agents import agent_spec
from parallelhassnes.tables.expanders.analyses import analysis_steps, checked, spec
from parallelhassnes.tables.expanders.dependencies import loop_of
from parallelhassnes.tables.expanders.expansion import Draft, Expansion, asked_of_cluster, rule
from parallelhassnes.tables.expanders.passing import rule_for
from parallelhassnes.tables.expanders.trials import TrialExpander, trial_spec
from parallelhassnes.tables.model import AgentWork, AnalysisPart, JobHead, Step, TableHead, TrialSettings
from parallelhassnes.tables.parse.field_names import check_keys
from parallelhassnes.tables.parse.located_errors import Problems, json_type, pointer
from parallelhassnes.tables.parse.secret_check import check_env, templates

_TRIAL_FIELDS = frozenset(TrialSettings.model_fields) | {"task", "agent", "pass_", "keep_workspace"} | frozenset(CAPS)
_AGENT_FIELDS = frozenset((*AgentWork.model_fields, *CAPS)) | {
    "prompt",
    "prompt_ref",
    "append_prompt",
    "pack_id",
    "resume_from",
    "timeout_seconds",
    "retry_policy",
    "fan_in",
    "command",
}
_FIELDS_OF_KIND = {
    "command": frozenset({"command", "working_directory"}),
    "trial": _TRIAL_FIELDS,
    "verdict": frozenset[str](),
    "analysis": frozenset({"engine", "model"}),
    "agent": _AGENT_FIELDS,
}
_OF_A_KIND = frozenset().union(*_FIELDS_OF_KIND.values())


def explicit_jobs(raw: Any, head: TableHead, context: Expansion, trials: TrialExpander) -> list[Draft]:
    """Return the jobs under ``/jobs``. Everything wrong with them is reported; what could be made of the rest comes out."""
    problems = context.problems
    if not isinstance(raw, list):
        problems.add("/jobs", f"must be an array, not {json_type(raw)}", 'write "jobs": [ … ]')
        return []
    analyses = checked(head.analysis, "/analysis", context)
    if not context.room_for(_count(raw, len(analyses), gated=bool(head.baseline_gate)), "/jobs"):
        return []
    drafts: list[Draft] = []
    ids = _Places(problems, "job", BATCH_FILES)
    for index, raw_job in enumerate(raw):
        draft = _job(raw_job, index, head, context, trials)
        draft = draft and _analysed(draft, analyses, context, context.retry(head.retry))
        if draft is not None and head.baseline_gate:
            draft = _gated(draft, context, context.retry(head.retry))
        if draft is None:
            continue
        if ids.take(draft.job_id, draft.at):
            drafts.append(draft)
    return drafts


class _Places:
    """Where in the table each job or step id stands; one that would share a folder with another is reported."""

    def __init__(self, problems: Problems, what: str, reserved: Collection[str] = ()) -> None:
        self._problems, self._what, self._reserved = problems, what, Ids(reserved)
        self._found: dict[str, tuple[str, str]] = {}

    def take(self, name: str, at: str) -> bool:
        """Tell whether the id is free; ``at`` is the pointer of the job or step."""
        if (file := self._reserved.like(name)) is not None:
            self._problems.add(
                f"{at}/{self._what}_id",
                f"{self._what} id {name!r} is the name of a file of the batch ({file})",
                "choose another",
            )
            return False
        other, place = self._found.setdefault(as_folder(name), (name, at))
        if place == at:
            return True
        why = "" if other == name else f" ({other!r}: many file systems take both for one name)"
        self._problems.add(
            f"{at}/{self._what}_id",
            f"{self._what} id {name!r} is taken by {place}{why}",
            f"give each {self._what} its own id",
        )
        return False


def _count(raw: list[Any], analyses: int, *, gated: bool) -> int:
    """Return the steps that these jobs unfold to: what is written, an analysis of each kind per trial, and the gates."""
    jobs = [job for job in raw if isinstance(job, dict) and isinstance(job.get("steps"), list)]
    written = [step for job in jobs for step in job["steps"] if isinstance(step, dict)]
    trials = len([step for step in written if step.get("kind") == "trial" or "task" in step])
    return len(written) + trials * analyses + len(jobs) * gated


def _job(raw: Any, index: int, head: TableHead, context: Expansion, trials: TrialExpander) -> Draft | None:
    problems = context.problems
    at = pointer("jobs", index)
    if not isinstance(raw, dict):
        problems.add(at, f"must be an object, not {json_type(raw)}")
        return None
    above = {key: value for key, value in raw.items() if key != "steps"}
    check_keys(problems, at, JobHead, above)
    job = context.validated(JobHead, above, at)
    job_id = _id(raw, "job_id", f"job{index + 1}", "job id", at, context)
    raw_steps = raw.get("steps")
    if not isinstance(raw_steps, list) or not raw_steps:
        message = "is missing" if "steps" not in raw else "must be an array of at least one step"
        problems.add(at + "/steps", message, "write the job's steps")
        return None
    steps: list[StepSpec] = []
    indices: list[int] = []
    ids = _Places(problems, "step")
    for number, raw_step in enumerate(raw_steps):
        place = at + pointer("steps", number)
        step_id = f"step{number + 1}"
        if isinstance(raw_step, dict):
            step_id = _id(raw_step, "step_id", step_id, "step id", place, context)
        ids.take(step_id, place)
        made = _step(raw_step, step_id, place, job_id, job, head, context, trials)
        if made is not None:
            steps.append(made)
            indices.append(number)
    if job is None:
        return None
    return Draft(job_id, dict(job.labels), _complete(steps, job_id), at, tuple(indices), rule(job.enough))


def _step(
    raw: Any,
    step_id: str,
    at: str,
    job_id: str,
    job: JobHead | None,
    head: TableHead,
    context: Expansion,
    trials: TrialExpander,
) -> StepSpec | None:
    problems = context.problems
    if not isinstance(raw, dict):
        problems.add(at, f"must be an object, not {json_type(raw)}")
        return None
    check_keys(problems, at, Step, raw)
    step = context.validated(Step, raw, at)
    if step is None:
        return None
    check_env(step.env, at + "/env", problems)
    for variable in templates(step.env):
        context.used_variables[variable] = None
    kind = _kind(step, at, context)
    if kind is None:
        return None
    if step.loop is not None and kind not in ("agent", "command"):
        problems.add(at + "/loop", f"means nothing to a step of kind {kind}", "remove it")
    depends_on = [wanted if "/" in wanted else f"{job_id}/{wanted}" for wanted in step.depends_on]
    common: dict[str, Any] = {
        "step_id": step_id,
        "kind": kind,
        "timeout_sec": step.timeout_sec,
        "resources": asked_of_cluster(step.resources),
        "env": step.env,
        "retry": context.retry(step.retry, head.retry),
        "gate": step.gate,
        "after": step.after or "success",
    }
    if step.loop is not None:
        common["loop"] = loop_of(step.loop, step_id, at, context)
        depends_on.append(f"{job_id}/{step.loop.step_id}")
    made = _of_kind(kind, step, at, job_id, job, head, context, trials, depends_on)
    if made is None:
        return None
    common |= made
    if kind in ("trial", "agent"):
        common["caps"] = caps.asked(step, head)
        own = made["spec"]["config"]["agent"] if kind == "trial" else _named(made)
        agent = str(own.get("import_path") or own.get("name"))
        caps.tell_unseen(common["caps"], agent, context, config=own, of_step=kind == "agent")
    if step.queue_key:
        common["queue_key"] = context.key(step.queue_key, at + "/queue_key")
    return StepSpec(depends_on=tuple(dict.fromkeys(depends_on)), **common)


def _named(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return agent and model of an agent step, as Harbor's AgentConfig has those of a trial."""
    return {"name": made["label"].partition(" · ")[0], "model_name": made["spec"].get("model")}


def _of_kind(
    kind: str,
    step: Step,
    at: str,
    job_id: str,
    job: JobHead | None,
    head: TableHead,
    context: Expansion,
    trials: TrialExpander,
    depends_on: list[str],
) -> dict[str, Any] | None:
    """Tell what a step's kind adds to it; also what the step waits for because of its kind."""
    if kind == "trial":
        return _trial(step, at, head, context, trials)
    if kind == "command":
        spec: dict[str, Any] = {"command": step.command}
        if step.working_directory:
            where = at + "/working_directory"
            folder = context.bases.need(step.working_directory, where, "folder", context.problems)
            spec["working_directory"] = str(folder)
        return {"queue_key": "command", "spec": spec}
    if kind == "verdict":
        return {"queue_key": "verdict", "after": "end"}
    if kind == "analysis":
        return _analysis(step, at, job_id, depends_on, context)
    made = agent_spec(step, at, job_id, job, head, context)
    depends_on += made.pop("depends_on")
    if step.fan_in is not None:
        made["spec"]["fan_in"] = step.fan_in.model_dump()
    return made


def _trial(step: Step, at: str, head: TableHead, context: Expansion, trials: TrialExpander) -> dict[str, Any] | None:
    raw = {name: getattr(step, name) for name in TrialSettings.model_fields if getattr(step, name) is not None}
    if step.agent is None:
        context.problems.add(at + "/agent", "is missing", "name the agent, such as oracle")
        return None
    raw["agent"] = step.agent
    places = {name: at + pointer(name) for name in raw}
    places["queue_key"] = at + "/queue_key"
    settings = trials.settings(raw, places, step.queue_key)
    verify = not (step.verifier or {}).get("disable")
    task = trials.task(step.task or {}, at + "/task", verify=verify)
    if settings is None or task is None:
        return None
    context.take(task, settings.config, step.env)
    return {
        "queue_key": settings.queue_key,
        "label": settings.label,
        "spec": trial_spec(
            settings,
            task,
            1,
            rule_for(task, (step.pass_, "step"), (head.pass_, "table")),
            keep=(step.keep_workspace, head.keep_workspace),
        ),
    }


def _analysis(step: Step, at: str, job_id: str, depends_on: list[str], context: Expansion) -> dict[str, Any] | None:
    """Return an analysis that is written out: it depends on the one trial of its job that it is about."""
    job, trial = places.step_key(depends_on[0] if depends_on else "")
    if len(depends_on) != 1 or job != job_id:
        context.problems.add(at + "/depends_on", "must name the one trial of this job that is analysed", "name it")
        return None
    part = AnalysisPart(engine=step.engine or "rules", model=step.model)
    return {
        "queue_key": context.key(f"analysis:{part.engine}", at),
        "label": part.engine,
        "after": "attempt",
        "spec": spec(part, trial),
    }


def _analysed(draft: Draft, analyses: list[AnalysisPart], context: Expansion, retry: Retry) -> Draft:
    """Return the job with the table's analyses behind each trial; verdicts that wait for the trial wait for them too."""
    ids = Ids(step.step_id for step in draft.steps)
    steps: list[StepSpec] = []
    indices: list[int] = []
    made: dict[str, list[str]] = {}
    for step, index in zip(draft.steps, draft.indices, strict=True):
        new = analysis_steps(step, draft.job_id, analyses, context, retry, ids) if step.kind == "trial" else []
        made[f"{draft.job_id}/{step.step_id}"] = [f"{draft.job_id}/{s.step_id}" for s in new]
        steps += [step, *new]
        indices += [index] * (1 + len(new))
    for place, step in enumerate(steps):
        if step.kind == "verdict":
            more = [ref for trial in step.depends_on for ref in made.get(trial, ())]
            steps[place] = step.model_copy(update={"depends_on": (*step.depends_on, *more)})
    return draft._replace(steps=steps, indices=tuple(indices))


def _gated(draft: Draft, context: Expansion, retry: Retry) -> Draft:
    """Return the job with a gate before its other trials; a job that has none needs none."""
    trials = [step for step in draft.steps if step.kind == "trial"]
    lacking = baseline_check.lacking(trials)
    if len(trials) == 0:
        return draft
    if lacking or any(as_folder(step.step_id) == baseline_check.STEP_ID for step in draft.steps):
        said = f"has no trial of {lacking[0]}" if lacking else "has a step called baseline already"
        fix = "add it, or leave baseline_gate out" if lacking else "give that step another id"
        context.problems.add(draft.at, f"{said}, which the baseline gate needs", fix)
        return draft
    steps = baseline_check.gate(draft.job_id, draft.steps, retry)
    return draft._replace(steps=steps, indices=(*draft.indices, len(draft.indices) - 1))


def _complete(steps: list[StepSpec], job_id: str) -> list[StepSpec]:
    """Return the verdicts without references wait for every trial and analysis of the job; repeats of a trial are numbered."""
    trials = tuple(f"{job_id}/{s.step_id}" for s in steps if s.kind in ("trial", "analysis"))
    counts: dict[tuple[str, str], int] = {}
    made = []
    for step in steps:
        if step.kind == "verdict" and not step.depends_on:
            step = step.model_copy(update={"depends_on": trials})  # noqa: PLW2901
        elif step.kind == "trial":
            same = (step.spec["task_name"], step.label)
            counts[same] = counts.get(same, 0) + 1
            step.spec["repeat"] = counts[same]
        made.append(step)
    return made


def _kind(step: Step, at: str, context: Expansion) -> str | None:
    problems = context.problems
    meant = [
        kind
        for kind, given in (
            ("agent", step.prompt is not None or step.prompt_ref is not None),
            ("command", step.command is not None),
            ("trial", step.task is not None),
            ("analysis", step.engine is not None),
        )
        if given
    ]
    kind = step.kind or (meant[0] if meant else None)
    if kind is None:
        problems.add(at, "says nothing to do", "give it a command, a task or a prompt")
        return None
    needed = {"command": "command", "trial": "task", "agent": "prompt"}.get(kind)
    if needed and kind not in meant:
        problems.add(at + pointer(needed), "is missing", f"a step of kind {kind} needs it")
        return None
    foreign = (step.model_fields_set & _OF_A_KIND) - _FIELDS_OF_KIND[kind]
    for name in sorted(foreign):
        if getattr(step, name) is not None:
            written = Step.model_fields[name].alias or name
            problems.add(at + pointer(written), f"means nothing to a step of kind {kind}", "remove it")
    return kind


def _id(raw: dict[str, Any], key: str, default: str, what: str, at: str, context: Expansion) -> str:
    if raw.get(key) is None and key not in raw:
        return default
    try:
        return check_id(raw[key], what)
    except UserError as error:
        context.problems.add(at + pointer(key), error.message, error.fix)
        # Under another name, so that the rest of the job is still looked at.
        return default
