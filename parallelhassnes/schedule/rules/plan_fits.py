"""Whether a table's plan can run in this store: what is refused before anything of it is written, however the table came."""

from pathlib import Path

from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.execute.secret_forms import is_placeholder, is_public, unfit
from parallelhassnes.plan import Plan
from parallelhassnes.schedule.context import Context


def check(ctx: Context, plan: Plan, name: str) -> None:
    """Refuse a plan that cannot run here.

    Args:
        name: the table's.

    Raises:
        InvalidInput: naming what it is and what to do, never a secret's value.
    """
    _apart(ctx, plan, name)
    _secrets(ctx, plan, name)
    _resources(ctx, plan, name)


def _apart(ctx: Context, plan: Plan, name: str) -> None:
    """Refuse tasks that the store lies in: what is written there would change what the task is."""
    runs = ctx.layout.runs.resolve()
    steps = (step for job in plan.jobs for step in job.steps if step.kind == "trial")
    for path in sorted({step.spec["config"].get("task", {}).get("path") or "" for step in steps}):
        if path and runs.is_relative_to(Path(path).resolve()):
            message = f"the store {ctx.layout.runs} lies inside the task {path}, and would change it"
            fix = "use a root outside of the task: --root DIR"
            raise InvalidInput([Problem(name, "", message, fix)])


def _resources(ctx: Context, plan: Plan, name: str) -> None:
    """Refuse steps with resources where nothing is there to give them."""
    if ctx.config.slurm.jobs:
        return
    asking = next((f"{job.job_id}/{step.step_id}" for job in plan.jobs for step in job.steps if step.resources), None)
    if asking is not None:
        fix = 'say how many jobs of Slurm there may be, by "[slurm]" and "jobs = 50" in parallelhassnes.toml, or remove resources'
        raise InvalidInput(
            [Problem(name, "", f"{asking} asks for resources, and nothing gives them to steps here", fix)]
        )


def _secrets(ctx: Context, plan: Plan, name: str) -> None:
    """Refuse secrets whose values cannot be taken out of files without damage to results."""
    try:
        known = ctx.secrets()
    except UserError:  # said where the values are needed
        return
    fix = "give it a value of its own that is longer and no word, or take it out of secrets and write it in env, if it is no secret"
    problems = [
        Problem(name, "/secrets", f"{each}: its value {why}; taking it out of files would damage results", fix)
        for each in dict.fromkeys([*ctx.config.secrets, *plan.secrets])
        if each in known and not is_public(each) and not is_placeholder(known[each]) and (why := unfit(known[each]))
    ]
    if problems:
        raise InvalidInput(problems)
