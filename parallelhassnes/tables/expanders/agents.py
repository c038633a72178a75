"""Agent steps: what a coding agent is asked, put together from table, pack, job and step into an ``AgentPlan``.

Of the four the nearest one to the step counts; ``execution_policy`` and ``workspace_policy`` are merged key by key.
Relative files are looked for in the step's working directory first, then where a table's paths are looked for.
"""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from parallelhassnes.plan import AgentPlan, AgentPolicy, ResumeFrom, WorkspacePolicy
from parallelhassnes.tables.expanders import agent_files
from parallelhassnes.tables.expanders.agent_files import SearchPlace
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.model import AgentPart, AgentWork, JobHead, PackPart, Step, TableHead
from parallelhassnes.tables.parse.field_names import known_keys
from parallelhassnes.tables.parse.located_errors import pointer

BUILT_IN = ("codex", "claude")
PLACES = ("prompt_file", "schema_file", "output_file", "workdir")


def agent_spec(
    step: Step, at: str, job_id: str, job: JobHead | None, head: TableHead, context: Expansion
) -> dict[str, Any]:
    """Return ``queue_key``, ``label``, ``timeout_sec``, ``retry``, ``spec`` and ``depends_on`` of an agent step."""
    pack, pack_at = _pack(step, job, head, at, context)
    above = at.split("/steps/", maxsplit=1)[0]
    layers: list[tuple[AgentWork, str]] = [(head, "")]
    layers += [(pack, pack_at)] if pack else []
    layers += [(job, above)] if job else []
    layers += [(step, at)]
    said: dict[str, Any] = _agent(step, layers, context)
    policy = _merged("execution_policy", AgentPolicy, layers, context)
    said["model"] = _nearest(layers, "model")[0] or policy.pop("model", None)
    effort, effort_at = _nearest(layers, "effort")
    if effort is not None and not _is_nearer(layers, "execution_policy", effort_at):
        policy["model_reasoning_effort"] = effort
    folder = _working_directory(step, job, head, at, context)
    place = SearchPlace(folder, context)
    said["working_directory"] = str(folder)
    workspace = _merged("workspace_policy", WorkspacePolicy, layers, context)
    _check_git(folder, policy, workspace, layers, context)
    if policy.get("add_dirs"):
        policy["add_dirs"] = agent_files.folders(policy["add_dirs"], place, _owner(layers, "execution_policy"))
    said |= {"execution_policy": policy, "workspace_policy": workspace}
    said |= _texts(step, at, pack, pack_at, place)
    schema, schema_at = _nearest(layers, "output_schema_ref")
    said["output_schema"] = agent_files.schema(schema, place, schema_at + "/output_schema_ref")
    said["report_version"] = 1 if context.forgiving else 2
    wanted, wanted_at = _nearest(layers, "artifacts_expected")
    said["artifacts_expected"] = agent_files.artifacts(wanted or [], place, wanted_at + "/artifacts_expected")
    said["repair"] = _nearest(layers, "repair")[0] or 0
    said["labels"] = {**(job.labels if job else {}), **step.labels}
    templates = _nearest(layers, "templates")[0]
    said["templates"] = not context.forgiving if templates is None else templates
    depends_on = []
    if step.resume_from is not None:
        said["resume_from"], source = _resume(step.resume_from, at + "/resume_from", context)
        if source is not None:
            depends_on.append(source if "/" in source else f"{job_id}/{source}")
    rules = (
        step.retry,
        step.retry_policy,
        step.retries,
        job.retries if job else None,
        pack.retries if pack else None,
        head.retries,
        head.retry,
    )
    modes = [rule.mode for rule in rules if rule and rule.mode is not None]
    if step.resume_from is None and modes[:1] == ["resume_last_attempt"]:
        said["retries_resume"] = True
    model, agent = said["model"], said["agent"]
    return {
        "queue_key": context.key(str(model), at) if model else context.agent_key(agent),
        "label": f"{agent} · {model}" if model else agent,
        "timeout_sec": _timeout(step, layers, context),
        "retry": context.retry(*rules),
        "spec": _plan(said, at, context),
        "depends_on": depends_on,
    }


def _plan(said: dict[str, Any], at: str, context: Expansion) -> dict[str, Any]:
    """Tell what was said as ``AgentPlan`` has it; without what is at its default."""
    try:
        plan = AgentPlan.model_validate({k: v for k, v in said.items() if v is not None})
    except ValidationError as error:  # a part of it was reported with its own pointer already
        if not context.problems:
            context.problems.add_validation(at, error)
        return {}
    return plan.model_dump(mode="json", exclude_defaults=True)


# --- which agent --------------------------------------------------------------------------------------


def _agent(step: Step, layers: Sequence[tuple[AgentWork, str]], context: Expansion) -> dict[str, Any]:
    given, at = _nearest(layers, "agent")
    at += "/agent"
    said: dict[str, Any] = {"agent": "codex"}
    if isinstance(given, str):
        said["agent"] = given
    elif given is not None:
        part = context.validated(AgentPart, context.known_part(given, known_keys(AgentPart), at), at)
        said |= part.model_dump(exclude_none=True) if part else {}
        said["agent"] = said.pop("name", "template")
    command_at = at + "/command"
    if step.command is not None:
        said["command"], command_at = step.command, layers[-1][1] + "/command"
    if said["agent"] in BUILT_IN and said.get("command"):
        context.problems.add(
            command_at,
            f"stands beside agent {said['agent']}, which has its own",
            'name another agent, such as "template"',
        )
    elif said["agent"] not in BUILT_IN and not said.get("command"):
        if said["agent"] == "template":
            context.problems.add(at, "is a template without a command", "write the command")
        else:
            context.problems.unknown_value(at, "agent", said["agent"], (*BUILT_IN, "template"))
    for index, part in enumerate(said.get("command", ())):
        _check_places(part, command_at + pointer(index), context)
    return said


def _check_places(text: str, at: str, context: Expansion) -> None:
    """Refuse a misspelt ``{prompt_file}``; other braces are text."""
    for name in {part.partition("}")[0] for part in text.split("{")[1:] if "}" in part}:
        if name not in PLACES and difflib.get_close_matches(name, PLACES, n=1, cutoff=0.75):
            context.problems.unknown_value(at, "place in a command:", name, PLACES)


# --- policies -----------------------------------------------------------------------------------------


def _merged(
    name: str, model: type[BaseModel], layers: Sequence[tuple[AgentWork, str]], context: Expansion
) -> dict[str, Any]:
    """Return a policy of all layers, key by key; what is wrong with it is reported where it stands."""
    merged: dict[str, Any] = {}
    also = {"model"} if name == "execution_policy" else set()
    for layer, at in layers:
        place = at + pointer(name)
        known = {*model.model_fields, *also}
        kept = context.known_part(getattr(layer, name) or {}, known, place)
        try:  # as JSON, where an array may become a tuple and nothing else is taken for another type
            own = {key: value for key, value in kept.items() if key not in also}
            model.model_validate_json(json.dumps(own), strict=True)
        except ValidationError as error:
            context.problems.add_validation(place, error)
        merged |= kept
    return merged


def _check_git(
    folder: Path,
    policy: dict[str, Any],
    workspace: dict[str, Any],
    layers: Sequence[tuple[AgentWork, str]],
    context: Expansion,
) -> None:
    """Refuse a folder that is no git repository where one is needed."""
    if not folder.is_dir() or _in_repository(folder):
        return
    if workspace.get("mode") == "isolated":
        context.problems.add(
            _owner(layers, "workspace_policy") + "/workspace_policy/mode",
            f"isolated needs a git repository, and {folder} is in none",
            "git init, or use shared",
        )
    elif policy.get("skip_git_repo_check") is False and context.forgiving:
        context.problems.warn(
            f"{folder} is in no git repository: Codex works there only if its config.toml trusts the folder; "
            "execution_policy.skip_git_repo_check: true has it work anyway"
        )
    elif policy.get("skip_git_repo_check") is False:
        context.problems.add(
            _owner(layers, "execution_policy") + "/execution_policy/skip_git_repo_check",
            f"is false, and {folder} is in no git repository",
            "git init, or skip the check",
        )


def _in_repository(folder: Path) -> bool:
    """Tell whether git would find a repository from there; it looks no further up than ``GIT_CEILING_DIRECTORIES`` say."""
    ceilings = os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
    for parent in (folder, *folder.parents):
        if parent != folder and str(parent) in ceilings:
            return False
        if (parent / ".git").exists():
            return True
    return False


# --- texts and folders --------------------------------------------------------------------------------


def _texts(step: Step, at: str, pack: PackPart | None, pack_at: str, place: SearchPlace) -> dict[str, Any]:
    problems = place.context.problems
    said: dict[str, Any] = {"prompt": step.prompt}
    if step.prompt is not None and step.prompt_ref is not None:
        problems.add(at + "/prompt_ref", "stands beside prompt", "keep one of the two")
    if step.prompt is not None and not step.prompt.strip():
        problems.add(at + "/prompt", "is blank", "say what the agent is to do")
    if step.prompt_ref is not None:
        said["prompt_ref"] = place.file(step.prompt_ref, at + "/prompt_ref", "prompt file")
    appended = [step.append_prompt]
    if pack is not None:
        said["pack_prompt"] = pack.prompt
        if pack.prompt_ref is not None:
            where = pack_at + "/prompt_ref"
            said["pack_prompt_ref"] = place.file(pack.prompt_ref, where, "prompt file")
        appended.append(pack.append_prompt)
    said["append_prompt"] = "\n\n".join(text for text in appended if text) or None
    return said


def _working_directory(step: Step, job: JobHead | None, head: TableHead, at: str, context: Expansion) -> Path:
    """Return ``working_root`` / ``working_directory``, absolute, each with its default."""
    bases = context.bases
    base = bases.folders[0] if bases.folders else Path.cwd()
    root = base
    if head.working_root:
        root = bases.find(head.working_root) or base / Path(head.working_root).expanduser()
        _exists(root, "/working_root", "working_root", context)
    named = step.working_directory or (job.working_directory if job else None) or head.working_directory
    if not named:
        return root
    folder = root / Path(named).expanduser()
    owner = at if step.working_directory else at.split("/steps/", maxsplit=1)[0]
    if not step.working_directory and not (job and job.working_directory):
        owner = ""
    if root.is_dir():
        _exists(folder, owner + "/working_directory", "working_directory", context)
    return folder


def _exists(folder: Path, at: str, what: str, context: Expansion) -> None:
    if folder.is_dir():
        return
    if context.forgiving:
        context.problems.warn(f"{what} {folder} does not exist on this machine; its agent steps will fail")
    elif not any(problem.pointer == at for problem in context.problems.found):
        context.problems.add(at, f"folder {folder} does not exist", "correct the path")


def _pack(step: Step, job: JobHead | None, head: TableHead, at: str, context: Expansion) -> tuple[PackPart | None, str]:
    """Return the pack that a step uses, and where it stands."""
    name = step.pack_id or (job.pack_id if job else None) or head.default_pack_id
    if name is None:
        return None, ""
    packs = head.packs or {}
    if name not in packs:
        owner = at if step.pack_id else at.split("/steps/", maxsplit=1)[0]
        place = owner + "/pack_id" if step.pack_id or (job and job.pack_id) else "/default_pack_id"
        context.problems.unknown_value(place, "pack", name, packs)
        return None, ""
    raw, place = packs[name], pointer("packs", name)
    if isinstance(raw, str):  # the file of a text alone
        return PackPart(prompt_ref=raw), place
    if not any(problem.pointer.startswith(place) for problem in context.problems.found):
        known = context.known_part(raw, known_keys(PackPart), place)
        return context.validated(PackPart, known, place), place
    return None, place


# --- the rest -----------------------------------------------------------------------------------------


def _timeout(step: Step, layers: Sequence[tuple[AgentWork, str]], context: Expansion) -> float | None:
    found = step.timeout_sec or step.timeout_seconds
    for layer, at in reversed(layers):
        known = context.known_part(layer.timeouts or {}, {"step_timeout_seconds"}, at + "/timeouts")
        value = known.get("step_timeout_seconds")
        if value is None or found is not None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            where = at + "/timeouts/step_timeout_seconds"
            context.problems.add(where, "must be a number of seconds above 0")
            return None
        found = float(value)
    return found


def _resume(raw: dict[str, Any], at: str, context: Expansion) -> tuple[dict[str, Any] | None, str | None]:
    """Return ``resume_from`` as the plan has it, and the step that it names."""
    raw = context.known_part(raw, known_keys(ResumeFrom), at)
    selectors = ("latest_successful", "latest", "run_id")
    selector = raw.get("selector", "latest_successful")
    if isinstance(selector, str) and selector not in selectors:
        context.problems.unknown_value(at + "/selector", "selector", selector, selectors)
        return None, None
    part = context.validated(ResumeFrom, raw, at)
    if part is None:
        return None, None
    if part.selector == "run_id" and not part.run_id:
        context.problems.add(at + "/run_id", "is missing", "name the attempt to resume")
    return part.model_dump(), part.step_id


def _nearest(layers: Sequence[tuple[AgentWork, str]], name: str) -> tuple[Any, str]:
    """Return the value nearest to the step, and where its owner stands."""
    for layer, at in reversed(layers):
        value = getattr(layer, name)
        if value is not None:
            return value, at
    return None, layers[-1][1]


def _owner(layers: Sequence[tuple[AgentWork, str]], name: str) -> str:
    return _nearest(layers, name)[1]


def _is_nearer(layers: Sequence[tuple[AgentWork, str]], policy: str, effort_at: str) -> bool:
    """Tell whether a layer below the one that says ``effort`` names the effort in its policy."""
    for layer, at in reversed(layers):
        if at == effort_at:
            return False
        if "model_reasoning_effort" in (getattr(layer, policy) or {}):
            return True
    return False
