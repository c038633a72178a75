"""``budget``: what a batch has spent, and raising what it may spend."""

from collections.abc import Iterable

from pydantic import BaseModel

from parallelhassnes.config import Budget
from parallelhassnes.errors import UserError
from parallelhassnes.schedule import budgets
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import batches, ledger, locks


class BudgetLine(BaseModel):
    """A batch's budget and what is spent of it."""

    ok: bool = True
    batch_id: str
    usd: float
    usd_limit: float | None = None
    tokens: int
    tokens_limit: int | None = None
    attempts_priced: int
    """Ended attempts that said what they cost; others count as nothing."""
    changed: bool = False


def show(ctx: Context, batch_id: str) -> BudgetLine:
    """As it stands."""
    spent = budgets.spent_of(ctx, batch_id)
    budget = budgets.budget_of(ctx, batch_id) or Budget()
    return BudgetLine(
        batch_id=batch_id, usd=spent.usd, usd_limit=budget.usd, tokens=spent.tokens, tokens_limit=budget.tokens,
        attempts_priced=spent.priced,
    )  # fmt: skip


def of_batches(ctx: Context, batch_ids: Iterable[str]) -> dict[str, BudgetLine]:
    """Those of the batches that have a budget of their own."""
    found = ((batch_id, budgets.budget_of(ctx, batch_id)) for batch_id in batch_ids)
    return {batch_id: show(ctx, batch_id) for batch_id, budget in found if budget is not None}


def change(ctx: Context, batch_id: str, *, usd: float | None, tokens: int | None) -> BudgetLine:
    """Let the batch spend so much in all, from the next pass on; a part that is None stays as it is.

    Raises:
        UserError: a limit is negative.
    """
    for name, value in (("--raise", usd), ("--tokens", tokens)):
        if value is not None and not value >= 0:
            raise UserError(f"{name} {value}: is negative", fix="give the new limit in all")
    with locks.held(ctx.layout.tick_lock):
        batch_dir = ctx.layout.batch(batch_id)
        before = budgets.budget_of(ctx, batch_id) or Budget()
        after = Budget(
            usd=before.usd if usd is None else usd,
            tokens=before.tokens if tokens is None else tokens,
        )
        if after != before:
            control = batches.read_control(batch_dir)
            batches.write_control(batch_dir, control.model_copy(update={"budget": after}))
            ledger.append(
                batch_dir, "budget", by=ledger.person(), target=batch_id, usd=after.usd, tokens=after.tokens
            )  # fmt: skip
    return show(ctx, batch_id).model_copy(update={"changed": after != before})
