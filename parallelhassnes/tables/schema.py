"""The published JSON Schema of a launch table: ``python -m parallelhassnes.tables.schema`` writes it."""

import json
import sys
from pathlib import Path
from typing import Any

from parallelhassnes.tables.model import Table

SCHEMA_PATH = Path("schemas") / "launch_table.schema.json"


def launch_table_schema() -> dict[str, Any]:
    """Return JSON Schema, draft 2020-12, of our own shape."""
    made = Table.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:parallelhassnes:launch-table:2.0",
        **made,
        "title": "ParallelHassnes launch table",
    }


def main() -> int:
    """Write the schema below the current directory."""
    SCHEMA_PATH.parent.mkdir(exist_ok=True)
    SCHEMA_PATH.write_text(json.dumps(launch_table_schema(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
