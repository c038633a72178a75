"""``docs/launch-tables.md`` names every field of a table."""

import pytest
from stores import CHECKOUT

from parallelhassnes.tables.model import Job, Step, Sweep, SweepAgent, Table

PAGE = (CHECKOUT / "docs" / "launch-tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [Table, Job, Step, Sweep, SweepAgent])
def test_every_field_is_named(model: type) -> None:
    names = {info.alias or name for name, info in model.model_fields.items()}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
