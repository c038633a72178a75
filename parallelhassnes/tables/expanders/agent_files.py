"""The files that agent steps name: prompts, schemas, folders; and the artifacts that they must leave."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import ValidationError

from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.model import ArtifactPart
from parallelhassnes.tables.parse.field_names import known_keys
from parallelhassnes.tables.parse.located_errors import pointer

DEFAULT_SCHEMA = "run_report.schema.json"
"""The name of the agent's report where a table names no schema; as the earlier project called it."""
MAX_SCHEMA_BYTES = 1 << 20
_OURS = "ParallelHassnes run report"


class SearchPlace(NamedTuple):
    """Where a step's files are looked for."""

    folder: Path
    context: Expansion

    def file(self, text: str, at: str, what: str) -> str:
        """Return the absolute path of a file; where it is not there, that is reported and it comes back as it was."""
        inside = self.folder / Path(text).expanduser()
        if inside.is_file():
            return str(inside.resolve())
        bases = self.context.bases
        found = bases.find(text)
        if found is not None and found.is_file():
            return str(found)
        if not self.folder.is_dir() and self.context.forgiving:
            # The folder is on another machine; that was warned of.
            return str(inside)
        looked = ", ".join(map(str, dict.fromkeys([self.folder, *bases.folders])))
        self.context.problems.add(at, f"{what} {text} does not exist; looked in {looked}", "correct the path")
        return text


def folders(wanted: Any, place: SearchPlace, at: str) -> list[str]:
    """Return ``add_dirs``, absolute."""
    made = []
    for index, text in enumerate(wanted if isinstance(wanted, list) else []):
        folder = place.folder / Path(str(text)).expanduser()
        if not folder.is_dir():
            where = f"{at}/execution_policy/add_dirs/{index}"
            if place.context.forgiving:
                place.context.problems.warn(f"{where}: folder {folder} does not exist")
            else:
                place.context.problems.add(where, f"folder {folder} does not exist", "correct it")
        made.append(str(folder))
    return made


def schema(named: str | None, place: SearchPlace, at: str) -> dict[str, Any] | None:
    """Return the JSON Schema in a file; None for the built-in one."""
    if named is None:
        return None
    if Path(named).name == DEFAULT_SCHEMA and _is_built_in(named, place):
        return None
    path = Path(place.file(named, at, "schema file"))
    return _read_schema(path, at, place.context) if path.is_file() else None


def _is_built_in(named: str, place: SearchPlace) -> bool:
    """Tell whether the default's name means the built-in schema: nothing of that name is here, or it is one of ours."""
    own = place.folder / named
    if not own.is_file():
        return place.context.bases.find(named) is None or named == DEFAULT_SCHEMA
    return _OURS.encode() in own.read_bytes()[:1000]


def _read_schema(path: Path, at: str, context: Expansion) -> dict[str, Any] | None:
    from jsonschema import Draft202012Validator, SchemaError

    problems = context.problems
    if path.stat().st_size > MAX_SCHEMA_BYTES:
        problems.add(at, f"{path} is no schema: larger than 1 MiB", "name the schema's file")
        return None
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        problems.add(at, f"{path} is not JSON: {error}", "correct it")
        return None
    if not isinstance(document, dict):
        problems.add(at, f"{path} is no JSON Schema: not an object", "write a schema")
        return None
    return _checked(document, at, str(path), context, Draft202012Validator, SchemaError)


def _checked(
    document: dict[str, Any], at: str, what: str, context: Expansion, validator: Any, wrong: Any
) -> dict[str, Any] | None:
    try:
        validator.check_schema(document)
    except wrong as error:
        place = "/".join(map(str, error.absolute_path))
        context.problems.add(at, f"{what} is no JSON Schema: /{place}: {error.message[:200]}", "correct it")
        return None
    for found in re.findall(r'"\$ref": "([^#"][^"]*)"', json.dumps(document)):
        context.problems.add(at, f"{what} refers to another document: {found}", "put it in below $defs")
    return document


def artifacts(wanted: list[Any], place: SearchPlace, at: str) -> list[dict[str, Any]]:
    """Return ``artifacts_expected`` as the plan has them."""
    made: dict[str, dict[str, Any]] = {}
    for index, raw in enumerate(wanted):
        where = at + pointer(index)
        one = _artifact({"glob": raw} if isinstance(raw, str) else raw, place, where)
        if one is None:
            continue
        if one["name"] in made:
            place.context.problems.add(where, f"a second artifact is called {one['name']}", "name it")
        made[one["name"]] = one
    return list(made.values())


def _artifact(raw: Any, place: SearchPlace, at: str) -> dict[str, Any] | None:
    problems = place.context.problems
    known = place.context.known_part(raw, known_keys(ArtifactPart), at)
    try:
        part = ArtifactPart.model_validate(known)
    except ValidationError as error:
        problems.add_validation(at, error)
        return None
    glob = part.glob or part.path or part.name
    of_attempt = place.context.forgiving and not (part.glob or part.path) and part.name is not None
    if glob is None:
        problems.add(at, "names no file", "write a glob, such as reports/*.json")
        return None
    fault = _glob_fault(glob)
    if fault:
        problems.add(at, f"glob {glob!r} {fault}", "write it relative to the workspace")
        return None
    json_schema = part.json_schema
    if part.schema_ref is not None:
        path = Path(place.file(part.schema_ref, at + "/schema_ref", "schema file"))
        json_schema = _read_schema(path, at + "/schema_ref", place.context) if path.is_file() else None
    elif json_schema is not None:
        from jsonschema import Draft202012Validator, SchemaError

        where = at + "/json_schema"
        json_schema = _checked(json_schema, where, "it", place.context, Draft202012Validator, SchemaError)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", part.name or glob).strip("-.") or "files"
    made = {"name": name[:128], "glob": glob, "non_empty": part.non_empty, "json_schema": json_schema}
    return {**made, "of_attempt": True, "non_empty": False} if of_attempt else made


def _glob_fault(glob: str) -> str:
    path = PurePosixPath(glob)
    if not glob.strip():
        return "is blank"
    if path.is_absolute() or glob.startswith("~"):
        return "is absolute"
    if ".." in path.parts:
        return "leaves the workspace"
    if any("**" in part and part != "**" for part in path.parts):
        return "has ** beside other characters"
    if glob.count("[") != glob.count("]"):
        return "has a bracket that is not closed"
    return ""
