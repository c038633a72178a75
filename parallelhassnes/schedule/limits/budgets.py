"""Budgets: what was spent, what is reserved for what runs, and whether more may start.

    _system/spent.json   D   {"schema_version": 2, "batches": {id: [offset, experiment, {key: Spent.stored()}]}}

Spent is what the ledgers' lines of ended attempts say (``steps.trial_data.ended_line.spent``); the file holds it up to a byte of
each ledger and is replaced whole, so that it never counts a line twice, and is made anew where it is
missing. Only where a budget is set is any of this looked at. The reserve is the mean of what the scope's
attempts have cost so far, for each one that is live. Nobody knows that before the first of a queue key has
ended, so until then no more than ``FIRST_WAVE`` of them run.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallelhassnes import names
from parallelhassnes.config import Budget
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.steps.trial_data.amounts import NOTHING, UsageSum
from parallelhassnes.store import atomic, batches, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import raised_budgets, tickets
from parallelhassnes.store.space import waiting_for_space

FILE = "spent.json"
VERSION = 2
FIRST_WAVE = 4


def exceeded(spent: UsageSum, budget: Budget, live: int) -> str | None:
    """Which part of the budget is used up, the reserve for ``live`` attempts included; None where none is."""
    usd, tokens = spent.cost_usd or 0.0, spent.whole_tokens
    mean_usd = usd / spent.cost_known if spent.cost_known else 0.0
    mean_tokens = tokens / spent.counted if spent.counted else 0.0
    for limit, used, mean, unit in ((budget.usd, usd, mean_usd, "USD"), (budget.tokens, tokens, mean_tokens, "tokens")):
        if limit is None or used + mean * live < limit:
            continue
        least = "at least " if spent.cost_unknown and unit == "USD" else ""
        shown = f"{used:.2f} of {limit:.2f}" if unit == "USD" else f"{int(used)} of {limit}"
        held = f" and {live} attempts running" if used < limit else ""
        return f"{least}{shown} {unit} spent{held}"
    return None


@dataclass
class BatchSpending:
    """What one batch has spent, by queue key."""

    offset: int = 0
    experiment: str = ""
    by_key: dict[str, UsageSum] = field(default_factory=dict)


type Accounts = dict[str, BatchSpending]
"""Batch → its account."""


class BudgetGuard:
    """The budgets in force in one pass, each looked at when somebody asks for its batch."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._budgets: dict[str, Budget | None] = {}
        self._shared = raised_budgets.in_force(ctx.layout, ctx.config.budgets)
        self.everywhere = bool(self._shared.keys or self._shared.experiments)
        self._accounts: Accounts | None = None
        self._live: list[tuple[str, str]] = []

    def _budget(self, batch_id: str) -> Budget | None:
        """The batch's own budget, with what was spent of it looked up; None where nothing is to be looked up."""
        if batch_id not in self._budgets:
            self._budgets[batch_id] = found = budget_of(self.ctx, batch_id)
            if self.everywhere:
                wanted = [] if self._accounts is not None else self.ctx.layout.batch_ids()
            else:
                wanted = [batch_id] if found is not None else []
            if wanted:
                self._look(wanted)
        return self._budgets[batch_id]

    def _look(self, wanted: list[str]) -> None:
        layout = self.ctx.layout
        if self._accounts is None:
            self._accounts = _load(self.ctx)
            # One that ends while we look is in the second listing: in no moment is it in neither.
            found = [entry.path for entry in tickets.running(layout)] + tickets.ended(layout)
            self._live = [_of_ticket(path) for path in {path.name: path for path in found}.values()]
        if _take_in(self.ctx, self._accounts, wanted):
            _save(self.ctx, self._accounts)

    def started(self, batch_id: str, queue_key: str) -> None:
        """Reserve for an attempt that this pass has started."""
        if self._accounts is not None:
            self._live.append((batch_id, queue_key))

    def refuses(self, batch_id: str, queue_key: str | None = None) -> str | None:
        """Why nothing (of this queue key) of the batch may start; None where it may."""
        budget = self._budget(batch_id)
        if budget is None and not self.everywhere:
            return None
        if budget is not None:
            found = self._exceeded(budget, queue_key, lambda batch, _: batch == batch_id)
            if found:
                return f"budget: {found}; parallelhassnes budget {batch_id} --raise USD or --tokens N"
        config = self._shared
        experiment = batches.read_batch(self.ctx.layout.batch(batch_id)).experiment
        if experiment in config.experiments:
            same = {each for each, account in (self._accounts or {}).items() if account.experiment == experiment}
            found = self._exceeded(config.experiments[experiment], queue_key, lambda batch, _: batch in same)
            if found:
                return (
                    f"budget of experiment {experiment}: {found}; "
                    f"parallelhassnes budget --experiment {shlex.quote(experiment)} --raise USD or --tokens N"
                )
        if queue_key is not None and queue_key in config.keys:
            found = self._exceeded(config.keys[queue_key], queue_key, lambda _, key: key == queue_key)
            if found:
                return (
                    f"budget of {queue_key}: {found}; "
                    f"parallelhassnes budget --key {queue_key} --raise USD or --tokens N"
                )
        return None

    def _exceeded(self, budget: Budget, queue_key: str | None, counts: Any) -> str | None:
        total, known = NOTHING, 0
        for batch_id, account in (self._accounts or {}).items():
            for key, spent in account.by_key.items():
                if counts(batch_id, key):
                    total += spent
                    known += spent.attempts if key == queue_key else 0
        live = [key for batch_id, key in self._live if counts(batch_id, key)]
        first = live.count(queue_key) if queue_key is not None and not known else 0
        if first >= FIRST_WAVE:
            return f"what an attempt of {queue_key} costs is not known yet, and {first} are running"
        return exceeded(total, budget, len(live))


def budget_of(ctx: Context, batch_id: str) -> Budget | None:
    """The batch's own budget: the table's, as an operator has raised it."""
    batch_dir = ctx.layout.batch(batch_id)
    return batches.read_control(batch_dir).budget or batches.read_batch(batch_dir).budget


def accounts(ctx: Context, batch_ids: Iterable[str] | None = None) -> Accounts:
    """What these batches have spent as of now, where None is given all of them; nothing is written.

    One that cannot be read is not among them.
    """
    wanted, known = list(ctx.layout.batch_ids() if batch_ids is None else batch_ids), _load(ctx)
    _take_in(ctx, known, wanted)
    return {batch_id: known[batch_id] for batch_id in wanted if batch_id in known}


def spent_on(accounts: Accounts, key: str | None = None, experiment: str | None = None) -> UsageSum:
    """What was spent on a queue key, or by the batches of an experiment; without either all of it."""
    total = NOTHING
    for account in accounts.values():
        if experiment in (None, account.experiment):
            for queue_key, spent in account.by_key.items():
                if key in (None, queue_key):
                    total += spent
    return total


def _of_ticket(path: Path) -> tuple[str, str]:
    with members.apart(path, lambda _: None):  # it ended meanwhile, or is torn
        ticket = tickets.read(path)
        return ticket.batch_id, ticket.queue_key
    return tickets.parse_name(path.name).batch_id, key_of(path)


def key_of(path: Path) -> str:
    """The queue key in a running ticket's path; empty where its folder's name is too long to be read back."""
    try:
        return names.key_from_dir(path.parent.name)
    except UserError:
        return ""


def _take_in(ctx: Context, accounts: Accounts, batch_ids: list[str]) -> bool:
    """Read what the ledgers have got since; whether any had something."""
    changed = False
    for batch_id in batch_ids:
        with members.apart(ctx.layout.batch(batch_id)):
            account = accounts.get(batch_id)
            if account is None:
                experiment = batches.read_batch(ctx.layout.batch(batch_id)).experiment
                account = accounts[batch_id] = BatchSpending(experiment=experiment)
            if ledger.size(ctx.layout.batch(batch_id)) > account.offset:
                changed = _advance(account, ctx, batch_id) or changed
    return changed


def _advance(account: BatchSpending, ctx: Context, batch_id: str) -> bool:
    before = account.offset
    for offset, event in ledger.read(ctx.layout.batch(batch_id), before):
        account.offset = offset
        if event.get("event") == "ended":
            key = str(event.get("queue_key", ""))
            account.by_key[key] = account.by_key.get(key, NOTHING) + ended_line.spent(event)
    return account.offset != before


def _load(ctx: Context) -> Accounts:
    try:
        document = atomic.read_json_or_none(ctx.layout.system / FILE) or {}
        if document.get("schema_version") != VERSION:
            return {}
        return {
            batch_id: BatchSpending(offset, experiment, {key: UsageSum.restored(sums) for key, sums in by_key.items()})
            for batch_id, (offset, experiment, by_key) in document["batches"].items()
        }
    except (atomic.CorruptFile, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _save(ctx: Context, accounts: Accounts) -> None:
    document = {
        batch_id: [account.offset, account.experiment, {key: spent.stored() for key, spent in account.by_key.items()}]
        for batch_id, account in accounts.items()
    }
    with waiting_for_space("budgets"):
        whole = {"schema_version": VERSION, "batches": document}
        atomic.write_json(ctx.layout.system / FILE, whole, durable=False)
