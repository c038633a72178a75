"""Small Harbor tasks in a folder of their own, and a short way to expand a table there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallelhassnes.errors import InvalidInput, Problem
from parallelhassnes.plan import Plan
from parallelhassnes.tables.expand import TableDefaults, expand


def make_task(folder: Path, toml: str = 'version = "1.0"\n') -> Path:
    """A task that Harbor takes."""
    for part in ("environment", "tests", "solution"):
        (folder / part).mkdir(parents=True)
    (folder / "task.toml").write_text(toml)
    (folder / "instruction.md").write_text("Write hello.txt.\n")
    (folder / "environment" / "Dockerfile").write_text("FROM debian:12\nWORKDIR /app\n")
    (folder / "tests" / "test.sh").write_text("echo 1 > /logs/verifier/reward.txt\n")
    (folder / "solution" / "solve.sh").write_text("echo hello > hello.txt\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with ``tasks/hello`` and ``tasks/world``."""
    make_task(tmp_path / "tasks" / "hello")
    make_task(tmp_path / "tasks" / "world", '[task]\nname = "org/world"\n')
    return tmp_path


type Expand = Callable[..., Plan]
type Reject = Callable[..., list[Problem]]


@pytest.fixture
def plan(root: Path) -> Expand:
    """``plan(table)``: the plan of a table, looked at from ``root``."""

    def run(table: Any, name: str = "table.json", defaults: TableDefaults | None = None) -> Plan:
        data = table if isinstance(table, bytes) else json.dumps(table).encode()
        return expand(data, name=name, base_dirs=[root], defaults=defaults)

    return run


@pytest.fixture
def reject(plan: Expand) -> Reject:
    """``reject(table)``: the problems of a table that must have some."""

    def run(table: Any, name: str = "table.json") -> list[Problem]:
        with pytest.raises(InvalidInput) as caught:
            plan(table, name)
        for line in caught.value.lines():
            assert "\n" not in line
            assert len(line) < 1500
        return caught.value.problems

    return run


def trial(**changes: Any) -> dict[str, Any]:
    """A trial step of the table's own shape."""
    return {"step_id": "t1", "task": {"path": "tasks/hello"}, "agent": {"name": "oracle"}} | changes


def command(step_id: str = "c1", **changes: Any) -> dict[str, Any]:
    """A command step."""
    return {"step_id": step_id, "command": ["true"]} | changes


def table(*steps: Any, **changes: Any) -> dict[str, Any]:
    """A table of one job ``j1`` with these steps."""
    return {"spec_version": "2.0", "jobs": [{"job_id": "j1", "steps": list(steps)}]} | changes
