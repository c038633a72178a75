"""The report that an agent is asked for where its step names no schema of its own."""

import json
from importlib.resources import files
from typing import Any

SCHEMA: dict[str, Any] = json.loads(files(__package__).joinpath("agent_report.schema.json").read_text("utf-8"))
"""Strict, as providers want it: every key required, none added."""
