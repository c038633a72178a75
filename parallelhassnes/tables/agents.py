"""Agent steps: what a coding agent is asked, put together from table, job and step.

Relative files are looked for in the step's working directory first, then where a table's paths are
looked for.
"""

from pathlib import Path
from typing import Any

from parallelhassnes.tables.context import Context
from parallelhassnes.tables.model import AgentWork, JobHead, Step, TableHead
from parallelhassnes.tables.problems import pointer

SELECTORS = ("latest_successful", "latest", "run_id")
_MERGED = ("execution_policy", "workspace_policy")
_NEAREST = ("model", "artifacts_expected")


def agent_spec(
    step: Step, at: str, job: JobHead | None, head: TableHead, context: Context
) -> dict[str, Any]:
    """``queue_key``, ``label``, ``timeout_sec``, ``retry``, ``spec`` and ``resume_step`` of an agent step."""
    layers: list[AgentWork] = [head, *([job] if job else []), step]
    agent = step.agent if isinstance(step.agent, str) else "codex"
    if isinstance(step.agent, dict):
        context.problems.add(
            at + "/agent", "must be a string, not an object", "name the agent: codex"
        )
    spec: dict[str, Any] = {"agent": agent}
    for name in _MERGED:
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= getattr(layer, name) or {}
        if merged:
            spec[name] = merged
    for name in _NEAREST:
        value = _nearest(layers, name)
        if value is not None:
            spec[name] = value
    folder = _working_directory(step, job, head, at, context)
    spec["working_directory"] = str(folder)
    _files(step, layers, folder, at, spec, context)
    _pack(step, job, head, at, spec, context)
    labels = {**(job.labels if job else {}), **step.labels}
    if labels:
        spec["labels"] = labels
    model = spec.get("model") or spec.get("execution_policy", {}).get("model")
    parts: dict[str, Any] = {
        "queue_key": context.key(str(model), at) if model else context.agent_key(agent),
        "label": f"{agent} · {model}" if model else agent,
        "timeout_sec": _timeout(step, layers, at, context),
        "retry": context.retry(
            step.retry, step.retry_policy, step.retries, job.retries if job else None, head.retries,
            head.retry,
        ),
        "spec": spec,
    }  # fmt: skip
    if step.resume_from is not None:
        parts["resume_step"] = _resume(step.resume_from, at + "/resume_from", context)
        spec["resume_from"] = {"selector": "latest_successful", **step.resume_from}
    return parts


def _files(
    step: Step,
    layers: list[AgentWork],
    folder: Path,
    at: str,
    spec: dict[str, Any],
    context: Context,
) -> None:
    if step.prompt is not None and step.prompt_ref is not None:
        context.problems.add(at + "/prompt_ref", "stands beside prompt", "keep one of the two")
    if step.prompt is not None:
        if not step.prompt.strip():
            context.problems.add(at + "/prompt", "is blank", "say what the agent is to do")
        spec["prompt"] = step.prompt
    if step.prompt_ref is not None:
        spec["prompt_ref"] = _file(
            step.prompt_ref, folder, at + "/prompt_ref", "prompt file", context
        )
    if step.append_prompt is not None:
        spec["append_prompt"] = step.append_prompt
    schema = _nearest(layers, "output_schema_ref")
    if schema is not None:
        spec["output_schema_ref"] = _file(
            str(schema), folder, at + "/output_schema_ref", "schema file", context
        )


def _file(text: str, folder: Path, at: str, what: str, context: Context) -> str:
    inside = folder / Path(text).expanduser()
    if inside.is_file():
        return str(inside.resolve())
    found = context.bases.find(text)
    if found is not None and found.is_file():
        return str(found)
    if not folder.is_dir() and context.forgiving:
        # The folder is on another machine; that was warned of.
        return str(inside)
    looked = ", ".join(map(str, [folder, *context.bases.folders]))
    context.problems.add(
        at, f"{what} {text} does not exist; looked in {looked}", "correct the path"
    )
    return text


def _working_directory(
    step: Step, job: JobHead | None, head: TableHead, at: str, context: Context
) -> Path:
    """``working_root`` / ``working_directory``, absolute, each with its default."""
    bases = context.bases
    base = bases.folders[0] if bases.folders else Path.cwd()
    root = base
    if head.working_root:
        root = bases.find(head.working_root) or base / Path(head.working_root).expanduser()
        _exists(root, "/working_root", "working_root", context)
    named = (
        step.working_directory or (job.working_directory if job else None) or head.working_directory
    )
    if not named:
        return root
    folder = root / Path(named).expanduser()
    owner = at if step.working_directory else at.split("/steps/", maxsplit=1)[0]
    if root.is_dir():
        _exists(folder, owner + "/working_directory", "working_directory", context)
    return folder


def _exists(folder: Path, at: str, what: str, context: Context) -> None:
    if folder.is_dir():
        return
    if context.forgiving:
        context.problems.warn(
            f"{what} {folder} does not exist on this machine; its agent steps will fail"
        )
    elif not any(problem.pointer == at for problem in context.problems.found):
        context.problems.add(at, f"folder {folder} does not exist", "correct the path")


def _pack(
    step: Step,
    job: JobHead | None,
    head: TableHead,
    at: str,
    spec: dict[str, Any],
    context: Context,
) -> None:
    name = step.pack_id or (job.pack_id if job else None) or head.default_pack_id
    if name is None:
        return
    packs = head.packs or {}
    if name in packs:
        spec["pack"] = packs[name]
        return
    place = at + "/pack_id" if step.pack_id else at.split("/steps/", maxsplit=1)[0] + "/pack_id"
    context.problems.unknown_value(place, "pack", name, packs)


def _timeout(step: Step, layers: list[AgentWork], at: str, context: Context) -> float | None:
    given = step.timeout_sec or step.timeout_seconds
    if given is not None:
        return given
    for layer in reversed(layers):
        value = (layer.timeouts or {}).get("step_timeout_seconds")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            place = "/timeouts" if layer is layers[0] else at + "/timeouts"
            context.problems.add(
                place + "/step_timeout_seconds", "must be a number of seconds above 0"
            )
            return None
        return float(value)
    return None


def _resume(raw: dict[str, Any], at: str, context: Context) -> str | None:
    problems = context.problems
    for key in raw:
        if key not in ("step_id", "selector", "run_id"):
            problems.unknown_key(at, key, ("step_id", "selector", "run_id"))
    selector = raw.get("selector", "latest_successful")
    if not isinstance(selector, str):
        problems.add(at + "/selector", "must be a string")
    elif selector not in SELECTORS:
        problems.unknown_value(at + "/selector", "selector", selector, SELECTORS)
    elif selector == "run_id" and not isinstance(raw.get("run_id"), str):
        problems.add(at + "/run_id", "is missing", "name the attempt to resume")
    source = raw.get("step_id")
    if not isinstance(source, str) or not source:
        problems.add(at + pointer("step_id"), "is missing", "name the step to resume")
        return None
    return source


def _nearest(layers: list[AgentWork], name: str) -> Any:
    for layer in reversed(layers):
        value = getattr(layer, name)
        if value is not None:
            return value
    return None
