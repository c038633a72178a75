"""``status``, ``ls``, ``watch``, ``scoreboard``, ``show``, ``logs``."""

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import (
    ID_HELP,
    JsonOption,
    NewestArgument,
    RawOption,
    RootOption,
    WideOption,
    complete,
    complete_batch,
    root_or_default,
)
from parallelhassnes.cli.output import terminal

if TYPE_CHECKING:
    from parallelhassnes.cli.output.console import Page
    from parallelhassnes.store.layout import Layout
    from parallelhassnes.views.running import HeartbeatWatch
    from parallelhassnes.views.scoreboard_models import View

WATCH_SEC = 1.0
LOOK_SEC = 0.05

BatchesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BATCH", help="Batches, or latest; left out: all of them together.", autocompletion=complete_batch
    ),
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (status, ls, watch, scoreboard, show, logs):
        app.command()(command)


def status(
    batches: BatchesArgument = None, wide: WideOption = False, root: RootOption = None, json: JsonOption = False
) -> None:
    """Show how all batches stand, or some of them with their results: the scoreboard, once.

    Example: parallelhassnes status latest
    """
    layout = _layout(root)
    if json and len(batches or ()) > 1:
        from parallelhassnes.errors import UserError

        raise UserError("--json prints one document", fix="name one batch, or none for all of them")
    for number, batch_id in enumerate([_batch_id(layout, each) for each in batches] if batches else [None]):
        if number:
            typer.echo("")
        print_scoreboard(layout, batch_id, json=json, wide=wide)


def ls(root: RootOption = None, json: JsonOption = False) -> None:
    """List the batches, newest first, one a line: id, state, trials, name.

    Example: parallelhassnes ls
    """
    from parallelhassnes.views.outcome import trials_text, work
    from parallelhassnes.views.system_scoreboard import newest_first, system_scoreboard

    board = system_scoreboard(_layout(root))
    if json:
        _print_json(board)
        return
    if not board.batches:
        print("no batch yet; `parallelhassnes run PATH` makes one", file=sys.stderr)
    for batch in sorted(board.batches, key=newest_first):
        trials = batch.trials
        counts = ", ".join(text for text, _ in trials_text(trials)) if trials is not None else ""
        made = work(batch.steps_total, trials.total if trials is not None else 0)
        typer.echo("  ".join(filter(None, (batch.batch_id, batch.state, made, counts, batch.name))))


def watch(
    batches: Annotated[
        list[str] | None,
        typer.Argument(metavar="BATCH", help="Batches. [default: the newest]", autocompletion=complete_batch),
    ] = None,
    root: RootOption = None,
) -> None:
    """Watch batches until nothing of them runs or waits: what runs, its last line, trouble; keys open a log, cancel, pause.

    It starts nothing: what ticks goes on by itself. Without a terminal it prints a line per attempt that ends.

    Example: parallelhassnes watch latest
    """
    from parallelhassnes.admin.init import ensure
    from parallelhassnes.cli.output.live_progress import LiveProgress
    from parallelhassnes.schedule.context import open_context

    ctx = open_context(root_or_default(root))
    ensure(ctx, look=True)
    ids = [_batch_id(ctx.layout, each) for each in batches or ["latest"]]
    with contextlib.suppress(KeyboardInterrupt), LiveProgress(ctx, ids) as progress:
        while True:
            progress.update()
            look = progress.last
            if look.total and not look.live and look.waiting <= look.blocked and not progress.keeps_open:
                return
            time.sleep(LOOK_SEC)


def scoreboard(
    batch: Annotated[
        str | None,
        typer.Argument(
            metavar="[BATCH]", help="One batch, or latest; left out: all of them.", autocompletion=complete_batch
        ),
    ] = None,
    wide: WideOption = False,
    again: Annotated[bool, typer.Option("--watch", "-w", help="Draw it again every second until Ctrl-C.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show how all batches stand, trouble first, or one of them with its results.

    Example: parallelhassnes scoreboard latest
    """
    layout = _layout(root)
    batch_id = None if batch is None else _batch_id(layout, batch)
    if again and not json:
        _watch(layout, batch_id)
        return
    print_scoreboard(layout, batch_id, json=json, wide=wide)


def show(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help=f"{ID_HELP} [default: the newest batch]", autocompletion=complete),
    ] = None,
    wide: WideOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the store has on a batch, job, step or attempt: state, report, verdict, files.

    Example: parallelhassnes show latest
    """
    from parallelhassnes.views.show import show as find_out

    layout = _layout(root)
    documents = [find_out(layout, target) for target in targets or ["latest"]]
    if json:
        if len(documents) > 1:
            from parallelhassnes.errors import UserError

            raise UserError("--json prints one document", fix="name one id")
        _print_json(documents[0])
        return
    from parallelhassnes.cli.output import console
    from parallelhassnes.cli.output.render_show import render

    console.widen(wide=wide)
    for number, document in enumerate(documents):
        if number:
            typer.echo("")
        console.show(render(document))


def logs(
    target: NewestArgument = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="Only this log, such as stdout.log.")
    ] = None,
    raw: RawOption = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Print the output of an attempt: its own logs, its agent's and its verifier's; of a step, job or batch the newest one's.

    Of a job or batch: of the newest attempt of a step that works, before one of a verdict or baseline.

    Example: parallelhassnes logs latest
    """
    from parallelhassnes.attempt_data.follow_logs import open_logs

    found = open_logs(_layout(root), target)
    if json:
        pieces: dict[str, str] = {}
        for piece in found.new(file):
            pieces[piece.file] = pieces.get(piece.file, "") + piece.text
        from parallelhassnes.store.atomic import dumps

        typer.echo(dumps({"id": str(found.found), "ended": found.ended, "logs": pieces}), nl=False)
        return
    if file is None and found.removed:
        print(f"{found.found}: {found.removed}", file=sys.stderr)
    elif not follow and file is None and not found.files():
        print(f"{found.found} has written nothing yet", file=sys.stderr)
    terminal.let_through(raw=raw)
    last = file
    try:
        for part in found.follow(file) if follow else found.new(file):
            if part is None:
                sys.stdout.flush()
                continue
            if part.file != last and file is None:
                sys.stdout.write(f"{'' if last is None else chr(10)}==> {part.file} <==\n")
            last = part.file
            sys.stdout.write(part.text if part.text.endswith("\n") else f"{part.text}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def print_scoreboard(layout: "Layout", batch_id: str | None, *, json: bool, wide: bool = False) -> None:
    """Print the scoreboard of the whole store, or of one batch, on stdout."""
    if json:
        _print_json(_board(layout, batch_id))
        return
    from parallelhassnes.cli.output import console

    console.widen(wide=wide)
    console.show(_rendered(layout, batch_id))


def _layout(root: RootOption) -> "Layout":
    from parallelhassnes.store.layout import Layout

    return Layout(root_or_default(root))


def _batch_id(layout: "Layout", text: str) -> str:
    from parallelhassnes.refs import resolve

    return resolve(layout, text).batch_id


def _board(layout: "Layout", batch_id: str | None, watch: "HeartbeatWatch | None" = None) -> "View":
    if batch_id is None:
        from parallelhassnes.views.system_scoreboard import system_scoreboard

        return system_scoreboard(layout)
    from parallelhassnes.views.batch_scoreboard import batch_scoreboard

    return batch_scoreboard(layout, batch_id, watch)


def _rendered(layout: "Layout", batch_id: str | None, watch: "HeartbeatWatch | None" = None) -> "Page":
    from parallelhassnes.cli.output import render_batch, render_system
    from parallelhassnes.views.scoreboard_models import BatchScoreboard, SystemScoreboard

    board = _board(layout, batch_id, watch)
    if isinstance(board, BatchScoreboard):
        return render_batch.render(board)
    assert isinstance(board, SystemScoreboard)  # noqa: S101 - there are two boards
    return render_system.render(board)


def _watch(layout: "Layout", batch_id: str | None) -> None:
    from rich.live import Live

    from parallelhassnes.cli.output.drawing import console
    from parallelhassnes.views.running import HeartbeatWatch

    watch = HeartbeatWatch()
    screen = console()
    try:
        with Live(
            console=screen, auto_refresh=False, screen=screen.is_terminal, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while True:
                live.update(_rendered(layout, batch_id, watch), refresh=True)
                time.sleep(WATCH_SEC)
    except KeyboardInterrupt:
        return


def _print_json(document: "View") -> None:
    sys.stdout.write(document.model_dump_json() + "\n")
