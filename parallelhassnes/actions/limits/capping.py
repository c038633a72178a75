"""``cap``: what the agent of an attempt may use, changed while batches run.

    runs/<batch_id>/control.json   ``caps``: of the batch, a job or a step, in the place of the table's

Under ``tick.lock``; what is said stands in the batch's ledger. The worker of a running attempt reads the file at its next look
(``steps.caps``), so a lower cap ends what is past it, and a higher one lets it go on. Nothing else happens: an attempt that was ended stays
ended, and ``retry`` has another made.
"""

from collections.abc import Mapping

from parallelhassnes import places
from parallelhassnes.actions.attribution import ActionResult, said
from parallelhassnes.errors import UserError
from parallelhassnes.plan import CAPS, CapName
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import caps
from parallelhassnes.store import batches, decider
from parallelhassnes.store.evidence import ledger

_MOST = {"max_cost_usd": 1_000_000.0, "max_tokens": 1e12, "max_turns": 1_000_000.0, "max_wall_sec": 31_536_000.0}


class Capped(ActionResult):
    """The caps that are in force of each attempt of a target."""

    ok: bool = True
    target: str
    caps: dict[str, float]
    """Name → what an operator has said of this target, 0 for none; what its table says stands in its plan."""
    steps: int
    """Trials and agent steps that it is about."""
    changed: bool

    def lines(self) -> list[str]:
        if not self.caps:
            return [f"{self.target}: no operator has said what its agents may use; its table's caps hold"]
        told = ", ".join(f"{name} {value:g}" if value else f"no {name}" for name, value in self.caps.items())
        return [
            f"{self.target}: {told}{'' if self.changed else ' (as before)'}; each running agent obeys within a second"
        ]


def cap(
    ctx: Context,
    target: str,
    *,
    max_cost_usd: float | None = None,
    max_tokens: float | None = None,
    max_turns: float | None = None,
    max_wall_sec: float | None = None,
    reason: str = "",
) -> Capped:
    """Let the agent of each attempt use so much, from now on; 0 takes a cap away. Without any the caps are only shown.

    Raises:
        UserError: a value is out of range, or the target has neither trials nor agent steps.
    """
    given = dict(zip(CAPS, (max_cost_usd, max_tokens, max_turns, max_wall_sec), strict=True))
    wanted: dict[CapName, float] = {name: value for name, value in given.items() if value is not None}
    _check(wanted)
    found = resolve(ctx.layout, target)
    where = "/".join(filter(None, (found.job_id, found.step_id)))
    count = _steps(ctx, found.batch_id, where)
    if not count:
        raise UserError(f"{target} has neither trials nor agent steps", fix="name what has some")
    with decider.deciding(ctx.layout):
        control = batches.read_control(ctx.layout.batch(found.batch_id))
        before: Mapping[CapName, float] = control.caps.get(where, {})
        after = {**before, **wanted}
        if after != before:
            changed = control.model_copy(update={"caps": {**control.caps, where: after}})
            batches.write_control(ctx.layout, found.batch_id, changed)
            word = said(reason)
            batch_dir = ctx.layout.batch(found.batch_id)
            ledger.append(
                batch_dir, "caps", by=word.by, reason=word.reason or None, target=where or found.batch_id, caps=after
            )
    return Capped(
        target=str(found),
        caps={str(name): value for name, value in after.items()},
        steps=count,
        changed=after != before,
    )


def _check(wanted: Mapping[CapName, float]) -> None:
    for name, value in wanted.items():
        whole = name in ("max_tokens", "max_turns")
        if not 0 <= value <= _MOST[name] or (whole and value != int(value)):
            what = "a whole number" if whole else "a number"
            raise UserError(
                f"--{name.replace('_', '-')} {value:g}: is out of range", fix=f"give {what} above 0, or 0 for none"
            )


def _steps(ctx: Context, batch_id: str, where: str) -> int:
    job, step = places.step_key(where)
    jobs = [job] if job else batches.read_batch(ctx.layout.batch(batch_id)).job_ids
    specs = (each for job_id in jobs for each in batches.read_job(ctx.layout.job(batch_id, job_id)).steps)
    return sum(each.kind in caps.KINDS and step in ("", each.step_id) for each in specs)
