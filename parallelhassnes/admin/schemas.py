"""The published JSON Schemas of the views and of analyses, and a page that names each of their fields.

``python -m parallelhassnes.admin.schemas [FOLDER]`` writes them.
"""

import ast
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from parallelhassnes.report.run_summary import RunDone
from parallelhassnes.results.aggregate import Results
from parallelhassnes.results.compare import Comparison
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.rows import TrialLines
from parallelhassnes.steps.analysis.record import Analysis
from parallelhassnes.views.scoreboard_models import BatchScoreboard, SystemScoreboard, View

SCHEMAS: dict[str, type[BaseModel]] = {
    "analysis.schema.json": Analysis,
    "comparison.schema.json": Comparison,
    "errors.schema.json": Errors,
    "results.schema.json": Results,
    "run.schema.json": RunDone,
    "scoreboard.system.schema.json": SystemScoreboard,
    "scoreboard.batch.schema.json": BatchScoreboard,
    "trials.schema.json": TrialLines,
}
FIELDS = "fields.md"
_HEAD = """# Every field of `--json` and of the HTTP interface's views

Written by `python -m parallelhassnes.admin.schemas` from the models. The schemas beside this page say the same to programs. In
CSV and Parquet the columns are the fields of a group (`results`) or of a trial (`results --trials`).
"""


def text(model: type[BaseModel]) -> str:
    """Return the model's schema (2020-12) as it is published."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
    }
    bases: list[type[BaseModel]] = [base for base in reversed(model.__mro__) if issubclass(base, View)] or [model]
    said: dict[tuple[str, str], str] = {}
    for base in bases:
        said |= docstrings(sys.modules[base.__module__])
        said |= {(model.__name__, field): text for (name, field), text in said.items() if name == base.__name__}
    for name, part in [(model.__name__, schema), *schema["$defs"].items()]:
        for field, described in part.get("properties", {}).items():
            if (name, field) in said:
                described["description"] = said[name, field]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def fields() -> str:
    """Return the page of all fields: a shape is described where it is first used."""
    parts, known = [_HEAD], set[str]()
    for name, model in SCHEMAS.items():
        schema = json.loads(text(model))
        parts.append(f"\n## [{name.removesuffix('.schema.json')}]({name})\n")
        for shape, part in [("", schema), *schema.get("$defs", {}).items()]:
            if "properties" in part and shape not in known:
                about = " ".join(part.get("description", "").split())
                parts.append(f"\n### `{shape}`: {about}\n\n" if shape else f"\n{about}\n\n")
                parts += [_field(*each) for each in part["properties"].items()]
                known |= {shape} - {""}
    return "".join(parts)


def _field(name: str, part: dict[str, Any]) -> str:
    said = " ".join(part.get("description", "").replace("``", "`").split())
    return f"- `{name}` ({_kind(part)}){f': {said}' if said else ''}\n"


def _kind(part: dict[str, Any]) -> str:
    """Return the type of a field in a few words."""
    if "$ref" in part:
        return f"`{part['$ref'].rpartition('/')[2]}`"
    if "anyOf" in part:
        return " or ".join(map(_kind, part["anyOf"]))
    if "const" in part:
        return f"always {json.dumps(part['const'])}"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_kind(part.get('items', {}))}"
    if part.get("type") == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"object of {_kind(part['additionalProperties'])}"
    return str(part.get("type", "anything"))


def docstrings(module: ModuleType) -> dict[tuple[str, str], str]:
    """Map (class, field) to the docstring under the field; pydantic's own way costs every import of the models dearly."""
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
    (folder / FIELDS).write_text(fields(), encoding="utf-8")
    return [*written, folder / FIELDS]


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")):
        print(path)
