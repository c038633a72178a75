"""The ``trial`` part of a report, read from Harbor's ``result.json`` without Harbor.

Every value may be of any type: what is not of the expected one counts as absent.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from parallelhassnes.plan import PassRule
from parallelhassnes.steps import safe_read, usage
from parallelhassnes.steps.failure_evidence import verdict_of
from parallelhassnes.steps.failures import AGENTS_RESULTS, NEVER_SCORED, Phase
from parallelhassnes.steps.trial.trial_paths import TRIAL_DIR, environment_of
from parallelhassnes.steps.trial_data import reward_file, rewards

MAX_STEPS = 1000
MAX_RECORD_BYTES = 256 * 1024
"""Of ``sandbox.json``."""
MAX_MESSAGE = 1 << 20
"""Characters of an exception's message that are looked at."""
TIMINGS = ("environment_setup", "agent_setup", "agent_execution", "verifier")


def describe(result: Mapping[str, Any], attempt_dir: Path, rule: PassRule = rewards.DEFAULT) -> dict[str, Any]:
    """Return the report part of a trial with a result. Times are seconds, cost is USD, paths relative to the attempt."""
    config = safe_read.mapping(result.get("config"))
    own = steps_of(result)
    found, told_of_rewards = _rewards(result, attempt_dir, own)
    standing = rewards.stand(found, rule)
    contexts = {"": safe_read.mapping(result.get("agent_result"))}
    if not isinstance(result.get("agent_result"), dict):
        contexts = {
            f"step {safe_read.text(step.get('step_name'), 100)}": safe_read.mapping(used)
            for step in own
            if (used := step.get("agent_result")) is not None
        }
    used = _usage(contexts)
    return {
        "trial_name": safe_read.text(result.get("trial_name")),
        "task": {
            "name": safe_read.text(result.get("task_name")),
            "checksum": safe_read.text(result.get("task_checksum")),
            "source": safe_read.text(result.get("source")),
        },
        "agent": _agent(safe_read.mapping(result.get("agent_info")), config),
        "environment": safe_read.text(environment_of(dict(config))),
        "rewards": found,
        **standing._asdict(),
        "pass_rule": rule.model_dump(),
        "exception": exception_of(result, attempt_dir),
        "timings_sec": _timings(result),
        **used.told,
        "incomplete": list(used.incomplete),
        "tests": test_counts(attempt_dir / TRIAL_DIR),
        "trajectory": trajectory(attempt_dir),
        "steps": [_step(step, attempt_dir, rule) for step in own] or None,
        "warnings": [*told_of_rewards, *used.warnings],
    }


def steps_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of a multi-step trial's steps."""
    return [safe_read.mapping(s) for s in safe_read.sequence(result.get("step_results"))[:MAX_STEPS]]


def rewards_of(result: Mapping[str, Any]) -> dict[str, float | int] | None:
    """Return all rewards by name; None where the verifier gave none, or one of them is no number."""
    found, told_of = rewards.read(safe_read.mapping(result.get("verifier_result")).get("rewards"))
    return found if found and not told_of else None


def link_of(attempt_dir: Path, own: list[Mapping[str, Any]]) -> str | None:
    """That a reward file of the trial or of a step is a link, in one line; None where there is no link."""
    folders = [_verifier_dir(attempt_dir, None), *(_verifier_dir(attempt_dir, s) for s in own)]
    return next(filter(None, map(reward_file.link, filter(None, folders))), None)


def _rewards(
    result: Mapping[str, Any], attempt_dir: Path, own: list[Mapping[str, Any]]
) -> tuple[dict[str, float | int] | None, list[str]]:
    """Return the trial's rewards, and what is wrong with them."""
    _, told_of = rewards.read(safe_read.mapping(result.get("verifier_result")).get("rewards"))
    link = link_of(attempt_dir, own)
    if link is not None:
        return None, [*told_of, link]
    return rewards_of(result), told_of


def _verifier_dir(attempt_dir: Path, step: Mapping[str, Any] | None) -> Path | None:
    """Tell where the verifier of the trial, or of a step, has left its files; None where the step's name leads elsewhere."""
    if step is None:
        return attempt_dir / TRIAL_DIR / "verifier"
    name = safe_read.text(step.get("step_name"), 200)
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        return None
    return attempt_dir / TRIAL_DIR / "steps" / name / "verifier"


def _removed(attempt_dir: Path) -> Mapping[str, object]:
    """Tell what a sandbox has taken from the verifier's folder, name → what it was; the records name the last verification's."""
    names = ("sandbox.json", "sandbox-verifier.json")
    records = [safe_read.read_object(attempt_dir / TRIAL_DIR / n, MAX_RECORD_BYTES) for n in names]
    return {name: kind for record in records for name, kind in safe_read.mapping((record or {}).get("removed")).items()}


def exception_of(result: Mapping[str, Any], attempt_dir: Path) -> dict[str, Any] | None:
    """Return the exception of a trial or a step, as the report has it; None where there was none.

    Where it is about the verifier's files, its message is what stands in them.
    """
    info = safe_read.mapping(result.get("exception_info"))
    name = safe_read.text(info.get("exception_type"), 200)
    if name is None:
        return None
    message = _compose_told(safe_read.text(info.get("exception_message"), MAX_MESSAGE) or "")
    if name in reward_file.EXCEPTIONS:
        folder = _verifier_dir(attempt_dir, result if "step_name" in result else None)
        removed = {} if "step_name" in result else _removed(attempt_dir)
        message = (folder and reward_file.problem(folder, removed)) or message
    traceback = safe_read.text(info.get("exception_traceback"), safe_read.MAX_JSON_BYTES) or ""
    phase = _phase_at(result, info.get("occurred_at"))
    if phase == "environment_setup" and rewards_of(result) is not None:
        phase = "agent"
    policy = safe_read.mapping(info.get("policy"))
    found = verdict_of(name, message, phase, traceback, _logs(result, attempt_dir), _harbors(policy))
    made: dict[str, Any] = {
        "type": name,
        "message": safe_read.text(message, 4000) or "",
        "class": found.failure_class,
        "phase": phase,
    }
    if found.said and found.said != message:
        made["said"] = safe_read.text(found.said, 4000)
    if found.guessed:
        made["guessed"] = True
    if False in (policy.get("has_valid_reward"), policy.get("should_grade")):
        made["reward_valid"] = False
    return made


def rules_out(exception: Mapping[str, Any]) -> bool:
    """Tell whether a reward beside this exception is not the agent's."""
    name = exception["class"]
    if name in NEVER_SCORED:
        return True
    if name == "infrastructure" and exception["phase"] != "verifier":
        return True
    return exception.get("reward_valid") is False and not is_agents_result(exception)


def is_agents_result(exception: Mapping[str, Any]) -> bool:
    """Tell whether a provider refused because of the tested agent; a guessed ``agent_error`` is a request that it made wrongly."""
    name = exception["class"]
    return name in AGENTS_RESULTS or (name == "agent_error" and exception.get("guessed") is True)


def _harbors(policy: Mapping[str, Any]) -> str:
    """Return Harbor's word on the type, from 0.25 on."""
    if not isinstance(policy.get("should_retry"), bool):
        return ""
    again = "retry" if policy["should_retry"] else "final"
    if policy.get("should_grade") is False:
        return f"{again}, no grade"
    return f"{again}, no reward" if policy.get("has_valid_reward") is False else ""


def _logs(result: Mapping[str, Any], attempt_dir: Path) -> list[Path]:
    """Tell where the agent's program has left its output."""
    trial, step = attempt_dir / TRIAL_DIR, safe_read.text(result.get("step_name"), 200)
    if step is None:
        return [trial / "agent"]
    return [trial / "steps" / step / "agent"] if "/" not in step and step not in (".", "..") else []


def _phase_at(result: Mapping[str, Any], moment: object) -> Phase:
    """Return the phase of a trial or a step at a moment; its last where the moment is not known."""
    at = _time({"": {"at": moment}}, "", "at")
    begun = _time(result, "verifier", "started_at")
    if at and begun and (at.tzinfo is None) == (begun.tzinfo is None) and at < begun:
        return last_phase({**result, "verifier": None, "step_results": None})
    return last_phase(result)


def last_phase(result: Mapping[str, Any]) -> Phase:
    """Return the last phase that a trial or a step began."""
    parts = [result, *steps_of(result)[-1:]]
    for key, phase in _PHASES:
        if any(_time(part, key, "started_at") for part in parts):
            return phase
    return "agent" if "step_name" in result else "environment_setup"


_PHASES: tuple[tuple[str, Phase], ...] = (("verifier", "verifier"), ("agent_execution", "agent"))


def trajectory(attempt_dir: Path) -> str | None:
    """Return the path of the trajectory; of a multi-step trial, that of its last step which has one."""
    found = attempt_dir / TRIAL_DIR / "agent" / "trajectory.json"
    if safe_read.size(found) is None:
        name = "agent/trajectory.json"
        parts = sorted((attempt_dir / TRIAL_DIR / "steps").glob("*/" + name), key=_modified)
        if not parts:
            return None
        found = parts[-1]
    return found.relative_to(attempt_dir).as_posix()


def _modified(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _step(step: Mapping[str, Any], attempt_dir: Path, rule: PassRule) -> dict[str, Any]:
    found = rewards_of(step)
    return {
        "name": safe_read.text(step.get("step_name"), 200),
        "rewards": found,
        **rewards.stand(found, rule)._asdict(),
        "exception": exception_of(step, attempt_dir),
        "timings_sec": _timings(step),
        **_usage({"": safe_read.mapping(step.get("agent_result"))}).told,
    }


def _agent(info: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Name and version as the agent gives them, the model as the table names it."""
    wanted = safe_read.mapping(config.get("agent"))
    model = safe_read.mapping(info.get("model_info"))
    parts = [safe_read.text(model.get("provider")), safe_read.text(model.get("name"))]
    return {
        "name": safe_read.text(info.get("name")) or safe_read.text(wanted.get("name")),
        "version": safe_read.text(info.get("version")),
        "model": safe_read.text(wanted.get("model_name")) or "/".join(filter(None, parts)) or None,
    }


def _timings(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each phase that has both ends, and of the whole as ``total``."""
    spans = {name: safe_read.mapping(result.get(name)) for name in TIMINGS}
    seconds = {}
    for name, span in {**spans, "total": result}.items():
        start, end = _time({"": span}, "", "started_at"), _time({"": span}, "", "finished_at")
        if start and end and (start.tzinfo is None) == (end.tzinfo is None):
            seconds[name] = round(max(0.0, (end - start).total_seconds()), 6)
    return seconds


def _time(part: Mapping[str, Any], key: str, field: str) -> datetime | None:
    value = safe_read.text(safe_read.mapping(part.get(key)).get(field), 64)
    try:
        return datetime.fromisoformat(value) if value else None
    except ValueError:
        return None


def _usage(contexts: Mapping[str, Mapping[str, Any]]) -> usage.Usage:
    """Return tokens and cost, summed; None where nobody counted. Cache tokens are part of the input's."""
    return usage.of_parts(contexts, _USED)


_USED = {"input": "n_input_tokens", "cache": "n_cache_tokens", "output": "n_output_tokens", "cost_usd": "cost_usd"}


_FAILED = re.compile(
    r"(Docker compose command failed for environment .*?)\. Command: .*?\. "
    r"Return code: (-?\d+)\. Stdout: (.*)\. Stderr: (.*)\. ?",
    re.DOTALL,
)
MAX_OUTPUT = 3000
"""Characters of the output's end that are kept."""


def _compose_told(message: str) -> str:
    """Return the message with the reason in its first line and the end of the output below; any other message as it is."""
    failed = _FAILED.fullmatch(message)
    if failed is None:
        return message
    said, code, *streams = failed.groups()
    output = "\n".join(stream.strip() for stream in streams if stream != "None")
    reason = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    first = f"{said}: {safe_read.text(reason, 600)}" if reason else f"{said}: exit code {code}"
    return f"{first}\n{output[-MAX_OUTPUT:]}"


MAX_CTRF_BYTES = 16 * 1024 * 1024
CTRF_PATTERNS = ("verifier/ctrf.json", "steps/*/verifier/ctrf.json", "verifier/*ctrf*.json")


def test_counts(trial_dir: Path) -> dict[str, int] | None:
    """Return ``{passed, failed, total}``, summed over the steps of a multi-step trial; None without a report."""
    for pattern in CTRF_PATTERNS:
        found = [c for c in map(_read_counts, sorted(trial_dir.glob(pattern))[:1000]) if c is not None]
        if found:
            return {key: sum(c[key] for c in found) for key in ("passed", "failed", "total")}
    return None


def _read_counts(path: Path) -> dict[str, int] | None:
    report = safe_read.read_object(path, MAX_CTRF_BYTES) or {}
    summary = safe_read.mapping(safe_read.mapping(report.get("results")).get("summary"))
    passed, failed = safe_read.whole(summary.get("passed")), safe_read.whole(summary.get("failed"))
    total = safe_read.whole(summary.get("tests"))
    if passed is None and total is None:
        return None
    passed = passed or 0
    failed = failed or 0
    return {"passed": passed, "failed": failed, "total": total if total is not None else passed + failed}
