"""The published JSON Schemas of the views and of analyses: ``python -m parallelhassnes.control.schemas [FOLDER]`` writes them."""

import ast
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

from parallelhassnes.control.compare import Comparison
from parallelhassnes.control.errors_report import Errors
from parallelhassnes.control.results import Results
from parallelhassnes.control.run_done import RunDone
from parallelhassnes.control.scoreboard_models import BatchScoreboard, SystemScoreboard
from parallelhassnes.steps.analysis.record import Analysis

SCHEMAS: dict[str, type[BaseModel]] = {
    "analysis.schema.json": Analysis,
    "comparison.schema.json": Comparison,
    "errors.schema.json": Errors,
    "results.schema.json": Results,
    "run.schema.json": RunDone,
    "scoreboard.system.schema.json": SystemScoreboard,
    "scoreboard.batch.schema.json": BatchScoreboard,
}


def text(model: type[BaseModel]) -> str:
    """The model's schema (2020-12) as it is published."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }
    said = _docstrings(sys.modules[model.__module__])
    for name, part in [(model.__name__, schema), *schema["$defs"].items()]:
        for field, described in part.get("properties", {}).items():
            if (name, field) in said:
                described["description"] = said[name, field]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _docstrings(module: ModuleType) -> dict[tuple[str, str], str]:
    """(class, field) → the docstring under the field; pydantic's own way costs every import of the models dearly."""
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, after in pairwise(node.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    found[node.name, field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


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
