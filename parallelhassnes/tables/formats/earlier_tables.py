"""Tables of the earlier ParallelHassnes in our own shape: each means what it meant.

``KEYS`` has every key that the earlier program knew, by where it stands, with what becomes of it here. A key that is
in neither this list nor our own tables is an error. Where a key cannot mean the same, or obeying it could do harm, a
line at submission says so.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallelhassnes.plan import AgentPolicy, ResumeFrom, WorkspacePolicy
from parallelhassnes.states import RETRIED
from parallelhassnes.tables.model import ArtifactPart, Job, PackPart, RetryPart, Step, Table
from parallelhassnes.tables.parse.field_names import known_keys
from parallelhassnes.tables.parse.located_errors import Problems, pointer

type Becomes = Literal["kept", "told", "refused"]


class Key(NamedTuple):
    """What becomes of a key of the earlier program."""

    becomes: Becomes
    """``kept``: it means what it meant; ``told``: it changes nothing, and a line says why; ``refused``: an error."""
    why: str
    """What it means, or why it is not obeyed."""


def _kept(meaning: str) -> Key:
    return Key("kept", meaning)


_ASSIGNED = Key("told", "is assigned here")
_TIDY = Key(
    "told", "is not obeyed: [retention] of parallelhassnes.toml says what gc removes, and nothing is removed by itself"
)
_BEAT = Key("told", "is not obeyed: the heartbeat of this version tells within a minute who has died")
_TRIED = Key("refused", "was a hook of the earlier program's own tests")
_PACKS = _kept("named texts; `text` stands before the prompt")
_OVERRIDES = _kept("the same six keys as at the top; what stands here counts more")

KEYS: Mapping[str, Mapping[str, Key]] = {
    "table": {
        "spec_version": _kept("1.x, or left out"),
        "batch_id": _ASSIGNED,
        "submitted_at": _ASSIGNED,
        "launch_table_sha256": _ASSIGNED,
        "harness_config_version": _ASSIGNED,
        "effective_defaults": _kept("of a table that the harness wrote back: its defaults"),
        "batch_goal_summary": _kept("may also be short or missing"),
        "working_root": _kept("default: the folder of the submission"),
        "concurrency": _kept("default: 1"),
        "packs": _PACKS,
        "default_pack_id": _kept("pack of steps that name none"),
        "defaults_overrides": _OVERRIDES,
        "effective_defaults_overrides": _OVERRIDES,
        "execution_policy": _kept("what an agent may do"),
        "timeouts": _kept("default: one hour"),
        "retries": _kept("default: one attempt"),
        "workspace_policy": _kept("default: shared"),
        "retention_policy": _TIDY,
        "scoreboard": _BEAT,
        "jobs": _kept("as ever"),
    },
    "job": {
        "job_id": _kept("default: job1 … by position"),
        "working_directory": _kept("below working_root"),
        "pack_id": _kept("pack of its steps that name none"),
        "workspace_policy": _kept("instead of the table's"),
        "steps": _kept("as ever"),
    },
    "step": {
        "step_id": _kept("default: step1 … by position"),
        "prompt": _kept("text; braces are text"),
        "prompt_ref": _kept("file with it, relative to the working directory"),
        "append_prompt": _kept("text after it"),
        "pack_id": _kept("text before it"),
        "depends_on": _kept("steps of the same job"),
        "resume_from": _kept("whose conversation is continued"),
        "retry_policy": _kept("instead of the table's `retries`, as a whole"),
        "timeout_seconds": _kept("0 or less: none"),
        "output_schema_ref": _kept("default: the earlier Run Report, 1.0.0"),
        "artifacts_expected": _kept("`{name}`: a file of the attempt's folder"),
        "runner_affinity": Key("told", "is not obeyed: an attempt runs on any host that has joined the root"),
        "fake_workspace_writes": _TRIED,
        "fake_workspace_assert_exists": _TRIED,
        "fake_codex_home_marker": _TRIED,
        "fake_sleep_seconds": _TRIED,
        "fake_exit_code": _TRIED,
        "fake_exit_codes": _TRIED,
    },
    "execution_policy": {
        "sandbox": _kept("Codex's; default: workspace-write"),
        "approval_policy": _kept("default: on-request, of which nobody is there to approve anything"),
        "skip_git_repo_check": _kept("default: false"),
        "web_search_enabled": _kept("default: what config.toml says, else false"),
        "model_reasoning_effort": _kept("default: what config.toml says"),
        "add_dirs": _kept("more folders that it may write to"),
        "add_dir": _kept("one of them"),
        "capture_events_jsonl": _kept("events are kept always"),
        "capture_codex_thread_id": _kept("the thread's id is kept always"),
        "capture_git_artifacts": Key("told", "was not read in a table; of isolated workspaces a patch is kept always"),
    },
    "timeouts": {"step_timeout_seconds": _kept("seconds; 0 or less: none")},
    "retries": {
        "max_attempts": _kept("default: 1"),
        "backoff_seconds": _kept("seconds before each retry, always the same; default: 0"),
        "retry_on_statuses": _kept("after how an attempt ended there is another; default: failed"),
        "mode": _kept("`resume_last_attempt`: a retry goes on with the conversation of the attempt before it"),
    },
    "workspace_policy": {
        "mode": _kept("shared or isolated"),
        "allow_isolated_copy_fallback": Key("told", "is not obeyed: a folder outside of git is never copied"),
        "copy_exclude_names": Key("told", "is not obeyed: a folder outside of git is never copied"),
    },
    "resume_from": {
        "step_id": _kept("of the same job"),
        "selector": _kept("latest_successful, latest or run_id"),
        "run_id": _kept("of the selector run_id"),
        "codex_thread_id": _kept("which conversation of that attempt"),
    },
    "pack": {"text": _kept("stands before the prompt")},
    "artifact": {"name": _kept("a file of the attempt's folder")},
}
_OWN: Mapping[str, frozenset[str]] = {
    "table": known_keys(Table),
    "job": known_keys(Job),
    "step": known_keys(Step),
    "execution_policy": frozenset({*AgentPolicy.model_fields, "model"}),
    "timeouts": frozenset(),
    "retries": known_keys(RetryPart),
    "workspace_policy": frozenset(WorkspacePolicy.model_fields),
    "resume_from": known_keys(ResumeFrom),
    "pack": known_keys(PackPart),
    "artifact": known_keys(ArtifactPart),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "execution_policy": {"approval_policy": "on-request", "skip_git_repo_check": False, "user_config": True},
    "timeouts": {"step_timeout_seconds": 3600},
    "retries": {},
    "workspace_policy": {},
}
_FINAL = ("succeeded", "canceled")
_MODES = ("resume_last_attempt",)
_FOR_EVER = 31_536_000
"""Seconds of a step without a limit: a year."""


def turned(document: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Return a table of the earlier ParallelHassnes in our own shape; what is wrong or not obeyed goes to ``problems``."""
    table = _part(document, "table", "", problems)
    merged = _defaults(table, problems)
    timeouts = _part(merged["timeouts"], "timeouts", "/timeouts", problems)
    for name in ("defaults_overrides", "effective_defaults_overrides", "effective_defaults", "spec_version"):
        table.pop(name, None)
    table |= {
        "execution_policy": _policy(merged["execution_policy"], "/execution_policy", problems),
        "timeouts": {"step_timeout_seconds": _seconds(timeouts.get("step_timeout_seconds"))},
        "retries": _retries(merged["retries"], "/retries", problems),
        "workspace_policy": _part(merged["workspace_policy"], "workspace_policy", "/workspace_policy", problems),
    }
    table.setdefault("concurrency", 1)
    if isinstance(table.get("packs"), dict):
        table["packs"] = {name: _pack(pack, pointer("packs", name), problems) for name, pack in table["packs"].items()}
    jobs = table.get("jobs")
    if isinstance(jobs, list):
        table["jobs"] = [_job(job, pointer("jobs", i), problems) for i, job in enumerate(jobs)]
    _tell_of_harm(table, problems)
    return table


def _part(part: Any, place: str, at: str, problems: Problems) -> dict[str, Any]:
    """Return what of a part is obeyed: without null values, which the earlier program took for absent."""
    if not isinstance(part, dict):
        if part is not None:
            problems.add(at, "must be an object")
        return {}
    kept: dict[str, Any] = {}
    for name, value in part.items():
        key = KEYS[place].get(name)
        if key is None:
            if name not in _OWN[place]:
                problems.unknown_key(at, name, {*KEYS[place], *_OWN[place]})
            elif value is not None:
                kept[name] = value
        elif key.becomes == "refused":
            problems.add(at + pointer(name), key.why, "remove it")
        elif value is not None and key.becomes == "told":
            problems.warn(f"{at}{pointer(name)} {key.why}")
        elif value is not None:
            kept[name] = value
    return kept


def _defaults(table: Mapping[str, Any], problems: Problems) -> dict[str, dict[str, Any]]:
    """Return the four sections of defaults: the program's, what stands in the table, its overrides, each over the one before."""
    merged = {name: dict(section) for name, section in _DEFAULTS.items()}
    told = {"retention_policy", "scoreboard"}
    overrides = "defaults_overrides" if "defaults_overrides" in table else "effective_defaults_overrides"
    for name in ("effective_defaults", "", overrides):
        layer = table.get(name, {}) if name else {key: table[key] for key in _DEFAULTS if key in table}
        at = pointer(name) if name else ""
        if not isinstance(layer, dict):
            problems.add(at, "must be an object")
            continue
        for key, section in layer.items():
            if key in told:
                if section:
                    problems.warn(f"{at}{pointer(key)} {KEYS['table'][key].why}")
            elif key not in _DEFAULTS:
                problems.unknown_key(at, key, {*_DEFAULTS, *told})
            elif isinstance(section, dict):
                merged[key] |= section
            elif section is not None:
                problems.add(at + pointer(key), "must be an object")
    return merged


def _policy(section: dict[str, Any], at: str, problems: Problems) -> dict[str, Any]:
    made = _part(section, "execution_policy", at, problems)
    for name in ("capture_events_jsonl", "capture_codex_thread_id"):
        if made.pop(name, True) is False:
            problems.warn(f"{at}/{name} is false and is not obeyed: {KEYS['execution_policy'][name].why}")
    more = made.pop("add_dir", None)
    dirs = made.get("add_dirs", more)
    if dirs is not None:
        made["add_dirs"] = [dirs] if isinstance(dirs, str) else dirs
    if "sandbox" in section and not (section["sandbox"] or "").strip():
        made.pop("sandbox", None)
        problems.warn(
            f"{at}/sandbox is empty, which took every bound from the agent; here it is workspace-write: "
            "write danger-full-access if that is meant"
        )
    return made


def _seconds(value: Any) -> Any:
    """Return a time limit as ours; anything that is no number stays what it is, to be reported where it is read."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return value
    return value if value and value > 0 else _FOR_EVER


def _retries(section: Any, at: str, problems: Problems) -> dict[str, Any]:
    """Return a rule of retries as ours, with the earlier defaults in it."""
    made: dict[str, Any] = {"max_attempts": 1, "retry_on_statuses": ["failed"], "mode": "begin_anew"}
    made |= _part(section, "retries", at, problems)
    seconds = made.pop("backoff_seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        problems.add(at + "/backoff_seconds", "must be a number of seconds")
    else:
        made.setdefault("backoff_sec", max(seconds, 0))
    mode = made["mode"]
    if mode not in (*_MODES, "begin_anew"):
        problems.unknown_value(at + "/mode", "mode", str(mode), _MODES)
        made["mode"] = "begin_anew"
    named = made["retry_on_statuses"]
    if not isinstance(named, list):
        problems.add(at + "/retry_on_statuses", "must be a list of statuses")
        named = []
    for status in named:
        if status in _FINAL:
            problems.warn(f"{at}/retry_on_statuses: {status} is not obeyed: such an attempt is final, as it was")
        elif status not in RETRIED:
            problems.unknown_value(at + "/retry_on_statuses", "status", str(status), (*RETRIED, *_FINAL))
    # Whatever broke an attempt off, or left its report invalid, was called needs_attention there; failed is what its name says.
    made["retry_on_statuses"] = [status for status in named if status in RETRIED]
    if not made["retry_on_statuses"]:
        made |= {"max_attempts": 1}
        del made["retry_on_statuses"]
    elif "needs_attention" in made["retry_on_statuses"]:
        made["retry_on_statuses"] = [*RETRIED]
    return made


def _pack(pack: Any, at: str, problems: Problems) -> Any:
    """Return a pack as ours; a text alone is the name of a file, as in our own tables."""
    if not isinstance(pack, dict):
        return pack
    made = _part(pack, "pack", at, problems)
    text = made.pop("text", None)
    if text is None:
        return made
    if "prompt" in made or "prompt_ref" in made:
        problems.add(at + "/text", "stands beside prompt", "keep one of the two")
    elif isinstance(text, str):
        made["prompt"] = text.strip()
    else:
        problems.add(at + "/text", "must be a string")
    return made


def _job(job: Any, at: str, problems: Problems) -> Any:
    if not isinstance(job, dict):
        return job
    made = _part(job, "job", at, problems)
    _sections(made, at, problems)
    steps = made.get("steps")
    if isinstance(steps, list):
        made["steps"] = [_step(step, at + pointer("steps", i), problems) for i, step in enumerate(steps)]
    return made


def _step(step: Any, at: str, problems: Problems) -> Any:
    if not isinstance(step, dict):
        return step
    made = _part(step, "step", at, problems)
    _sections(made, at, problems)
    if "timeout_seconds" in made:
        made["timeout_seconds"] = _seconds(made["timeout_seconds"])
    if made.get("retry_policy"):
        made["retry_policy"] = _retries(made["retry_policy"], at + "/retry_policy", problems)
    else:
        made.pop("retry_policy", None)
    if "resume_from" in made:
        resumed = _part(made["resume_from"], "resume_from", at + "/resume_from", problems)
        thread = resumed.pop("codex_thread_id", None)
        made["resume_from"] = {**resumed, "thread_id": thread} if thread else resumed
    return made


def _sections(part: dict[str, Any], at: str, problems: Problems) -> None:
    """Check the sections that a job or a step may have too: the earlier program read only a job's ``workspace_policy``."""
    for name in ("execution_policy", "workspace_policy", "timeouts"):
        if name in part:
            section = _part(part[name], name, at + pointer(name), problems)
            part[name] = _policy(part[name], at + pointer(name), problems) if name == "execution_policy" else section
    if "retries" in part:
        part["retries"] = _retries(part["retries"], at + "/retries", problems)


def _tell_of_harm(table: Mapping[str, Any], problems: Problems) -> None:
    """Say what the earlier program did without a word, and is done here as well."""
    policy = table["execution_policy"]
    home = Path(os.environ.get("CODEX_HOME") or Path(os.environ.get("HOME", ""), ".codex"))
    keyed = os.environ.get("CODEX_API_KEY") or os.environ.get("OPENAI_API_KEY")
    if policy.get("user_config") and not keyed and (home / "config.toml").is_file():
        problems.warn(
            f"{home}/config.toml is in force, as it was: its model, and its MCP servers with what they are given; "
            "execution_policy.user_config: false leaves it out"
        )
    folders: dict[str, int] = {}
    jobs = table.get("jobs")
    for job in jobs if isinstance(jobs, list) else ():
        shared = isinstance(job, dict) and {**table["workspace_policy"], **(job.get("workspace_policy") or {})}
        if shared is not False and shared.get("mode", "shared") == "shared" and not shared.get("exclusive"):
            folder = os.path.normpath(str(job.get("working_directory") or "."))
            folders[folder] = folders.get(folder, 0) + 1
    several = [folder for folder, count in folders.items() if count > 1]
    if several and table["concurrency"] != 1 and policy.get("sandbox") != "read-only":
        problems.warn(
            f"{max(folders.values())} jobs may write to {several[0]} at the same time, as they did: "
            "workspace_policy {mode: isolated} or {exclusive: true} keeps them apart"
        )
