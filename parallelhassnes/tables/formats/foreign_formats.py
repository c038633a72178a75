"""The formats that a table may come in, told apart by their shape.

``oddish-sweep`` is turned into our own shape here, ``parallelhassnes-1`` in ``tables.formats.earlier_tables``;
``harbor-job`` is expanded by Harbor's own plan, in ``tables.formats.harbor_job``. ``imported-job`` and ``regrade`` are what
the commands of these names write.
"""

from typing import Any, Literal, NamedTuple

from parallelhassnes.tables.parse.located_errors import Problems, json_type, pointer

type Format = Literal["parallelhassnes-2", "parallelhassnes-1", "oddish-sweep", "harbor-job", "imported-job", "regrade"]

_HARBOR_KEYS = frozenset(
    {
        "datasets",
        "tasks",
        "n_attempts",
        "job_name",
        "jobs_dir",
        "n_concurrent_trials",
        "orchestrator",
        "metrics",
        "verifier",
        "artifacts",
        "source_jobs",
        "install_only",
        "quiet",
        "debug",
        "timeout_multiplier",
        "agent_timeout_multiplier",
        "verifier_timeout_multiplier",
        "agent_setup_timeout_multiplier",
        "environment_build_timeout_multiplier",
    }
)
_SWEEP_KEYS = frozenset(
    {"path", "dataset", "task_names", "exclude_task_names", "n_tasks", "experiment_id", "run_analysis"}
)
_V1_KEYS = frozenset(
    {
        "batch_goal_summary",
        "working_root",
        "default_pack_id",
        "effective_defaults",
        "defaults_overrides",
        "effective_defaults_overrides",
    }
)


class OwnShape(NamedTuple):
    """A document in our own shape, and where it stood in the one that was given."""

    document: dict[str, Any]
    strip: str = ""
    """Start of our pointers that the given document does not have."""


def recognise(document: Any, problems: Problems) -> Format | None:
    """Return the format of a document; None, with a problem, where it is none of them."""
    if not isinstance(document, dict):
        problems.add("", f"must be an object, not {json_type(document)}", 'write {"jobs": [ … ]}')
        return None
    keys = document.keys()
    if "imported_job" in keys:
        return "imported-job"
    if "regrade" in keys:
        return "regrade"
    version = document.get("spec_version")
    if isinstance(version, str) and version.startswith("1"):
        return "parallelhassnes-1"
    if "sweep" in keys or (isinstance(version, str) and version.startswith("2")):
        return "parallelhassnes-2"
    if "jobs" in keys:
        return "parallelhassnes-1" if keys & _V1_KEYS and not version else "parallelhassnes-2"
    if "agents" in keys and not keys & {"datasets", "tasks"}:
        harbor = keys & _HARBOR_KEYS
        agents = document["agents"] if isinstance(document["agents"], list) else []
        repeats = any(isinstance(agent, dict) and "n_trials" in agent for agent in agents)
        if not harbor or keys & _SWEEP_KEYS or repeats:
            return "oddish-sweep"
    if keys & (_HARBOR_KEYS | {"agents"}):
        return "harbor-job"
    problems.add(
        "",
        "is no launch table: it has neither jobs nor sweep",
        "write jobs or a sweep; an Oddish sweep has agents, a Harbor job datasets or tasks",
    )
    return None


def from_oddish(document: dict[str, Any], problems: Problems) -> OwnShape:
    """Return an Oddish sweep file as our ``sweep``."""
    sweep = dict(document)
    agents = sweep.get("agents")
    if isinstance(agents, list):
        kept = []
        for index, agent in enumerate(agents):
            made = dict(agent) if isinstance(agent, dict) else agent
            if isinstance(made, dict):
                for name in ("concurrency", "n_concurrent"):
                    if made.pop(name, None) is not None:
                        problems.add(
                            pointer("sweep", "agents", index, name),
                            "is not supported in a sweep, as in Oddish",
                            "limit its queue key: --limit KEY=N",
                        )
            kept.append(made)
        sweep["agents"] = kept
    return OwnShape({"spec_version": "2.0", "sweep": sweep}, "/sweep")
