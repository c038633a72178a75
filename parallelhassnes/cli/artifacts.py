"""``artifact``, ``tail``, ``diff``, ``open``, ``feedback``: looking at what attempts have left."""

import io
import os
import sys
from typing import Annotated

import typer

from parallelhassnes.cli.options import (
    JsonOption,
    LookArgument,
    LookBatchArgument,
    NewestArgument,
    RawOption,
    RootOption,
    layout_of,
)
from parallelhassnes.cli.output import terminal
from parallelhassnes.steps import safe_read


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (artifact, tail, diff, feedback):
        app.command()(command)
    app.command(name="open")(open_folder)


def artifact(
    target: NewestArgument = "latest",
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Whose content is printed; left out: lists them.")
    ] = None,
    path: Annotated[bool, typer.Option("--path", help="Print the file's path, not its content.")] = False,
    raw: RawOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """List the artifacts of an attempt, or print one: by name, or by a path in the attempt's folder.

    Example: parallelhassnes artifact latest final.json
    """
    from parallelhassnes.attempt_data import attempt_files
    from parallelhassnes.formatting import size
    from parallelhassnes.store.atomic import dumps

    layout = layout_of(root)
    if name is None:
        found = attempt_files.artifacts(layout, target)
        if json:
            typer.echo(found.model_dump_json())
            return
        for file in found.files:
            typer.echo(f"{file.name}\t{size(file.size)}\t{file.path}")
        if not found.files:
            typer.echo(f"{found.id} has left no artifacts", err=True)
        return
    one = attempt_files.artifact(layout, target, name)
    if json:
        document = {"ok": True, "path": str(one.path), "size": safe_read.size(one.path)}
        typer.echo(dumps(document), nl=False)
    elif path:
        typer.echo(one.path)
    else:
        terminal.let_through(raw=raw)
        with one.open() as stream:
            terminal.copy(stream)


def tail(
    target: NewestArgument = "latest",
    count: Annotated[int, typer.Option("--lines", "-n", metavar="N", help="So many.", min=0)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
    raw: RawOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Print the last things that an attempt did and said; an agent's events as lines to read.

    Example: parallelhassnes tail latest -n 5
    """
    from parallelhassnes.attempt_data import follow_logs as action
    from parallelhassnes.store.atomic import dumps

    lines = action.tail(layout_of(root), target, count, follow=follow)
    if json:
        document = {"ok": True, "lines": [line for line in lines if line is not None]}
        typer.echo(dumps(document), nl=False)
        return
    terminal.let_through(raw=raw)
    try:
        for line in lines:
            if line is None:
                sys.stdout.flush()
            else:
                sys.stdout.write(f"{line}\n")
    except KeyboardInterrupt:
        return


def diff(
    target: NewestArgument = "latest", raw: RawOption = False, root: RootOption = None, json: JsonOption = False
) -> None:
    """Print the patch that an agent's isolated workspace ended with; git apply takes it.

    Example: parallelhassnes diff latest
    """
    from parallelhassnes.attempt_data import attempt_files
    from parallelhassnes.store.atomic import dumps

    found, patch = attempt_files.patch(layout_of(root), target)
    if json:
        text = None if patch is None else patch.decode("utf-8", "replace")
        typer.echo(dumps({"ok": True, "id": str(found), "patch": text}), nl=False)
        return
    if patch is None:
        typer.echo(f"{found} had no isolated workspace, so there is no patch", err=True)
        return
    terminal.let_through(raw=raw)
    terminal.copy(io.BytesIO(patch))


def open_folder(target: LookArgument = "latest", root: RootOption = None, json: JsonOption = False) -> None:
    """Print the folder of a batch, job, step or attempt; on a terminal with a desktop also open it there.

    Example: parallelhassnes open latest
    """
    from parallelhassnes.refs import resolve
    from parallelhassnes.store.atomic import dumps

    layout = layout_of(root)
    found = resolve(layout, target)
    folder = found.folder(layout)
    if json:
        typer.echo(dumps({"ok": True, "id": str(found), "path": str(folder)}), nl=False)
        return
    typer.echo(folder)
    desktop = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if desktop and sys.stdout.isatty():
        typer.launch(str(folder))


def feedback(
    batch: LookBatchArgument = "latest",
    marker: Annotated[
        list[str] | None,
        typer.Option("--marker", metavar="WORD", help="Look for this instead of the configured ones; repeatable."),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Gather what agents said about their prompts: PROMPT_AMBIGUITY: MISSING_INPUT: PROMPT_DELTA: in their final texts.

    Example: parallelhassnes feedback latest
    """
    from parallelhassnes.attempt_data import feedback as action
    from parallelhassnes.formatting import counted
    from parallelhassnes.refs import resolve
    from parallelhassnes.schedule import configuration

    layout = layout_of(root)
    markers = marker or configuration.in_force(layout).config.feedback_markers
    found = action.feedback(layout, resolve(layout, batch).batch_id, markers)
    if json:
        typer.echo(found.model_dump_json())
        return
    for word in found.markers:
        own = [line for line in found.lines if line.marker == word]
        if own:
            typer.echo(f"{word} ({len(own)})")
        for line in own:
            typer.echo(f"  {line.step} #{line.number}: {line.text}")
    if not found.lines:
        typer.echo(f"nothing in the final texts of {counted(found.attempts, 'attempt')}", err=True)
