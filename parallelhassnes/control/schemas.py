"""The published JSON Schemas of the views: ``python -m parallelhassnes.control.schemas [FOLDER]`` writes them."""

import json
import sys
from pathlib import Path

from parallelhassnes.control.scoreboard_models import BatchScoreboard, SystemScoreboard, View

SCHEMAS: dict[str, type[View]] = {
    "scoreboard.system.schema.json": SystemScoreboard,
    "scoreboard.batch.schema.json": BatchScoreboard,
}


def text(model: type[View]) -> str:
    """The model's schema (2020-12) as it is published."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write every schema into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, model in SCHEMAS.items():
        (folder / name).write_text(text(model), encoding="utf-8")
        written.append(folder / name)
    return written


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")):
        print(path)
