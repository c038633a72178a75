"""``budget``: what a batch, a queue key or an experiment has spent, and raising what it may spend.

    runs/<batch_id>/control.json     a batch's budget in the place of its table's
    runs/_system/budgets.json        a key's or an experiment's in the place of the configured one

Under ``tick.lock``. What is said of a batch stands in its ledger, the rest in ``_system/ledger.jsonl``.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

from parallelhassnes import formatting, names
from parallelhassnes.actions import pause_resume
from parallelhassnes.actions.attribution import ActionResult, said
from parallelhassnes.config import Budget
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import spending
from parallelhassnes.schedule.limits.budgets import budget_of
from parallelhassnes.steps.usage import UsageSum
from parallelhassnes.store import batches, decider, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import raised_budgets

type Scope = Literal["key", "experiment"]
"""What a budget over all batches is of: a queue key, or the batches of an experiment together."""


class Money(ActionResult):
    """A budget and what is spent of it."""

    ok: bool = True
    usd: float
    usd_limit: float | None = None
    tokens: int
    tokens_limit: int | None = None
    attempts_priced: int
    """Ended attempts that said what they cost."""
    attempts_unknown: int = 0
    """Ended attempts that have cost something nobody knows, in whole or in part: ``usd`` is a lower bound."""
    changed: bool = False

    @property
    @abstractmethod
    def named(self) -> str:
        """The batch, queue key or experiment."""

    def lines(self) -> list[str]:
        of_usd = "" if self.usd_limit is None else f" of {formatting.fixed(self.usd_limit)}"
        of_tokens = "" if self.tokens_limit is None else f" of {self.tokens_limit}"
        least, unknown = "", ""
        if self.attempts_unknown:
            least = "at least "
            unknown = f"; the cost of {formatting.counted(self.attempts_unknown, 'attempt')} is not known"
        spent = f"{least}{formatting.fixed(self.usd)}{of_usd} USD, {self.tokens}{of_tokens} tokens spent{unknown}"
        return [f"{self.named}: {spent}", *["the new budget counts from the next tick on"] * self.changed]


class BudgetLine(Money):
    """A batch's."""

    batch_id: str

    @property
    def named(self) -> str:
        return self.batch_id


class SharedLine(Money):
    """That of a queue key or an experiment, over all batches."""

    scope: Scope
    name: str
    """The queue key or the experiment."""

    @property
    def named(self) -> str:
        return self.name


# --- a batch ------------------------------------------------------------------------------------------


def show(ctx: Context, batch: str) -> BudgetLine:
    """As it stands."""
    batch_id = resolve(ctx.layout, batch).batch_id
    budget = budget_of(ctx, batch_id) or Budget()
    return _of_batch(batch_id, budget, spending.accounts(ctx.layout, [batch_id])[batch_id].total)


def _money(budget: Budget, spent: UsageSum) -> dict[str, Any]:
    """Return the fields of ``Money``."""
    return {
        "usd": spent.cost_usd or 0.0,
        "usd_limit": budget.usd,
        "tokens": spent.tokens.whole or 0,
        "tokens_limit": budget.tokens,
        "attempts_priced": spent.cost_known,
        "attempts_unknown": spent.cost_unknown,
    }


def _of_batch(batch_id: str, budget: Budget, spent: UsageSum) -> BudgetLine:
    return BudgetLine(batch_id=batch_id, **_money(budget, spent))


def of_batches(ctx: Context, batch_ids: Iterable[str]) -> dict[str, BudgetLine]:
    """Return those of the batches that have a budget of their own; one that cannot be read is passed over."""
    found: dict[str, Budget] = {}
    for batch_id in batch_ids:
        with members.apart(ctx.layout.batch(batch_id)):
            budget = budget_of(ctx, batch_id)
            if budget is not None:
                found[batch_id] = budget
    accounts = spending.accounts(ctx.layout, found) if found else {}
    return {batch_id: _of_batch(batch_id, found[batch_id], account.total) for batch_id, account in accounts.items()}


def change(ctx: Context, batch: str, *, usd: float | None, tokens: int | None, reason: str = "") -> BudgetLine:
    """Let the batch spend so much in all, from the next pass on; a part that is None stays as it is, so with two of these
    it is only shown.

    Raises:
        UserError: a limit is negative, or no number.
    """
    _check(usd, tokens)
    batch_id = resolve(ctx.layout, batch).batch_id
    if usd is tokens is None:
        return show(ctx, batch_id)
    with decider.deciding(ctx.layout):
        batch_dir = ctx.layout.batch(batch_id)
        before = budget_of(ctx, batch_id) or Budget()
        after = _with(before, usd, tokens)
        if after != before:
            control = batches.read_control(batch_dir)
            batches.write_control(ctx.layout, batch_id, control.model_copy(update={"budget": after}))
            # What the last pass noted may be no longer so; the next one notes it again.
            (ctx.layout.blocked / f"{batch_id}.json").unlink(missing_ok=True)
            word = said(reason)
            ledger.append(
                batch_dir,
                "budget",
                by=word.by,
                reason=word.reason or None,
                target=batch_id,
                usd=after.usd,
                tokens=after.tokens,
            )
    return show(ctx, batch_id).model_copy(update={"changed": after != before})


# --- a queue key, an experiment -----------------------------------------------------------------------


def every_shared(ctx: Context) -> list[SharedLine]:
    """Return all that are in force; keys first."""
    shared = raised_budgets.in_force(ctx.layout, ctx.config.budgets)
    if not (shared.keys or shared.experiments):
        return []
    of_keys = [_line(ctx, "key", name) for name in sorted(shared.keys)]
    return of_keys + [_line(ctx, "experiment", name) for name in sorted(shared.experiments)]


def change_shared(
    ctx: Context, scope: Scope, text: str, *, usd: float | None, tokens: int | None, reason: str = ""
) -> SharedLine:
    """Let a queue key or an experiment spend so much in all, from the next pass on; a part that is None stays as it is, so
    with two of these it is only shown.

    Raises:
        UnknownId: there is no such queue key or experiment.
        UserError: a limit is negative, or no number.
    """
    _check(usd, tokens)
    name = _known(ctx, scope, text)
    if usd is tokens is None:
        return _line(ctx, scope, name)
    with decider.deciding(ctx.layout):
        before = _budget(ctx, scope, name)
        after = _with(before, usd, tokens)
        if after != before:
            own, part = raised_budgets.read(ctx.layout), f"{scope}s"
            changed = own.model_copy(update={part: {**getattr(own, part), name: after}})
            raised_budgets.write(ctx.layout, changed)
            word = said(reason)
            ledger.append(
                ctx.layout.system,
                "budget",
                by=word.by,
                reason=word.reason or None,
                scope=scope,
                target=name,
                usd=after.usd,
                tokens=after.tokens,
            )
    line = _line(ctx, scope, name)
    return line.model_copy(update={"changed": after != before})


def _line(ctx: Context, scope: Scope, name: str) -> SharedLine:
    budget = _budget(ctx, scope, name)
    spent = spending.spent_on(ctx.layout, **{scope: name})
    return SharedLine(scope=scope, name=name, **_money(budget, spent))


def _budget(ctx: Context, scope: Scope, name: str) -> Budget:
    shared = raised_budgets.in_force(ctx.layout, ctx.config.budgets)
    return (shared.keys if scope == "key" else shared.experiments).get(name) or Budget()


def _known(ctx: Context, scope: Scope, text: str) -> str:
    if scope == "key":
        shared = raised_budgets.in_force(ctx.layout, ctx.config.budgets)
        key = text if text in shared.keys else pause_resume.known_key(ctx, text)
        if key is None:
            raise pause_resume.unknown_key(ctx, text)
        return key
    known = set(raised_budgets.in_force(ctx.layout, ctx.config.budgets).experiments)
    for batch_id in ctx.layout.batch_ids():
        with members.apart(ctx.layout.batch(batch_id)):
            known.add(str(batches.read_about(ctx.layout.batch(batch_id)).get("experiment") or ""))
    known.discard("")
    if text in known:
        return text
    fix = names.suggestion(text, sorted(known), most=5)
    raise UnknownId(f"no batch has the experiment {text}", fix=fix)


def _check(usd: float | None, tokens: int | None) -> None:
    for name, value in (("--raise", usd), ("--tokens", tokens)):
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name} {value}: is not an amount", fix="give the new limit in all")


def _with(before: Budget, usd: float | None, tokens: int | None) -> Budget:
    return Budget(usd=before.usd if usd is None else usd, tokens=before.tokens if tokens is None else tokens)
