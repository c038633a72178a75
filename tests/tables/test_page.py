"""``docs/launch-tables.md``: its examples expand, and it names every field."""

import re
from pathlib import Path

import pytest

from parallelhassnes.tables.expand import expand
from parallelhassnes.tables.model import Job, Step, Sweep, SweepAgent, Table

from .conftest import make_task

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "launch-tables.md").read_text(encoding="utf-8")
AGENTS = (DOCS / "agents.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(json|yaml)\n(.*?)^```$", PAGE + AGENTS, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_an_example(index: int, tmp_path: Path) -> None:
    make_task(tmp_path / "examples" / "tasks" / "hello")
    (tmp_path / ".git").mkdir()
    kind, text = EXAMPLES[index]
    made = expand(text.encode(), name=f"example.{kind}", base_dirs=[tmp_path])
    assert made.jobs
    assert not made.warnings


def test_all_formats_have_one() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("model", [Table, Job, Step, Sweep, SweepAgent])
def test_every_field_is_named(model: type) -> None:
    names = {info.alias or name for name, info in model.model_fields.items()}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
