"""The reports that an agent is asked to end with where its step names no schema, by version.

They are strict, as providers want it: every key required, none added. Whichever is asked for, an agent that was told of the
other by its prompt may answer with that.
"""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from parallelhassnes.steps import final_report


def _earlier(current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Run Report of the earlier ParallelHassnes: a version, and another word for success."""
    version = {"type": "string", "pattern": r"^1\.[0-9]+\.[0-9]+$", "description": "1.0.0"}
    status = {**current["properties"]["status"], "enum": ["ok", "failed", "needs_attention"]}
    return {
        **current,
        "title": "An agent's report, as the earlier ParallelHassnes had it",
        "required": ["schema_version", *current["required"]],
        "properties": {"schema_version": version, **current["properties"], "status": status},
    }


_CURRENT = json.loads(resources.files(__package__).joinpath("agent_report.schema.json").read_text("utf-8"))
SCHEMAS: Mapping[int, dict[str, Any]] = {1: _earlier(_CURRENT), 2: _CURRENT}


def problems(document: Any, schema: Mapping[str, Any]) -> list[str]:
    """Return every way in which an agent's report does not fit the schema that it was asked for."""
    found = final_report.problems(document, schema)
    if found and any(schema == each for each in SCHEMAS.values()):
        fits = any(not final_report.problems(document, each) for each in SCHEMAS.values())
        return [] if fits else found
    return found
