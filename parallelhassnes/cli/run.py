"""``run``: table, submit, tick until idle and results in one command."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.options import JsonOption, RootOption
from parallelhassnes.cli.work import (
    FailOnOption,
    LimitOption,
    NoCodexOption,
    check_fail_on,
    open_store,
    options,
    parse_limits,
    watch_until_idle,
)

if TYPE_CHECKING:
    from parallelhassnes.schedule.context import Context
    from parallelhassnes.tables.request import RunRequest

Texts = list[str] | None


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(run)


def run(
    paths: Annotated[
        Texts, typer.Argument(metavar="PATH…", help="Task folders, or folders of tasks.")
    ] = None,
    path: Annotated[Texts, typer.Option("--path", "-p", help="As PATH; may be repeated.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="A dataset, as Harbor names it: name@version."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A table, an Oddish sweep or a Harbor job config."),
    ] = None,
    agent: Annotated[
        Texts, typer.Option("--agent", "-a", help="An agent; may be repeated. [default: oracle]")
    ] = None,
    model: Annotated[
        Texts,
        typer.Option(
            "--model", "-m", help="A model for each agent that takes one; may be repeated."
        ),
    ] = None,
    n_trials: Annotated[
        int | None,
        typer.Option(
            "--n-trials",
            "-n",
            "-k",
            "--n-attempts",
            min=1,
            help="Trials per task and agent. [default: 1]",
        ),
    ] = None,
    n_valid: Annotated[
        int | None,
        typer.Option(
            "--n-valid", min=1, help="Scored trials per task and agent: unscored ones run again."
        ),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option("--env", "-e", help="docker, sandbox or another Harbor environment."),
    ] = None,
    task: Annotated[
        Texts, typer.Option("--task-name", "-t", help="Only tasks that match; may be repeated.")
    ] = None,
    exclude: Annotated[
        Texts,
        typer.Option("--exclude-task-name", "-x", help="No tasks that match; may be repeated."),
    ] = None,
    n_tasks: Annotated[
        int | None, typer.Option("--n-tasks", "-l", min=1, help="The first N tasks only.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-j",
            "--n-concurrent",
            min=1,
            help="Live attempts at most (Harbor's -n).",
        ),
    ] = None,
    limit: LimitOption = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-E", help="Label of the batch.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", "-P", help="Higher starts first.")
    ] = None,
    secret: Annotated[
        Texts,
        typer.Option(
            "--secret", metavar="NAME", help="Environment variable to pass on; may be repeated."
        ),
    ] = None,
    agent_env: Annotated[
        Texts, typer.Option("--ae", "--agent-env", metavar="NAME=VALUE", help="For the agent.")
    ] = None,
    agent_kwarg: Annotated[
        Texts,
        typer.Option(
            "--ak", "--agent-kwarg", metavar="NAME=VALUE", help="For the agent; JSON or text."
        ),
    ] = None,
    timeout_multiplier: Annotated[
        float | None,
        typer.Option("--timeout-multiplier", help="Factor on every timeout of the tasks."),
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Analyse each trial by the rules (no model).")
    ] = False,
    analyze_with: Annotated[
        Texts,
        typer.Option(
            "--analyze-with",
            metavar="ENGINE[:MODEL]",
            help="Analyse each trial with this engine; may be repeated.",
        ),
    ] = None,
    baseline_gate: Annotated[
        bool,
        typer.Option(
            "--baseline-gate",
            help="Run oracle and nop of a task first; the others only if these come out as they must.",
        ),
    ] = False,
    no_codex: NoCodexOption = False,
    fail_on: FailOnOption = "infrastructure",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no scoreboard.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write a report at the end: .html, or .md for Markdown.",
        ),
    ] = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Run tasks with agents, wait, and print what came of it.

    Example: parallelhassnes run examples/tasks/hello -a oracle -a nop -n 2 -e sandbox
    """
    from parallelhassnes.control.submit import base_dirs, submit
    from parallelhassnes.errors import UserError

    check_fail_on(fail_on)
    if report is not None:
        from parallelhassnes.control.run_done import check_report

        check_report(report)
    if n_trials is not None and n_valid is not None:
        raise UserError("both --n-trials and --n-valid are given", fix="give one")
    request = _request(
        paths=(*(paths or ()), *(path or ())), dataset=dataset, agents=tuple(agent or ()),
        models=tuple(model or ()), n_trials=n_trials, n_valid=n_valid, environment=environment, task_names=tuple(task or ()),
        exclude_task_names=tuple(exclude or ()), n_tasks=n_tasks, priority=priority, experiment=experiment,
        concurrency=concurrency, limits=parse_limits(limit), secrets=tuple(secret or ()),
        agent_env=_pairs(agent_env, "--agent-env"), agent_kwargs=_values(agent_kwarg),
        timeout_multiplier=timeout_multiplier,
        baseline_gate=baseline_gate, analyses=(*(("rules",) if analyze else ()), *(analyze_with or ())),
    )  # fmt: skip
    ctx = open_store(root, options(None, None, no_codex))
    data, name = _table(ctx, request, config)
    done = submit(ctx, data, name=name, folders=base_dirs(config), again=True, here=True)
    print(f"batch {done.batch_id}: {done.jobs} jobs, {done.steps} steps", file=sys.stderr)
    for warning in done.warnings:
        print(f"note: {warning}", file=sys.stderr)
    watch_until_idle(ctx, [done.batch_id], fail_on=fail_on, quiet=quiet, json=json, report=report)


def _request(**given: object) -> "RunRequest":
    from parallelhassnes.tables.request import RunRequest

    return RunRequest(**given)  # type: ignore[arg-type]


def _table(ctx: "Context", request: "RunRequest", config: Path | None) -> tuple[bytes, str]:
    """The bytes of the table to submit, and its name; a file without options is submitted as it is."""
    from parallelhassnes.control.submit import read_table
    from parallelhassnes.store.atomic import dumps
    from parallelhassnes.tables.load import load
    from parallelhassnes.tables.request import RunRequest, merged, table_for

    if config is None:
        document = table_for(request)
        return dumps(_with_default_environment(ctx, document)).encode(), "run.json"
    data = read_table(config)
    if request == RunRequest():
        return data, str(config)
    return dumps(
        merged(load(data, str(config)), request, str(config))
    ).encode(), f"{config.stem}.json"


def _with_default_environment(ctx: "Context", document: dict[str, object]) -> dict[str, object]:
    """Write the configured environment into the table, so that the same table runs the same elsewhere."""
    sweep = document.get("sweep")
    if isinstance(sweep, dict):
        sweep.setdefault("environment", ctx.config.environment)
    return document


def _pairs(texts: Texts, option: str) -> dict[str, str]:
    from parallelhassnes.errors import UserError

    found = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UserError(f"{option} {text}: is not NAME=VALUE", fix=f"write {option} NAME=VALUE")
        found[name] = value
    return found


def _values(texts: Texts) -> dict[str, object]:
    import json

    found: dict[str, object] = {}
    for name, value in _pairs(texts, "--agent-kwarg").items():
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
