"""The door: whether this host may work on the root, asked by whatever is about to change it, before anything is written."""

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
