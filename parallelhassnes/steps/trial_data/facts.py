"""How a trial stands: its reward, whether it passed, or why it has no score, and what it used.

    state.json + final.json of one ended attempt ─▶ ``of_attempt`` ─▶ AttemptFacts
    AttemptFacts of all ended attempts of a step ─▶ ``counting`` ─▶ TrialFacts

``settle`` writes the facts of an attempt into the ledger's line of its end (``compact``); the batch's fold keeps those of the
attempt that counts, and the sum over the others, and every view reads these (``results.collect``). What is decided under
``tick.lock``, before that line is there, and a verdict, which is made by an attempt, read the attempts' files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from parallelhassnes.plan import PassRule, StepSpec
from parallelhassnes.steps import safe_read, usage
from parallelhassnes.steps.failures import CLASSES, INFRASTRUCTURE_CLASSES, UNABLE
from parallelhassnes.steps.trial_data import rewards
from parallelhassnes.steps.usage import NO_TOKENS, NOTHING, Tokens, UsageSum
from parallelhassnes.store import attempts

type Result = Literal["scored", "unscored", "infrastructure", "canceled", "skipped", "missing"]
"""``scored`` has a reward, or several; ``unscored`` ran to an end without one, through task, agent, model or
verifier; ``infrastructure`` says nothing about any of these; ``canceled`` was ended, or called off before it started;
``skipped`` was not needed any more (``enough``); ``missing`` has no finished attempt."""

RESULTS: tuple[Result, ...] = ("scored", "unscored", "infrastructure", "canceled", "skipped", "missing")
CAPPED = "capped"
"""The class of what a cap has ended."""
MAX_REWARDS_BYTES = 4096
"""Of names of rewards in a line of the ledger; beyond it only the main reward stands there."""
_SPEAKS = frozenset({"verifier", "canceled", "context_length", "refusal"})
"""Classes of exceptions after which a silent agent is not the reason: the model has answered, or it was not asked for long."""


@dataclass(kw_only=True, slots=True)
class AttemptFacts:
    """One ended attempt of a trial; never changed, and not frozen, which for 100,000 of them takes half a second."""

    result: Result
    attempt: str | None = None
    """The attempt's directory, relative to the job's."""
    failure_class: str | None = None
    guessed: bool = False
    """The failure class was guessed, because nothing said it."""
    reward: float | None = None
    """The main reward; None where it is not scored, or has several and no main one."""
    rewards: Mapping[str, float | int] = field(default_factory=dict)
    """All of them by name, where it is scored."""
    main: str | None = None
    """Name of the main reward."""
    passed: bool | None = None
    """None where it is not scored, or ``undecided``."""
    undecided: str | None = None
    """Of a scored one with several rewards and no main one: how to decide whether it passed."""
    by_default: bool = True
    """Nobody has said what a pass is: it is a main reward of at least 1."""
    agent: str | None = None
    agent_version: str | None = None
    model: str | None = None
    task_name: str | None = None
    task_checksum: str | None = None
    task_source: str | None = None
    cost_usd: float | None = None
    cost_incomplete: bool = False
    """The attempt has cost more than ``cost_usd``, or it is not known what: its agent has a model, and ran."""
    tokens: Tokens = Tokens()
    duration_sec: float | None = None
    exception: str | None = None
    """Type of the exception beside, or instead of, the reward."""
    exception_class: str | None = None
    exception_guessed: bool = False
    """That class was guessed."""
    warnings: tuple[str, ...] = ()
    """What was reported and cannot be true."""

    @property
    def capped(self) -> bool:
        """Whether its agent was ended by a cap, be there a reward or none."""
        return CAPPED in (self.exception_class, self.failure_class)

    @property
    def decided(self) -> bool:
        """Whether it is known if the trial passed."""
        return self.passed is not None


@dataclass(kw_only=True, slots=True)
class TrialFacts(AttemptFacts):
    """One trial step, by the attempt of it that counts."""

    step_id: str
    superseded: int = 0
    """Finished attempts of the step that another one stands for; they are kept, and count nowhere else."""
    spent: UsageSum = NOTHING
    """By all attempts of the step."""


class TrialPlan(NamedTuple):
    """Whose trial a step is, and of which task, as its plan says."""

    agent: str | None
    """Its name in every view, whether the trial ran or not: as the table names it, of an import path the class."""
    import_path: str | None
    """Where the agent's code is, of one that is no agent of Harbor's."""
    model: str | None
    task_name: str | None
    task_source: str | None


def plan_of(step: StepSpec) -> TrialPlan:
    """Return what the plan of a trial step says of whose it is."""
    config = safe_read.mapping(step.spec.get("config"))
    agent, task = safe_read.mapping(config.get("agent")), safe_read.mapping(config.get("task"))
    if again := safe_read.mapping(step.spec.get("regrade")):
        agent = {"name": again.get("agent"), "model_name": again.get("model")}
    return TrialPlan(
        agent_of(step),
        safe_read.text(agent.get("import_path")),
        safe_read.text(agent.get("model_name")),
        safe_read.text(step.spec.get("task_name")),
        safe_read.text(task.get("source")),
    )


def counting(attempts: Sequence[AttemptFacts], step: StepSpec) -> TrialFacts:
    """Return the facts of a step by its ended attempts, newest first.

    The newest scored one counts, or where none is scored the newest: a score gives way to nothing but another score, so
    that no retry can make a result disappear. What no attempt says is taken from the plan.
    """
    chosen = next((each for each in attempts if each.result == "scored"), next(iter(attempts), None))
    others = usage.total(spent_by(each) for each in attempts if each is not chosen)
    return of_trial(step.step_id, plan_of(step), chosen, others)


def of_trial(step_id: str, plan: TrialPlan, chosen: AttemptFacts | None, others: UsageSum) -> TrialFacts:
    """Return the facts of a step by the attempt that counts, None where none has ended, and by what its other ended ones have used."""
    if chosen is None:
        return _trial(step_id, plan, {"result": "missing"}, NOTHING, NOTHING)
    return _trial(step_id, plan, _fields(chosen), spent_by(chosen), others)


def of_line(step_id: str, plan: TrialPlan, said: Mapping[str, Any], attempt: str, others: UsageSum) -> TrialFacts:
    """As ``of_trial``, by what the line of the attempt that counts says (``compact``).

    Args:
        attempt: its directory, relative to the job's.
    """
    known = _said(said)
    unknown = known.get("cost_incomplete", False)
    spent = usage.one_attempt(known.get("cost_usd"), known.get("tokens", NO_TOKENS), cost_unknown=unknown)
    known["attempt"] = attempt
    return _trial(step_id, plan, known, spent, others)


def _trial(step_id: str, plan: TrialPlan, known: Mapping[str, Any], spent: UsageSum, others: UsageSum) -> TrialFacts:
    spent = spent if others is NOTHING else spent + others
    return TrialFacts(step_id=step_id, superseded=others.attempts, spent=spent, **_planned(known, plan))


def _fields(found: AttemptFacts) -> dict[str, Any]:
    return {part.name: getattr(found, part.name) for part in fields(AttemptFacts)}


def spent_by(attempt: AttemptFacts) -> UsageSum:
    """Tell what one attempt has used."""
    return usage.one_attempt(attempt.cost_usd, attempt.tokens, cost_unknown=attempt.cost_incomplete)


def of_steps(job_dir: Path, steps: Sequence[StepSpec]) -> list[TrialFacts]:
    """Return the facts of these trial steps of a job, in their order, from their attempts' files and from what people said of them."""
    said = safe_read.read_object(job_dir / "overrides.json") or {}
    control = safe_read.read_object(job_dir.parent / "control.json") or {}
    skipped, canceled = (safe_read.mapping(said.get(name)) for name in ("enough", "canceled"))
    everything = control.get("canceled") is True
    found = [counting(list(_finished(job_dir, step)), step) for step in steps]
    for place, each in enumerate(found):
        if each.result != "missing" or _is_begun(job_dir, each.step_id):
            continue
        if skipped.get(each.step_id):
            found[place] = replace(each, result="skipped")
        elif everything or each.step_id in canceled:
            found[place] = replace(each, result="canceled")
    return found


def _is_begun(job_dir: Path, step_id: str) -> bool:
    """Tell whether an attempt of the step is there, ended or not; one that is being made does not count."""
    return bool(attempts.names(job_dir / "steps" / step_id))


def agent_of(step: StepSpec) -> str | None:
    """Return the agent's name in every view, whether the trial ran or not: as the table names it, of an import path the class.

    Where several agents of the batch would be called so, the plan's label begins with the whole import path, and so does
    the name.
    """
    if again := safe_read.mapping(step.spec.get("regrade")):
        return safe_read.text(again.get("agent"))
    agent = safe_read.mapping(safe_read.mapping(step.spec.get("config")).get("agent"))
    path = safe_read.text(agent.get("import_path"))
    if path and (step.label == path or step.label.startswith(f"{path} ")):
        return path
    return safe_read.text(agent.get("name")) or (path and path.rsplit(":", 1)[-1])


def _planned(known: Mapping[str, Any], plan: TrialPlan) -> dict[str, Any]:
    """Return the fields of facts with what the plan says of whose trial it was."""
    return {
        **known,
        "agent": plan.agent or known.get("agent"),
        "model": plan.model or known.get("model"),
        "task_name": known.get("task_name") or plan.task_name,
        "task_source": known.get("task_source") or plan.task_source,
    }


def _finished(job_dir: Path, step: StepSpec) -> Iterator[AttemptFacts]:
    """Yield every finished attempt, newest first; names of attempts sort by time."""
    step_dir = job_dir / "steps" / step.step_id
    for name in reversed(attempts.names(step_dir)):
        folder = step_dir / "attempts" / name
        found = of_attempt(folder, step)
        if found is not None:
            yield replace(found, attempt=folder.relative_to(job_dir).as_posix())


def of_attempt(attempt_dir: Path, step: StepSpec) -> AttemptFacts | None:
    """Return the facts of one attempt by its ``state.json`` and ``final.json``; None where one of them is not there."""
    state = safe_read.read_object(attempt_dir / "state.json")
    report = safe_read.read_object(attempt_dir / "final.json")
    if state is None or report is None:
        return None
    return of_report(state.get("status"), report, step)


def is_scored(attempt_dir: Path, step: StepSpec) -> bool:
    """Tell whether the attempt has ended with a score."""
    found = of_attempt(attempt_dir, step)
    return found is not None and found.result == "scored"


def of_report(status: object, report: Mapping[str, Any], step: StepSpec) -> AttemptFacts:
    """Return the facts of an attempt of the step that ended with this status and report.

    The step says what a pass is where the report, of an older version, says nothing of it. Where it has to be scored (``n_valid``),
    a score without a token is none, whether or not the agent ended by an error.
    """
    trial = safe_read.mapping(report.get("trial"))
    task, agent = safe_read.mapping(trial.get("task")), safe_read.mapping(trial.get("agent"))
    exception = safe_read.mapping(trial.get("exception"))
    timings = safe_read.mapping(trial.get("timings_sec"))
    failed = safe_read.mapping(report.get("failure"))
    failure = _class(failed)
    given = trial.get("rewards")
    if "rewards" not in trial and trial.get("reward") is not None:
        given = {rewards.MAIN: trial["reward"]}
    found, wrong = rewards.read(given)
    tokenless = step.retry.top_up is not None and _is_tokenless(trial)
    if status != "succeeded" or wrong or is_silent(trial) or tokenless:
        found = {}
    ruled = _rule_said(trial) or rewards.rule_of(step.spec)
    standing = rewards.stand(found, ruled)
    model, cost = safe_read.text(agent.get("model")), usage.usd(trial.get("cost_usd"))
    asked = model is not None and "agent_execution" in timings
    return AttemptFacts(
        result="infrastructure" if _refused_by_environment(trial) else _result(status, failure, scored=bool(found)),
        failure_class=failure,
        guessed=failed.get("guessed") is True,
        rewards=found,
        main=rewards.main_name(found, ruled),
        **standing._asdict(),
        by_default=ruled.source == "default",
        agent=safe_read.text(agent.get("name")),
        agent_version=safe_read.text(agent.get("version")),
        model=model,
        task_name=safe_read.text(task.get("name")),
        task_checksum=safe_read.text(task.get("checksum")),
        task_source=safe_read.text(task.get("source")),
        cost_usd=cost,
        cost_incomplete=(cost is None and (asked or trial.get("cost_usd") is not None))
        or "cost_usd" in safe_read.sequence(trial.get("incomplete")),
        tokens=Tokens.read(trial.get("tokens")),
        duration_sec=safe_read.number(timings.get("total")),
        exception=safe_read.text(exception.get("type"), 200),
        exception_class=_class(exception),
        exception_guessed=exception.get("guessed") is True,
        warnings=tuple(filter(None, map(safe_read.text, safe_read.sequence(trial.get("warnings"))))),
    )


def _class(said: Mapping[str, Any]) -> str | None:
    found = safe_read.text(said.get("class"))
    return found if found in CLASSES else None


def _rule_said(trial: Mapping[str, Any]) -> PassRule | None:
    """Return what a pass is by the report; None where it says nothing of that, or nothing that can be read."""
    try:
        return PassRule.model_validate(trial["pass_rule"])
    except (KeyError, ValidationError):
        return None


def _refused_by_environment(trial: Mapping[str, Any]) -> bool:
    """Tell whether the environment could not do what the task asks: its limit, not the task's fault."""
    exception = safe_read.mapping(trial.get("exception"))
    if exception.get("class") != "task_definition":
        return False
    if exception.get("type") == "SandboxBuildFailedError" and trial.get("environment") == "sandbox":
        return True
    return re.search(UNABLE, safe_read.text(exception.get("message")) or "") is not None


def _result(status: object, failure: str | None, *, scored: bool) -> Result:
    if status == "canceled":
        return "canceled"
    if status == "lost" or (status == "failed" and failure in INFRASTRUCTURE_CLASSES):
        return "infrastructure"
    return "scored" if scored else "unscored"


# --- silent agents ------------------------------------------------------------------------------------


def silence(trial: Mapping[str, Any], attempt_dir: Path) -> Mapping[str, Any] | None:
    """Return the exception that ended an agent which has never spoken to its model; None where it has spoken, or may have spoken.

    Such an agent was rewarded for no work of its own: the model was named, no token was used, no step made. A trial that
    does not count its tokens (null) is believed.
    """
    found = _silencing(trial)
    place = safe_read.text(trial.get("trajectory"))
    if found is None or place is None:
        return found
    document = safe_read.read_object(attempt_dir / place) or {}
    made = any(safe_read.mapping(step).get("source") == "agent" for step in safe_read.sequence(document.get("steps")))
    return None if made else found


def is_silent(trial: Mapping[str, Any]) -> bool:
    """As ``silence``, by a report alone: where there is a trajectory, steps are taken to be in it."""
    return trial.get("trajectory") is None and _silencing(trial) is not None


def _is_tokenless(trial: Mapping[str, Any]) -> bool:
    """Tell whether the model was named and the trial has counted its tokens, and they are none."""
    tokens = safe_read.mapping(trial.get("tokens"))
    agent = safe_read.mapping(trial.get("agent"))
    counted = [safe_read.whole(tokens.get(name)) for name in ("input", "output")]
    return bool(agent.get("model")) and counted == [0, 0]


def _silencing(trial: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not _is_tokenless(trial):
        return None
    parts = (trial, *map(safe_read.mapping, safe_read.sequence(trial.get("steps"))))
    found = (safe_read.mapping(part.get("exception")) for part in parts)
    return next((each for each in found if each and each.get("class") not in _SPEAKS), None)


# --- in the ledger ------------------------------------------------------------------------------------

_SHORT = (
    "result",
    "reward",
    "rewards",
    "main",
    "passed",
    "undecided",
    "guessed",
    "by_default",
    "cost_usd",
    "cost_incomplete",
    "tokens",
    "duration_sec",
    "exception",
    "exception_class",
    "exception_guessed",
    "failure_class",
    "warnings",
)
_IDENTITY = ("agent", "agent_version", "model", "task_name", "task_checksum", "task_source")
"""Whose trial it was: in a line where it is not what the plan says."""
_KNOWN = frozenset({*_SHORT, *_IDENTITY})
DETAILED = "agent_version"
"""Is in every line of this version; older ones leave the identity to the report."""
_DEFAULTS = {part.name: part.default for part in fields(AttemptFacts)} | {"rewards": {}}


def compact(found: AttemptFacts, step: StepSpec) -> dict[str, Any]:
    """Return the facts for a line of the ledger, without what is as usual or planned; many rewards stay out (``rewards`` is then null)."""
    named = sum(len(name) + 8 for name in found.rewards)
    said = {name: getattr(found, name) for name in _SHORT}
    said["rewards"] = dict(found.rewards) if named <= MAX_REWARDS_BYTES else None
    if found.main == rewards.MAIN and len(found.rewards) == 1:
        said |= {"rewards": {}, "main": None}
    short = {name: value for name, value in said.items() if value != _DEFAULTS[name]}
    plan = plan_of(step)
    expected, own = _planned({}, plan), _planned(_fields(found), plan)
    differs = {name: own[name] for name in _IDENTITY if own[name] != expected.get(name)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in {**short, **differs, DETAILED: own[DETAILED]}.items()
    }


def is_whole(said: Mapping[str, Any]) -> bool:
    """Tell whether ``expanded`` makes all facts of this; else what it lacks stands in the attempt's files alone.

    A line of an older version lacks whose trial it was, one with more than ``MAX_REWARDS_BYTES`` of names lacks the rewards.
    """
    return DETAILED in said and said.get("rewards", {}) is not None


def expanded(said: Mapping[str, Any]) -> AttemptFacts:
    """Return the facts that ``compact`` has made such an object of; whose trial it was is left open where the plan says it."""
    return AttemptFacts(**_said(said))


def _said(said: Mapping[str, Any]) -> dict[str, Any]:
    known = {"result": "missing", **said}
    if not said.keys() <= _KNOWN:  # of a later version
        known = {name: value for name, value in known.items() if name in _KNOWN}
    if "tokens" in known:
        known["tokens"] = Tokens(*known["tokens"][:3])
    if "warnings" in known:
        known["warnings"] = tuple(known["warnings"])
    if "rewards" not in known and known.get("reward") is not None:
        known |= {"rewards": {rewards.MAIN: known["reward"]}, "main": rewards.MAIN}
    known["rewards"] = known.get("rewards") or {}
    return known
