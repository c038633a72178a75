"""Budgets: what was spent (``spending``), what is reserved for what runs, and whether more may start.

Only where a budget is set is any of this looked at. The reserve is the mean of what the scope's
attempts have cost so far, for each one that is live. Nobody knows that before the first of a queue key has
ended, so until then no more than ``FIRST_WAVE`` of them run.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from parallelhassnes import formatting, key_names
from parallelhassnes.config import Budget
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits.spending import ByKey, Spending
from parallelhassnes.steps.usage import UsageSum, total
from parallelhassnes.store import batches, members
from parallelhassnes.store.queue import notices, tickets

FIRST_WAVE = 4


def exceeded(spent: UsageSum, budget: Budget, live: int) -> str | None:
    """Tell which part of the budget is used up, the reserve for ``live`` attempts included; None while something is left."""
    usd, tokens = spent.cost_usd or 0.0, spent.tokens.whole or 0
    mean_usd = usd / spent.cost_known if spent.cost_known else 0.0
    mean_tokens = tokens / spent.counted if spent.counted else 0.0
    for limit, used, mean, unit in ((budget.usd, usd, mean_usd, "USD"), (budget.tokens, tokens, mean_tokens, "tokens")):
        if limit is None or used + mean * live < limit:
            continue
        least = "at least " if spent.cost_unknown and unit == "USD" else ""
        shown = f"{used:.2f} of {limit:.2f}" if unit == "USD" else f"{int(used)} of {limit}"
        held = f" and {formatting.counted(live, 'attempt')} running" if used < limit else ""
        return f"{least}{shown} {unit} spent{held}"
    return None


class BudgetGuard:
    """The budgets in force in one pass, each looked at when somebody asks for its batch."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._budgets: dict[str, Budget | None] = {}
        self._own: dict[str, ByKey] = {}
        self._experiments: dict[str, str] = {}
        self._live: list[tuple[str, str]] | None = None
        self._spending = Spending(ctx)

    def started(self, batch_id: str, queue_key: str) -> None:
        """Reserve for an attempt that this pass has started."""
        if self._live is not None:
            self._live.append((batch_id, queue_key))

    def refuses(self, batch_id: str, queue_key: str | None = None) -> str | None:
        """Tell why nothing (of this queue key) of the batch may start; None where something may start.

        Raises:
            CorruptFile, OSError: what the batch has spent, or may, cannot be read.
        """
        if batch_id not in self._budgets:
            self._budgets[batch_id] = budget_of(self.ctx, batch_id)
        budget, shared = self._budgets[batch_id], self._spending.shared
        if budget is None and not self._spending.is_shared:
            return None
        if budget is not None:
            if batch_id not in self._own:
                self._own[batch_id] = self._spending.account(batch_id).by_key
            found = self._exceeded(budget, queue_key, self._own[batch_id], lambda batch, _: batch == batch_id)
            if found:
                line = f"budget: {found}; parallelhassnes budget {batch_id} --raise USD or --tokens N"
                self._note_spent(batch_id, budget, self._own[batch_id], f"{batch_id}: {line}")
                return line
        experiment = self._experiment(batch_id) if shared.experiments else ""
        if experiment in shared.experiments:
            spent = self._spending.by_experiment(experiment)
            limit = shared.experiments[experiment]
            found = self._exceeded(limit, queue_key, spent, lambda batch, _: self._experiment(batch) == experiment)
            if found:
                line = (
                    f"budget of experiment {experiment}: {found}; "
                    f"parallelhassnes budget --experiment {shlex.quote(experiment)} --raise USD or --tokens N"
                )
                self._note_spent(f"experiment {experiment}", limit, spent, line)
                return line
        if queue_key is not None and queue_key in shared.keys:
            spent = {queue_key: self._spending.on_key(queue_key)}
            found = self._exceeded(shared.keys[queue_key], queue_key, spent, lambda _, key: key == queue_key)
            if found:
                line = (
                    f"budget of {queue_key}: {found}; "
                    f"parallelhassnes budget --key {queue_key} --raise USD or --tokens N"
                )
                self._note_spent(f"key {queue_key}", shared.keys[queue_key], spent, line)
                return line
        return None

    def _note_spent(self, name: str, budget: Budget, spent: ByKey, line: str) -> None:
        """Note that a budget is reached by what was spent, not only by what is reserved; another limit is another time."""
        config = self.ctx.config.notify
        if config.to and exceeded(total(spent.values()), budget, 0):
            notices.note(self.ctx.layout, config, "budget_reached", name, budget.usd, budget.tokens, line=line)

    def _exceeded(
        self, budget: Budget, queue_key: str | None, spent: ByKey, counts: Callable[[str, str], bool]
    ) -> str | None:
        if self._live is None:
            # One that ends while we look is in the second listing: in no moment is it in neither.
            paths = [entry.path for entry in tickets.running(self.ctx.layout)] + tickets.ended(self.ctx.layout)
            self._live = [_of_ticket(path) for path in {path.name: path for path in paths}.values()]
        live = [key for batch_id, key in self._live if counts(batch_id, key)]
        is_known = queue_key in spent and spent[queue_key].attempts
        first = live.count(queue_key) if queue_key is not None and not is_known else 0
        if first >= FIRST_WAVE:
            return f"what an attempt of {queue_key} costs is not known yet, and {first} are running"
        return exceeded(total(spent.values()), budget, len(live))

    def _experiment(self, batch_id: str) -> str:
        if batch_id not in self._experiments:
            self._experiments[batch_id] = ""
            with members.apart(self.ctx.layout.batch(batch_id)):
                self._experiments[batch_id] = batches.read_batch(self.ctx.layout.batch(batch_id)).experiment
        return self._experiments[batch_id]


def budget_of(ctx: Context, batch_id: str) -> Budget | None:
    """Return the batch's own budget: the table's, as an operator has raised it."""
    batch_dir = ctx.layout.batch(batch_id)
    return batches.read_control(batch_dir).budget or batches.read_batch(batch_dir).budget


def _of_ticket(path: Path) -> tuple[str, str]:
    with members.apart(path, lambda _: None):  # it ended meanwhile, or is torn
        ticket = tickets.read(path)
        return ticket.batch_id, ticket.queue_key
    return tickets.parse_name(path.name).batch_id, key_of(path)


def key_of(path: Path) -> str:
    """Return the queue key in a running ticket's path; empty where its folder's name is too long to be read back."""
    try:
        return key_names.key_from_dir(path.parent.name)
    except UserError:
        return ""
