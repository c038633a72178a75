"""``analyze`` and ``analyses``."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes import formatting
from parallelhassnes.cli.options import JsonOption, LookArgument, RootOption, WideOption
from parallelhassnes.cli.run_options import SecretOption
from parallelhassnes.cli.work import open_store

if TYPE_CHECKING:
    from parallelhassnes.results.analysis_list import Analysed
    from parallelhassnes.tables.model import AnalysisPart


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(analyze)
    app.command()(analyses)


def analyze(
    target: LookArgument = "latest",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="ENGINE[:MODEL]",
            help="rules, codex, claude, api or harbor; may be repeated. [default: rules]",
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only trials that have ended and did not pass.")] = False,
    only_unknown: Annotated[
        bool, typer.Option("--only-unknown", help="Ask a model only where the rules prove nothing.")
    ] = False,
    agent: Annotated[
        str | None, typer.Option("--agent", help="Engine harbor: the agent. [default: claude-code]")
    ] = None,
    environment: Annotated[str | None, typer.Option("--env", "-e", help="Engine harbor: docker or sandbox.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Engine api: the endpoint, up to /v1.")] = None,
    secret: SecretOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start what may start, and leave it running.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Analyse trials that were run before, also by another engine; each is analysed once by each engine.

    Example: parallelhassnes analyze latest --failed
    """
    from parallelhassnes.actions.analyze import analyze as start
    from parallelhassnes.actions.run_until_idle import until_idle
    from parallelhassnes.results import analysis_list as views
    from parallelhassnes.store.atomic import dumps

    env = {name: f"${{{name}}}" for name in secret or ()}
    said = {"only_unknown": only_unknown, "env": env}
    own = {"api": {"base_url": base_url}, "harbor": {"agent": agent, "environment": environment}}
    parts = [_part(text, said, own) for text in engine or ["rules"]]
    ctx = open_store(root)
    done = start(ctx, target, parts, failed=failed)
    counts = (
        f"{formatting.counted(len(done.added), 'analysis')} added, {len(done.again)} asked again, {done.had} were there"
    )
    print(f"batch {done.batch_id}: {counts}", file=sys.stderr)
    if done.unpacked:
        print(f"its files were unpacked for that; `pack {done.batch_id}` packs them again", file=sys.stderr)
    if no_wait:
        if json:
            typer.echo(dumps(done.model_dump(mode="json")), nl=False)
        return
    try:
        until_idle(ctx, [done.batch_id], lambda: None)
    except KeyboardInterrupt:
        print("\nstopped watching; the analyses go on by themselves. Look with `analyses`.", file=sys.stderr)
        raise typer.Exit(130) from None
    _print(views.analyses(ctx.layout, target), json=json)


def analyses(
    target: LookArgument = "latest", wide: WideOption = False, root: RootOption = None, json: JsonOption = False
) -> None:
    """Show what the analyses say, and how far the engines agree.

    Example: parallelhassnes analyses latest
    """
    from parallelhassnes.results import analysis_list as views

    _print(views.analyses(open_store(root, look=True).layout, target), json=json, wide=wide)


def _part(text: str, said: dict[str, object], own: dict[str, dict[str, str | None]]) -> "AnalysisPart":
    """Return an engine's settings: what is said for all, and what is said for its kind."""
    from parallelhassnes.tables.expanders.analyses import part_of

    engine, _, model = text.partition(":")
    return part_of(engine, model or None, **said, **own.get(engine, {}))


def _print(found: "Analysed", *, json: bool, wide: bool = False) -> None:
    from parallelhassnes.store.atomic import dumps

    if json:
        typer.echo(dumps(found.model_dump(mode="json")), nl=False)
        return
    if not any(trial.opinions for trial in found.trials):
        typer.echo(f"no trial of {found.id} has an analysis; `analyze {found.id}` makes them")
        return
    from parallelhassnes.cli.output import console
    from parallelhassnes.cli.output.grid import Grid

    table = Grid("trial")
    table.add_column("reward", right=True, rank=3)
    table.add_column("engine", key=True)
    table.add_column("analysis", rank=4)
    table.add_column("confidence", right=True, rank=1)
    table.add_column("root cause", rank=2)
    for trial in found.trials:
        reward = trial.result if trial.reward is None else formatting.reward(trial.reward, plain=True)
        for said in trial.opinions:
            what = f"{said.outcome}/{said.subtype}" if said.outcome else said.state
            old = " (of an earlier attempt)" if said.stale else ""
            sure = f"{said.confidence:.2f}" if said.confidence is not None else ""
            table.add_row(trial.trial, reward, said.engine, f"{what}{old}", sure, said.root_cause or "")
    console.widen(wide=wide)
    console.show(console.Page(table))
    for engine, counts in found.outcomes.items():
        told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        typer.echo(f"{engine}: {told}")
    for pair in found.agreement:
        sure = "" if pair.kappa is None else f", kappa {pair.kappa:.2f}"
        typer.echo(
            f"{' and '.join(pair.engines)}: the same outcome in {pair.same_outcome} of {pair.both} trials"
            f" that both classified, the same subtype in {pair.same_subtype}{sure}"
        )
    for trial_id in found.disagree:
        typer.echo(f"they disagree on {trial_id}")
