"""The reference pages of the commands and of the configuration, and what ``--help`` says of each command, written from the code.

``python -m parallelhassnes.cli.reference [FOLDER]`` writes them; a test compares them with the committed ones.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from parallelhassnes import config
from parallelhassnes.admin.schemas import docstrings
from parallelhassnes.cli.app import OUR_ERROR, USER_ERROR, app
from parallelhassnes.cli.commands import SECTIONS, SUMMARIES
from parallelhassnes.names import CONFIG_NAME

COMMANDS, CONFIGURATION = "commands.md", "configuration.md"
_WHOLE = 1000
"""Characters of a command's line in ``--help``: more than any has, so that none is cut."""
WIDTH = 100
"""Columns of the help texts."""

_COMMANDS_HEAD = f"""# Commands

Read here the help text of every command. `python -m parallelhassnes.cli.reference` writes this page from the program.

`parallelhassnes` and `python -m parallelhassnes` are the same program. Every command that works on a store takes `--root DIR`;
commands that show something take `--json`, whose [fields](../schemas/fields.md) are named on a page of their own.

| exit code | means |
|---|---|
| 0 | The command did what it says. |
| 1 | Something under test did not come to a result (`--fail-on` decides), or `doctor` or `audit verify` found trouble. |
| {USER_ERROR} | The input is wrong, or the host refuses: a line on standard error says what, where and what to do. |
| {OUR_ERROR} | The program is at fault: the line names the log with the traceback. |
"""
_CONFIGURATION_HEAD = f"""# Configuration

Write settings into `{CONFIG_NAME}` in the root; `parallelhassnes init` makes one in which every line is a comment.
`python -m parallelhassnes.cli.reference` writes this page from `parallelhassnes/config.py`.

Every setting is optional. An unknown name and a value out of its range are errors that name the place. Passes read the file again
whenever it has changed; `[api]` is read when the server starts. Names that end in `_sec` are seconds, `_mb` megabytes, `usd` US dollars.
"""


def commands() -> str:
    """Make the page of all commands: the help texts as the program prints them."""
    parts = [_COMMANDS_HEAD, _text(())]
    for title, names in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            command = app_group().commands[name]
            below = command.commands if isinstance(command, TyperGroup) else {}
            every = [(name,), *((name, each) for each in below)]
            parts += [f"\n### parallelhassnes {' '.join(words)}\n{_text(words)}" for words in every]
    return "".join(parts)


def summaries() -> str:
    """Make the first lines of the commands' help texts, which ``--help`` lists."""
    every = app_group().commands
    return json.dumps({name: each.get_short_help_str(_WHOLE) for name, each in every.items()}, indent=1) + "\n"


def app_group() -> TyperGroup:
    """Build the program's tree of commands."""
    group = get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError("the program has no commands")
    return group


def _text(words: tuple[str, ...]) -> str:
    return f"\n```text\n{_help(words)}```\n"


def _help(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="parallelhassnes", terminal_width=WIDTH)
    return "".join(f"{line.rstrip()}\n" for line in done.output.splitlines())


def configuration() -> str:
    """Make the page of all settings: a table of names, types, defaults and meanings for each section of the file."""
    return _CONFIGURATION_HEAD + "".join(_section(config.Config, (), ""))


_EACH = ".*"
"""Ends the path of a section that a file may have several times."""


def _section(model: type[BaseModel], path: tuple[str, ...], about: str) -> Iterator[str]:
    """Describe the settings of one section, then those of the sections in it."""
    said = docstrings(config)
    rows, inner = [], list[tuple[type[BaseModel], tuple[str, ...], str]]()
    shape = model.model_json_schema()
    for field, part in shape["properties"].items():
        below = _model_of(model.model_fields[field].annotation)
        if below is not None:
            inner.append((below[0], (*path, field, *below[1]), said.get((model.__name__, field), "")))
            continue
        known = model.model_fields[field]
        default = None if known.is_required() else known.default
        rows.append(
            f"| `{field}` | {_type(part, shape.get('$defs', {}))} | {_default(field, default)} | {_line(said[model.__name__, field])} |\n"
        )
    if rows:
        name = ".".join(path)
        name = f"[[{name.removesuffix(_EACH)}]]" if name.endswith(_EACH) else f"[{name}]"
        yield f"\n## {f'`{name}`' if path else 'Before the first section'}\n\n{_line(f'{about} {model.__doc__}')}\n"
        yield "\n| setting | type | default | meaning |\n|---|---|---|---|\n"
        yield from rows
    for each in inner:
        yield from _section(*each)


def _model_of(annotation: Any) -> tuple[type[BaseModel], tuple[str, ...]] | None:
    """Find the model of a section, and the names that a user chooses on the way to it; None where a field is a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ()
    key, value = [*getattr(annotation, "__args__", ()), None, None][:2]
    if getattr(annotation, "__origin__", None) is dict and isinstance(value, type) and issubclass(value, BaseModel):
        return value, ("CLASS" if key is config.FailureClass else "NAME",)
    if getattr(annotation, "__origin__", None) is tuple and isinstance(key, type) and issubclass(key, BaseModel):
        return key, (_EACH.removeprefix("."),)
    return None


def _default(field: str, value: Any) -> str:
    """Write a default as TOML does; that of ``concurrency`` depends on the host."""
    if field == "concurrency":
        return "by the host"
    if value is None:
        return "–"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}`"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return f"{value:_.10g}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, tuple) else f"{value:_}"


def _type(part: dict[str, Any], shared: dict[str, Any]) -> str:
    """Name the type of a setting, with its bounds."""
    if "$ref" in part:
        return _type(shared[part["$ref"].rpartition("/")[2]], shared)
    if "anyOf" in part:
        return _type(next(each for each in part["anyOf"] if each.get("type") != "null"), shared)
    if "enum" in part:
        return ", ".join(f'`"{value}"`' for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_type(part['items'], shared)}s"
    if part.get("type") == "object":
        return f"table: name → {_type(part['additionalProperties'], shared)}"
    words = {"string": "text", "boolean": "`true` or `false`", "integer": "whole number", "number": "number"}
    bounds = [
        f"{word} {part[key]:,g}" if isinstance(part[key], float) else f"{word} {part[key]:,}"
        for key, word in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in part
    ]
    return " ".join([words[part["type"]], ", ".join(bounds)]).strip()


def _line(text: str) -> str:
    """Put a docstring on one line of Markdown; pages that it names become links."""
    linked = re.sub(r"\bdocs/([a-z-]+)\.md", r"[\1.md](\1.md)", text.replace("``", "`").replace("|", "\\|"))
    return " ".join(linked.split())


def write(folder: Path) -> list[Path]:
    """Write both pages into the folder, and the summaries into the package."""
    SUMMARIES.write_text(summaries(), encoding="utf-8")  # the first page shows it
    pages = {folder / COMMANDS: commands(), folder / CONFIGURATION: configuration()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        print(path)
