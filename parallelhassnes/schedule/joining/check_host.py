"""The door: whether this host may work on the root, asked by whatever is about to change it, before anything is written."""

from dataclasses import replace

from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import hosts, members


def check(ctx: Context) -> None:
    """See that this host may work on the root. One that was started anew begins to show it again, beside the caller.

    Raises:
        SecondHost: it may not, or not yet; nothing was changed.
    """
    try:
        hosts.check(ctx.layout)
    except hosts.StartedAnew as error:
        if not ctx.starts_attempts:
            raise
        from parallelhassnes.schedule.joining.ask_probe import join_in_background

        join_in_background(ctx)
        fix = "it is joining again, in the background: try again in a minute, or see why not by `parallelhassnes doctor --hosts`"
        raise hosts.SecondHost(error.message, fix=fix) from None
    if ctx.layout.runner and (why := configuration.names_runner(ctx.layout)):
        raise hosts.SecondHost(why)


def as_one_of_several(ctx: Context) -> Context:
    """Return the context as that of the runner which this host is by now, where several have joined since the process began.

    Where attempts may be jobs of Slurm, whose nodes are hosts of this root, this host is made the first of several.

    Raises:
        UserError: it is to be, and the shared configuration names the runner.
    """
    if ctx.layout.runner:
        return ctx
    if (
        ctx.config.slurm.jobs
        and ctx.starts_attempts
        and not hosts.is_shared(ctx.layout)
        and not hosts.strangers(ctx.layout)
    ):
        from parallelhassnes.schedule.joining.measured import join_first

        join_first(ctx)
    return replace(ctx, layout=hosts.standing(ctx.layout)) if hosts.is_shared(ctx.layout) else ctx


def answer_others(ctx: Context) -> None:
    """Have what other hosts ask answered, where any has ever asked; quick else."""
    if not members.is_there(ctx.layout.hosts / "probe"):
        return
    from parallelhassnes.schedule.joining.answer_probe import answer_open_probes

    answer_open_probes(ctx)


def may_work(ctx: Context) -> bool:
    """Tell whether this host may work on the root, for whoever only looks."""
    try:
        hosts.check(ctx.layout)
    except hosts.SecondHost:
        return False
    return True
