"""``run``: table, submit, tick until idle and results in one command; ``append``: more trials for a batch."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from parallelhassnes import formatting
from parallelhassnes.cli import run_options as opt
from parallelhassnes.cli.options import JsonOption, ReuseOption, RootOption, complete
from parallelhassnes.cli.output.typed import told_by_options
from parallelhassnes.cli.work import (
    FailOnOption,
    LimitOption,
    NoCodexOption,
    check_fail_on,
    make_store,
    open_store,
    open_to_run,
    options,
    parse_limits,
    watch_until_idle,
)

if TYPE_CHECKING:
    from parallelhassnes.schedule.context import Context
    from parallelhassnes.tables.formats.request import RunRequest


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(run)
    app.command()(append)


def run(
    paths: opt.PathsArgument = None,
    path: opt.PathOption = None,
    dataset: opt.DatasetOption = None,
    config: opt.ConfigOption = None,
    agent: opt.AgentOption = None,
    model: opt.ModelOption = None,
    n_trials: opt.TrialsOption = None,
    n_valid: opt.ValidOption = None,
    environment: opt.EnvironmentOption = None,
    environment_kwarg: opt.EnvironmentKwargOption = None,
    task: opt.TaskOption = None,
    exclude: opt.ExcludeOption = None,
    n_tasks: opt.TasksOption = None,
    concurrency: opt.ConcurrencyOption = None,
    limit: LimitOption = None,
    experiment: opt.ExperimentOption = None,
    priority: opt.PriorityOption = None,
    secret: opt.SecretOption = None,
    agent_env: opt.AgentEnvOption = None,
    agent_kwarg: opt.AgentKwargOption = None,
    verifier_env: opt.VerifierEnvOption = None,
    env_file: opt.EnvFileOption = None,
    timeout_multiplier: opt.TimeoutMultiplierOption = None,
    max_cost_usd: opt.MaxCostOption = None,
    max_tokens: opt.MaxTokensOption = None,
    max_turns: opt.MaxTurnsOption = None,
    max_wall_sec: opt.MaxWallOption = None,
    keep_workspace: opt.KeepOption = False,
    reuse: ReuseOption = False,
    analyze: opt.AnalyzeOption = False,
    analyze_with: opt.AnalyzeWithOption = None,
    baseline_gate: opt.BaselineGateOption = False,
    passing: opt.PassOption = None,
    no_codex: NoCodexOption = False,
    fail_on: FailOnOption = "infrastructure",
    dry_run: opt.DryRunOption = False,
    detach: opt.DetachOption = False,
    quiet: opt.QuietOption = False,
    report: opt.ReportOption = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Run tasks with agents, wait, and print what came of it.

    Example: parallelhassnes run examples/tasks/hello -a oracle -a nop -k 2 -e sandbox
    """
    check_fail_on(fail_on)
    _check_report(report)
    _check_counts(n_trials, n_valid, concurrency)
    if env_file is not None:
        _set_from(env_file)
    request = _request(
        paths=(*(paths or ()), *(path or ())),
        dataset=dataset,
        agents=tuple(agent or ()),
        models=tuple(model or ()),
        n_trials=n_trials,
        n_valid=n_valid,
        environment=environment,
        environment_kwargs=_values(environment_kwarg, "--ek"),
        verifier_env=_pairs(verifier_env, "--ve"),
        task_names=tuple(task or ()),
        exclude_task_names=tuple(exclude or ()),
        n_tasks=n_tasks,
        priority=priority,
        experiment=experiment,
        concurrency=concurrency,
        limits=parse_limits(limit),
        secrets=tuple(secret or ()),
        agent_env=_pairs(agent_env, "--ae"),
        agent_kwargs=_values(agent_kwarg, "--ak"),
        timeout_multiplier=timeout_multiplier,
        max_cost_usd=max_cost_usd,
        max_tokens=max_tokens,
        max_turns=max_turns,
        max_wall_sec=max_wall_sec,
        keep_workspace=keep_workspace,
        passing=passing,
        baseline_gate=baseline_gate,
        analyses=(*(("rules",) if analyze else ()), *(analyze_with or ())),
    )
    ctx = open_to_run(root, options(None, None, no_codex))
    if not dry_run:
        check_secrets(ctx, secret)
    table, made = _table(ctx, request, config), None
    with told_by_options(table.data, table.name, file=str(config or "")):
        if dry_run:
            say_what_would_run(ctx, table, json=json)
        else:
            made = started(ctx, table, detach=detach, json=json, reuse=reuse)
    if made is not None:
        watch_until_idle(*made, fail_on=fail_on, quiet=quiet, json=json, report=report)


def _check_report(report: Path | None) -> None:
    if report is not None:
        from parallelhassnes.report.run_summary import check_report

        check_report(report)


def _check_counts(n_trials: int | None, n_valid: int | None, concurrency: int | None) -> None:
    """Refuse two numbers of trials, and say what ``-n`` is to somebody who may have meant ``-k``."""
    from parallelhassnes.errors import UserError

    if n_trials is not None and n_valid is not None:
        raise UserError("both -k and --n-valid are given", fix="give one")
    if concurrency is not None and n_trials is None and any(each == "-n" for each in sys.argv):
        print(f"note: -n {concurrency} is how many run at once, as in Harbor; trials per task are -k", file=sys.stderr)


def check_secrets(ctx: "Context", names: "opt.Texts") -> None:
    """Refuse names that were typed and have no value here: nothing would start.

    Raises:
        UserError: one of them has none.
    """
    from parallelhassnes.errors import UserError

    for name in names or ():
        if not ctx.secrets().get(name):
            place = f"here and in {ctx.config.env_file}" if ctx.config.env_file else "here"
            fix = f"type `export {name}=...` first, or name a file that has it: --env-file FILE"
            raise UserError(f"--secret {name}: is not set {place}", fix=fix)


class GivenTable(NamedTuple):
    """What is to run."""

    data: bytes
    name: str
    folders: list[Path]
    """Where its relative paths are looked for."""


def say_what_would_run(ctx: "Context", table: GivenTable, *, json: bool) -> None:
    """Print what a table amounts to; nothing is left behind."""
    from parallelhassnes.actions.submit import validate

    found = validate(ctx, table.data, name=table.name, folders=table.folders)
    typer.echo(found.model_dump_json() if json else found.outline)
    for warning in found.warnings if not json else ():
        print(f"note: {warning}", file=sys.stderr)


def started(
    ctx: "Context", table: GivenTable, *, detach: bool, json: bool, reuse: bool = False
) -> "tuple[Context, list[str]] | None":
    """Put a table into the queue, after saying what it amounts to; what is to be watched, or None where nothing is."""
    from parallelhassnes import formatting
    from parallelhassnes.actions.submit import submit
    from parallelhassnes.schedule.tick import tick
    from parallelhassnes.views import endpoints

    done = submit(
        ctx,
        table.data,
        name=table.name,
        folders=table.folders,
        again=True,
        here=True,
        reuse=reuse,
        told=lambda line: print(line, file=sys.stderr),
        found_good=lambda: make_store(ctx),
    )
    made = f"{formatting.counted(done.jobs, 'job')}, {formatting.counted(done.steps, 'step')}"
    print(f"batch {done.batch_id}: {made}", file=sys.stderr)
    for warning in done.warnings:
        print(f"note: {warning}", file=sys.stderr)
    for line in endpoints.silent(ctx.layout, done.batch_id):
        print(f"note: {line}: start the model's server, or its trials come to nothing", file=sys.stderr)
    own = ctx.options.model_copy(update={"environment_of": (done.batch_id,)})
    ctx = replace(ctx, options=own)
    if not detach:
        return ctx, [done.batch_id]
    tick(ctx)
    typer.echo(done.model_dump_json() if json else done.batch_id)
    return None


def _set_from(env_file: Path) -> None:
    """Set the variables of a file in this process, where they count more than what was set before, as in Harbor."""
    from dotenv import load_dotenv

    from parallelhassnes.errors import UserError

    if not env_file.is_file():
        raise UserError(f"--env-file {env_file}: there is no such file", fix="name one with lines NAME=VALUE")
    load_dotenv(env_file, override=True)


def _request(**given: object) -> "RunRequest":
    from parallelhassnes.tables.formats.request import RunRequest

    return RunRequest(**given)  # type: ignore[arg-type]


def _table(ctx: "Context", request: "RunRequest", config: Path | None) -> GivenTable:
    """Return the table to submit; a file without options is submitted as it is."""
    from parallelhassnes.actions.submit import base_dirs, read_table, table_of
    from parallelhassnes.store.atomic import dumps
    from parallelhassnes.tables.formats.request import RunRequest, merged
    from parallelhassnes.tables.parse.load import load

    folders = base_dirs(config)
    if config is None:
        return GivenTable(table_of(ctx, request), "run.json", folders)
    data = read_table(config)
    if request == RunRequest():
        return GivenTable(data, str(config), folders)
    changed = dumps(merged(load(data, str(config)), request, str(config))).encode()
    return GivenTable(changed, f"{config.stem}.json", folders)


def _pairs(texts: opt.Texts, option: str) -> dict[str, str]:
    from parallelhassnes.tables.formats.request import pairs_of

    return pairs_of(texts or (), option, f"{option} NAME=VALUE")


def _values(texts: opt.Texts, option: str) -> dict[str, object]:
    from parallelhassnes.tables.formats.request import value_of

    return {name: value_of(value) for name, value in _pairs(texts, option).items()}


def append(
    target: Annotated[str, typer.Argument(metavar="ID", help="A batch, or BATCH/JOB.", autocompletion=complete)],
    n_trials: opt.TrialsOption = None,
    agent: Annotated[
        opt.Texts,
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
