"""``runner``, ``runners`` and ``pilot``."""

from typing import TYPE_CHECKING, Annotated

import typer

from parallelhassnes.cli.commands import CommandGroup
from parallelhassnes.cli.options import JsonOption, RootOption, layout_of, root_or_default

if TYPE_CHECKING:
    from parallelhassnes.views.runners import RunnerNow
    from parallelhassnes.views.scoreboard_models import PilotLine

CapacityOption = Annotated[
    int | None,
    typer.Option("--capacity", metavar="N", min=1, help="Attempts at once at most. [default: as configured]"),
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(runner)
    app.command()(runners)
    group = typer.Typer(
        cls=CommandGroup,
        help="Have a cluster start runners.\n\nExample: parallelhassnes pilot slurm -N 3 --dry-run",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(slurm)
    group.callback()(_group)
    app.add_typer(group, name="pilot")


def _group() -> None:
    """Have a cluster start runners.

    Example: parallelhassnes pilot slurm -N 3 --dry-run
    """


def runner(
    capacity: CapacityOption = None,
    idle: Annotated[
        float | None,
        typer.Option("--idle", metavar="SECONDS", min=0, help="End after so long without work. [default: never]"),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            "--until-sec",
            metavar="SECONDS",
            min=0,
            help="This host is there for so long: start nothing that may take longer. [default: as Slurm says, else for ever]",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the runner. [default: this host's]")
    ] = None,
    root: RootOption = None,
) -> None:
    """Run what this host is handed, one of several on a root; SIGTERM has it end what it runs, then itself.

    Example: parallelhassnes runner --capacity 4 --idle 120
    """
    from parallelhassnes.actions.pull_runner import pull

    pull(root_or_default(root), name=name, capacity=capacity, idle_sec=idle, left_sec=until)


def runners(
    quick: Annotated[bool, typer.Option("--quick", help="Do not wait to see who beats.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """List the hosts that work on the root, what each runs, and jobs that wait to become one; drain names one to spare.

    Example: parallelhassnes runners
    """
    from parallelhassnes.actions import pilots
    from parallelhassnes.store.atomic import dumps
    from parallelhassnes.views.runners import jobs_of
    from parallelhassnes.views.runners import runners as look

    layout = layout_of(root)
    found = look(layout, quick=quick)
    waiting, answered = pilots.every(layout)
    jobs = jobs_of(layout)
    if json:
        slurm = {
            "answers": answered if waiting else None,
            "pilots": [each.to_dict() for each in waiting],
            "jobs": [each.to_dict() for each in jobs],
        }
        typer.echo(dumps({**found.to_dict(), "slurm": slurm}), nl=False)
        return
    for each in found.runners:
        for line in _runner_lines(each):
            typer.echo(line)
    for job in waiting:
        if job.state != "OVER":
            typer.echo(_pilot_line(job))
    for step in jobs:
        typer.echo(f"{step.step}: {step.line}")
    if not answered:
        typer.echo("Slurm does not answer: what became of the jobs is not known", err=True)
    if not found.runners:
        typer.echo("No host has worked on this root yet.")


def _runner_lines(each: "RunnerNow") -> list[str]:
    marks = [
        "decides" if each.decides else "",
        "draining" if each.draining else "",
        f"not seen to beat for {each.watched_sec:g} s" if each.moves is False else "",
        f"ends in {each.left_sec:.0f} s" if each.left_sec is not None else "",
        f"{each.handed} to take" if each.handed else "",
        f"job {each.job_id}" if each.job_id else "",
    ]
    on = f" on {each.host}" if each.host and each.host != each.name else ""
    of = f" of {each.capacity}" if each.capacity is not None else ""
    said = ", ".join(filter(None, marks))
    head = (
        f"{each.name}{on}: {each.live or 0}{of} live{f'; {said}' if said else ''}; version {each.version or 'unknown'}"
    )
    return [head, *(f"  {step}" for step in each.runs)]


def _pilot_line(job: "PilotLine") -> str:
    return f"job {job.job_id or 'not noted'}: {job.line}; says {job.log}"


def slurm(
    nodes: Annotated[int, typer.Option("--nodes", "-N", metavar="N", min=1, max=1000, help="Jobs to submit.")] = 1,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="NAME", help="Where. [default: Slurm's]")
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus", metavar="N", min=1, help="CPUs to ask for, each. [default: whole nodes, one job on each]"
        ),
    ] = None,
    capacity: Annotated[
        int | None,
        typer.Option("--capacity", metavar="N", min=1, help="Attempts at once, each. [default: the CPUs it was given]"),
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Time limit as Slurm writes it. [default: Slurm's]")
    ] = None,
    idle: Annotated[
        float, typer.Option("--idle", metavar="SECONDS", min=0, help="Each ends after so long without work.")
    ] = 120.0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", metavar="OPTION", help="Another option of sbatch: --sbatch=--account=x; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Instead: have all pilots of this root end; running ones may finish.")
    ] = False,
    now: Annotated[bool, typer.Option("--now", help="With --cancel: have Slurm end them.")] = False,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Submit single-node jobs, each a runner of this root; `runners` shows what became of them.

    Example: parallelhassnes pilot slurm -N 3 --time 4:00:00 --dry-run
    """
    from parallelhassnes.actions import pilots
    from parallelhassnes.schedule.context import open_context
    from parallelhassnes.store import identity

    ctx = open_context(root_or_default(root))  # also of a host that has not joined: it runs nothing
    identity.check(ctx.layout)
    done: pilots.PilotsAsked | pilots.PilotsCanceled
    if cancel:
        done = pilots.cancel(ctx, at_once=now)
    else:
        done = pilots.submit(
            ctx,
            nodes,
            partition=partition,
            cpus=cpus,
            capacity=capacity,
            time_limit=time,
            idle_sec=idle,
            more=sbatch or (),
            dry_run=dry_run,
        )
    typer.echo(done.model_dump_json() if json else "\n".join(done.lines()))
