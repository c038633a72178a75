"""``append``."""

from typing import Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.options import JsonOption, RootOption, complete
from parallelhassnes.cli.run_options import Texts, TrialsOption
from parallelhassnes.cli.work import open_store


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(append)


def append(
    target: Annotated[str, typer.Argument(metavar="ID", help="A batch, or BATCH/JOB.", autocompletion=complete)],
    n_trials: TrialsOption = None,
    agent: Annotated[
        Texts,
        typer.Option(
            "--agent", "-a", metavar="COLUMN", help="Only of this agent, as the scoreboard names it; may be repeated."
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", hidden=True)] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Add trials to a batch: like its newest ones, with their analyses; the verdicts are made anew.

    Example: parallelhassnes append latest -k 1
    """
    from parallelhassnes.actions.append import append as add
    from parallelhassnes.errors import UserError
    from parallelhassnes.store.atomic import dumps

    if n is not None:
        raise UserError("append has no -n, which is how many run at once, as in Harbor", fix=f"write -k {n}")
    done = add(open_store(root), target, n_trials or 1, agent)
    if json:
        typer.echo(dumps(done.model_dump(mode="json")), nl=False)
        return
    analyses = f" and {formatting.counted(len(done.analyses), 'analysis')}" if done.analyses else ""
    typer.echo(
        f"batch {done.batch_id}: {formatting.counted(len(done.trials), 'trial')}{analyses} added, {formatting.counted(done.started, 'attempt')} started"
    )
