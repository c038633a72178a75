"""The kind ``trial``: one Harbor trial, and what it came to, from what its worker left.

``trial/result.json`` is the verdict if it parses, whatever the exit code says. A trial that ran and was
scored has succeeded, with any reward, also where an exception stands beside the reward, unless that is
one of the provider: then the score is not the agent's. Without a
result it is, in this order, ``worker_error.json``, Harbor's ``exception.txt``, how the worker ended.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from parallelhassnes.plan import StepSpec
from parallelhassnes.states import EndStatus
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.failure_evidence import verdict_of
from parallelhassnes.steps.failures import TIMEOUT_CLASSES, Phase
from parallelhassnes.steps.step_types import Failure, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import deadline, environment_end, leftovers, remote, tampering, trial_paths, workspace
from parallelhassnes.steps.trial import preload as trial_preload
from parallelhassnes.steps.trial import result as trial_result
from parallelhassnes.steps.trial_data import facts, rewards
from parallelhassnes.steps.usage import Tokens

RESULT = f"{trial_paths.TRIAL_DIR}/result.json"
ARTIFACTS = (
    (RESULT, "report", "Harbor's result of the trial"),
    (f"{trial_paths.TRIAL_DIR}/trial.log", "log", "Harbor's log of the trial"),
    (f"{trial_paths.TRIAL_DIR}/exception.txt", "log", "the exception that ended the trial"),
    (f"{trial_paths.TRIAL_DIR}/verifier/test-stdout.txt", "log", "what the tests printed"),
)


def conclude(attempt: StepAttempt, end: WorkerEnd) -> Outcome:
    """Return the outcome of a trial attempt; never raises for anything that a worker can leave."""
    result = safe_read.read_object(attempt.dir / RESULT)
    part = _part(attempt, result)
    status: EndStatus
    failure: Failure | None
    if result is None:
        status, failure = _without_result(attempt, end)
    else:
        status, failure = _with_result(attempt, result, part, end)
    if status != "succeeded":
        part |= {"passed": None, "undecided": None}
    summary = _summary(part, failure)
    if failure is not None:
        part["exception"] = part.get("exception") or _unrecorded(attempt, failure)
    report = {"trial": part, "artifacts": _artifacts(attempt, part)}
    return Outcome(status, summary, failure, report)


def _part(attempt: StepAttempt, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ``trial`` object; what a missing result cannot say comes from the plan."""
    spec = attempt.step.spec
    config = safe_read.mapping(spec.get("config"))
    rule = rewards.rule_of(spec)
    if result is not None:
        part = trial_result.describe(result, attempt.dir, rule)
    else:
        part = trial_result.describe({"config": config}, attempt.dir, rule)
        part["trial_name"] = trial_paths.trial_name(attempt)
        part["task"] |= {
            "name": safe_read.text(spec.get("task_name")),
            "source": safe_read.text(safe_read.mapping(config.get("task")).get("source")),
        }
        agent = safe_read.mapping(config.get("agent"))
        part["agent"]["name"] = part["agent"]["name"] or safe_read.text(agent.get("import_path"))
    sandbox = safe_read.read_object(attempt.dir / trial_paths.TRIAL_DIR / "sandbox.json", trial_result.MAX_RECORD_BYTES)
    if sandbox is not None:
        part["sandbox"] = sandbox
    if again := safe_read.mapping(spec.get("regrade")):
        # What its agent used was paid for then; Harbor's own record of a regrade repeats it.
        part |= {"tokens": Tokens(0, 0, 0)._asdict(), "cost_usd": 0.0, "incomplete": [], "regrade": dict(again)}
    kept = safe_read.read_object(attempt.dir / workspace.FOLDER / workspace.MANIFEST, workspace.MOST_MANIFEST)
    if kept is not None:
        part["workspace"] = workspace.said_of(kept)
    suspected = tampering.read(attempt.dir)
    part["verification"] = tampering.kept_apart(dict(config), sandbox, suspected)
    return part


def _with_result(
    attempt: StepAttempt, result: Mapping[str, Any], part: Mapping[str, Any], end: WorkerEnd
) -> tuple[EndStatus, Failure | None]:
    exception = part["exception"]
    if exception is not None and exception["class"] == "canceled":
        phase = trial_result.last_phase(result)
        if part["rewards"] is None:
            return _stopped(end, phase)
        exception = None
    broken = _broken_step(part)
    died = environment_end.read(attempt)
    if died is not None and (exception or broken or part["rewards"] is None):
        said = f"{exception['type']}: {exception['message']}" if exception is not None else ""
        return "failed", Failure("infrastructure", died, f"{died}\n{said}".strip())
    if broken is not None:
        return "failed", broken
    if exception is not None and trial_result.rules_out(exception):
        return "failed", _failure(exception)
    if suspected := tampering.read(attempt.dir):
        return "failed", Failure("verifier", f"the reward is not counted: {suspected}")
    if part["rewards"] is not None and _is_ruled_out_by_harbor(part, result):
        line = "Harbor says that the reward is not valid"
        return "failed", _failure(exception) if exception else Failure("verifier", line)
    if part["rewards"] is not None:
        silent = facts.silence(part, attempt.dir)
        if silent is None:
            return "succeeded", None
        found = _failure(silent)
        line = f"the agent used no token and made no step: {found.line}"
        return "failed", replace(found, line=line)
    link = trial_result.link_of(attempt.dir, trial_result.steps_of(result))
    if link is not None:
        return "failed", Failure("verifier", link)
    if exception is not None:
        return "failed", _failure(exception)
    if _unverified(attempt, result):
        return "succeeded", None
    told = (line for line in part["warnings"] if line.startswith("reward "))
    return "failed", Failure("verifier", next(told, "the verifier gave no reward"))


def _broken_step(part: Mapping[str, Any]) -> Failure | None:
    """Return the exception that left a step of a multi-step trial unscored, or with a score that is not its agent's.

    Harbor averages the steps that were scored and stops after such a step, so that its reward is one of
    another, shorter task.
    """
    for step in part["steps"] or ():
        exception = step["exception"]
        if exception is not None and (step["rewards"] is None or trial_result.rules_out(exception)):
            found = _failure(exception)
            return replace(found, line=f"step {safe_read.text(step['name'], 100)}: {found.line}")
    return None


def _is_ruled_out_by_harbor(part: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Tell whether Harbor, from 0.25 on, calls the reward invalid for something that is not the tested agent's own result."""
    exceptions = [part["exception"], *(step["exception"] for step in part["steps"] or ())]
    own = any(each and trial_result.is_agents_result(each) for each in exceptions)
    return result.get("reward_valid") is False and not own


def _unverified(attempt: StepAttempt, result: Mapping[str, Any]) -> bool:
    """Tell whether the trial was not to be scored at all."""
    for config in (safe_read.mapping(result.get("config")), attempt.step.spec.get("config")):
        wanted = safe_read.mapping(config)
        if wanted.get("install_only") or safe_read.mapping(wanted.get("verifier")).get("disable"):
            return True
    return False


def _without_result(attempt: StepAttempt, end: WorkerEnd) -> tuple[EndStatus, Failure]:
    error = safe_read.read_object(trial_paths.error_file(attempt), 1 << 20) or {}
    name, message = (safe_read.text(error.get("class"), 200), safe_read.text(error.get("message"), 4000))
    phase = _phase(error.get("phase")) or trial_paths.read_phase(attempt) or "environment_setup"
    if end.reason in ("canceled", "timeout") or name == "CancelledError":
        return _stopped(end, phase)
    if name is not None:
        return "failed", _classified(name, message or "", phase)
    if end.reason == "lost":
        return _stopped(end, phase)
    size = safe_read.size(attempt.dir / RESULT)
    if size is not None and size > safe_read.MAX_JSON_BYTES:
        return "failed", Failure("internal", f"{RESULT} is too large to read ({size} bytes)")
    trace = safe_read.read_bytes(attempt.dir / trial_paths.TRIAL_DIR / "exception.txt", 65_536, end=True)
    if trace:
        lines = trace.decode("utf-8", "replace").strip().splitlines()
        name, _, message = (lines[-1] if lines else "").partition(": ")
        return "failed", _classified(name, message, phase, trace.decode("utf-8", "replace"))
    return _stopped(end, phase) if end.reason == "elsewhere" else ("failed", _unexplained(end))


def _stopped(end: WorkerEnd, phase: Phase) -> tuple[EndStatus, Failure]:
    """Return the end of a trial that was stopped before it had a reward."""
    where = phase.replace("_", " ")
    match end.reason:
        case "canceled":
            return "canceled", Failure("canceled", f"canceled during {where}")
        case "timeout":
            return "failed", Failure(TIMEOUT_CLASSES[phase], f"past the step's deadline during {where}")
        case "lost":
            return "lost", Failure("lost", f"lost during {where}: its supervisor died")
        case "elsewhere":
            return "lost", Failure("lost", "no result where it was imported from: it was stopped there, or still ran")
        case _:
            line = f"stopped during {where} by a signal that no cancel had sent"
            return "failed", Failure("infrastructure", line)


def _unexplained(end: WorkerEnd) -> Failure:
    code = end.exit_code
    if code is not None and code < 0:
        return Failure("infrastructure", f"the worker was killed by signal {-code} and left no result")
    how = "ended unseen" if code is None else f"ended with exit code {code}"
    return Failure("internal", f"the worker {how} and left no result; see stderr.log")


def _classified(name: str, message: str, phase: Phase, traceback: str = "") -> Failure:
    """Return the failure of a trial whose end only an exception's name and message tell."""
    found = verdict_of(name, message, phase, traceback)
    return _failure(
        {"type": name, "message": message, "class": found.failure_class, "said": found.said, "guessed": found.guessed}
    )


def _failure(exception: Mapping[str, Any]) -> Failure:
    """Return the failure that an exception is; its line is what a provider or a program said, where one of them said something."""
    name, message, said = exception["type"], exception["message"], exception.get("said") or ""
    line = safe_read.first_line(said) or safe_read.first_line(message)
    if exception["class"] == "configuration":  # what to do often stands further below
        line = safe_read.text(" ".join((said or message).split()), 480) or ""
    told = "\n".join(dict.fromkeys(filter(None, (said, message))))
    return Failure(
        exception["class"],
        f"{name}: {line}" if line else name,
        f"{name}: {told}" if told else name,
        guessed=bool(exception.get("guessed")),
    )


def _unrecorded(attempt: StepAttempt, failure: Failure) -> dict[str, Any] | None:
    """Return the exception of a trial that Harbor could not write down itself."""
    error = safe_read.read_object(trial_paths.error_file(attempt), 1 << 20) or {}
    name = safe_read.text(error.get("class"), 200)
    if name is None:
        return None
    message = safe_read.text(error.get("message"), 4000) or ""
    return {"type": name, "message": message, "class": failure.failure_class}


def _phase(value: object) -> Phase | None:
    match value:
        case "create" | "environment_setup" | "agent" | "verifier":
            return value
        case _:
            return None


def _summary(part: Mapping[str, Any], failure: Failure | None) -> str:
    agent, task = part["agent"], part["task"]
    who = " · ".join(filter(None, (agent["name"], agent["model"]))) or "the agent"
    said = f"{who} on {task['name'] or 'the task'}"
    if failure is not None:
        return f"{said}: {failure.line}"
    said += f": {_rewarded(part)}"
    if part["tests"] is not None:
        said += f", {part['tests']['passed']} of {part['tests']['total']} tests passed"
    if part["exception"] is not None:
        said += f" ({part['exception']['type']})"
    return said + "."


def _rewarded(part: Mapping[str, Any]) -> str:
    if part["rewards"] is None:
        return "not scored"
    if part["reward"] is None:
        return str(part["undecided"])
    return f"reward {part['reward']:g}"


def _artifacts(attempt: StepAttempt, part: Mapping[str, Any]) -> list[dict[str, str]]:
    known = [a for a in ARTIFACTS if safe_read.size(attempt.dir / a[0]) is not None]
    if part["trajectory"] is not None:
        known.append((part["trajectory"], "file", "the agent's trajectory (ATIF)"))
    return [{"path": p, "kind": k, "description": d} for p, k, d in known]


class TrialKind:
    """Runs ``TrialSpec.config`` as a Harbor trial in ``<attempt>/trial``."""

    name = "trial"

    def preload(self, step: StepSpec) -> None:
        trial_preload.preload()
        config = safe_read.mapping(step.spec.get("config"))
        agent = safe_read.mapping(config.get("agent")).get("name")
        if isinstance(agent, str):
            trial_preload.preload_agent(agent)

    def warm_up(self) -> None:
        from parallelhassnes.steps.trial import warm_up

        warm_up.run_once()

    def deadline_sec(self, attempt: StepAttempt) -> float | None:
        config = safe_read.mapping(attempt.step.spec.get("config"))
        return deadline.deadline_sec(dict(config))

    def phase_deadline_sec(self, attempt: StepAttempt, phase: str) -> float | None:
        config = safe_read.mapping(attempt.step.spec.get("config"))
        return deadline.phase_deadline_sec(dict(config), phase)

    def work(self, attempt: StepAttempt) -> int:
        from parallelhassnes.steps.trial import trial_worker

        return trial_worker.work(attempt)

    def phase(self, attempt: StepAttempt) -> str | None:
        return trial_paths.read_phase(attempt)

    def conclude(self, attempt: StepAttempt, end: WorkerEnd) -> Outcome:
        return conclude(attempt, end)

    def sweep(self, attempt: StepAttempt) -> list[str]:
        return [*leftovers.sweep(attempt), *remote.sweep(attempt)]
