"""What was spent: the account of each batch, and the sums of the queue keys and experiments that have a budget.

    ended line of a ledger ─▶ account of its batch ─▶ sums
    _system/spent.json             D   {"schema_version": 3, "keys": {key: sum}, "experiments": {name: {key: sum}},
                                        "recent": {batch_id: account}, "unread": [batch_id]}
    _system/spent/<batch_id>.json  D   account: {"offset", "mark", "experiment", "keys": {key: sum}}

All of it is written under ``tick.lock``, and only while a budget is set. A sum is as ``UsageSum.stored``. An account speaks of
its ledger up to ``offset``; ``mark`` is the hash of the line that ends there and, since lines are chained, of everything before. The sums count of each batch exactly what its
account counts, so accounts that have just changed stand in the same file, ``recent``, which is replaced whole, and go before those of
the folder; when there are more than ``RECENT`` they are written there, and then dropped.

A pass takes in the batch whose attempt it has settled, before the attempt's ticket goes: a crash in between leaves the ticket, and the
redo takes it in. No other batch's ledger is looked at. All are (``_recount``) where the sums are gone, of another version, or lack a budget in
force; where a ledger does not go on where its account ends; and once by every process that begins, whose forks inherit that. A
recount removes the sums, brings the accounts up to date, and writes the sums: a crash leaves no sums that lack something. For the same reason
whoever writes an end, or an account, beside the sums removes them first (``forget``). What could not be read is ``unread``, and looked at by
every pass. An account whose batch is gone counts until a rebuild: deleting a batch gives no money back.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallelhassnes.config import Budgets
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.steps.usage import NOTHING, UsageSum, total
from parallelhassnes.store import atomic, batches, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import raised_budgets

FILE = "spent.json"
FOLDER = "spent"
VERSION = 3
RECENT = 16
_LONG_TAIL = 1 << 16
"""Bytes of a ledger without an end that are rather read again than noted as read."""
_UNUSABLE = (atomic.CorruptFile, OSError, KeyError, TypeError, ValueError, AttributeError)
_counted_here: set[Path] = set()
"""Roots of which this process, or the one that it was forked from, has looked at every ledger."""

type ByKey = dict[str, UsageSum]
"""Queue key → what was spent on it."""


@dataclass(frozen=True)
class BatchSpending:
    """What one batch has spent, by queue key, up to a byte of its ledger."""

    offset: int = 0
    mark: str = ""
    experiment: str = ""
    by_key: ByKey = field(default_factory=dict)

    @property
    def total(self) -> UsageSum:
        return total(self.by_key.values())

    def stored(self) -> dict[str, Any]:
        return {"offset": self.offset, "mark": self.mark, "experiment": self.experiment, "keys": _stored(self.by_key)}

    @classmethod
    def restored(cls, stored: dict[str, Any]) -> "BatchSpending":
        return cls(stored["offset"], stored["mark"], stored["experiment"], _restored(stored["keys"]))


@dataclass
class _Sums:
    keys: ByKey
    experiments: dict[str, ByKey]
    recent: dict[str, BatchSpending] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def add(self, experiment: str, spent: ByKey) -> None:
        of_experiment = self.experiments.get(experiment)
        for key, one in spent.items():
            if key in self.keys:
                self.keys[key] += one
            if of_experiment is not None:
                of_experiment[key] = of_experiment.get(key, NOTHING) + one

    def covers(self, shared: Budgets) -> bool:
        return shared.keys.keys() <= self.keys.keys() and shared.experiments.keys() <= self.experiments.keys()


class Spending:
    """What was spent as of now, in one pass; the caller holds ``tick.lock``."""

    def __init__(self, ctx: Context) -> None:
        self.shared = raised_budgets.in_force(ctx.layout, ctx.config.budgets)
        self.is_shared = bool(self.shared.keys or self.shared.experiments)
        self._layout = ctx.layout
        self._sums: _Sums | None = None

    def settled(self, batch_id: str) -> None:
        """Take in what the batch's ledger has got, before the ticket goes that it came of."""
        if self.is_shared:
            self._take_in(self._opened(), batch_id)
        else:
            forget(self._layout)

    def account(self, batch_id: str) -> BatchSpending:
        """Return the batch's own.

        Raises:
            CorruptFile, OSError: its ledger cannot be read.
        """
        if self.is_shared:
            return self._take_in(self._opened(), batch_id)
        before = _kept(self._layout, batch_id)
        after = _as_of_now(self._layout, batch_id, before)
        if after is not before:
            forget(self._layout)
            _keep(self._layout, batch_id, after)
        return after

    def on_key(self, key: str) -> UsageSum:
        """On a queue key that has a budget."""
        return self._opened().keys[key]

    def by_experiment(self, experiment: str) -> ByKey:
        """By the batches of an experiment that has a budget."""
        return self._opened().experiments[experiment]

    def _opened(self) -> _Sums:
        if self._sums is not None and not members.is_there(self._layout.system / FILE):  # forgotten within this pass
            return self._recount(self._sums)
        if self._sums is None:
            found = _load(self._layout)
            if found is None or not found.covers(self.shared) or self._layout.root not in _counted_here:
                return self._recount(found)
            self._sums = found
            for batch_id in tuple(found.unread):
                with members.apart(self._layout.batch(batch_id)):
                    self._take_in(self._sums, batch_id)
        return self._sums

    def _take_in(self, sums: _Sums, batch_id: str) -> BatchSpending:
        """Bring the batch's account, and with it the sums, up to date."""
        was_unread = batch_id in sums.unread
        try:
            before = sums.recent.get(batch_id) or (BatchSpending() if was_unread else _read(self._layout, batch_id))
            after, new = _advanced(self._layout, batch_id, before)
        except (_Replaced, _Spoilt):
            return self._again(sums, batch_id)
        if not (before.by_key or was_unread) and total(new.values()).attempts > 1:
            # A settle writes one end: its account is gone, and with it what the sums have of the batch.
            return self._again(sums, batch_id)
        if after is not before or was_unread:
            sums.add(after.experiment, new)
            sums.recent[batch_id] = after
            sums.unread = [each for each in sums.unread if each != batch_id]
            self._save(sums)
        return after

    def _again(self, sums: _Sums, batch_id: str) -> BatchSpending:
        self._recount(sums)
        return _kept(self._layout, batch_id)

    def _recount(self, known: _Sums | None) -> _Sums:
        """Look at every ledger."""
        layout, recent = self._layout, {} if known is None else known.recent
        forget(layout)
        (layout.system / FOLDER).mkdir(exist_ok=True)
        sums = _Sums(dict.fromkeys(self.shared.keys, NOTHING), {name: {} for name in self.shared.experiments})
        for batch_id in _every(layout, recent):
            kept = _kept(layout, batch_id)
            after, is_read = recent.get(batch_id, kept), False
            with members.apart(layout.batch(batch_id)):
                after, is_read = _as_of_now(layout, batch_id, after), True
            if not is_read and not after.offset:
                sums.unread.append(batch_id)
            if after is not kept:
                _keep(layout, batch_id, after)
            sums.add(after.experiment, after.by_key)
        self._sums = sums
        self._save(sums)
        _counted_here.add(layout.root)
        return sums

    def _save(self, sums: _Sums) -> None:
        _write(self._layout, sums)
        if len(sums.recent) > RECENT:
            for batch_id, account in sums.recent.items():
                _keep(self._layout, batch_id, account)
            sums.recent.clear()
            _write(self._layout, sums)


def forget(layout: Layout) -> None:
    """Have the next pass that needs the sums look at every ledger; before an end, or an account, is written beside them."""
    (layout.system / FILE).unlink(missing_ok=True)


def forget_all(layout: Layout) -> None:
    """Have every ledger read again from its beginning."""
    forget(layout)
    shutil.rmtree(layout.system / FOLDER, ignore_errors=True)


def accounts(layout: Layout, batch_ids: Iterable[str]) -> dict[str, BatchSpending]:
    """Tell what these batches have spent as of now; nothing is written. One that cannot be read is not among them."""
    sums = _load(layout)
    recent, found = {} if sums is None else sums.recent, {}
    for batch_id in batch_ids:
        with members.apart(layout.batch(batch_id)):
            found[batch_id] = _as_of_now(layout, batch_id, recent.get(batch_id) or _kept(layout, batch_id))
    return found


def spent_on(layout: Layout, *, key: str | None = None, experiment: str | None = None) -> UsageSum:
    """Tell what was spent on a queue key, or by the batches of an experiment: the sum that passes go by, or, without a budget, one made now."""
    sums = _load(layout)
    if sums is not None and key in sums.keys:
        return sums.keys[key]
    if sums is not None and experiment in sums.experiments:
        return total(sums.experiments[experiment].values())
    found = NOTHING
    for account in accounts(layout, _every(layout, () if sums is None else sums.recent)).values():
        if key is not None:
            found += account.by_key.get(key, NOTHING)
        elif account.experiment == experiment:
            found += account.total
    return found


# --- accounts -----------------------------------------------------------------------------------------


class _Replaced(Exception):
    """A ledger does not go on where an account of it ends."""


class _Spoilt(Exception):
    """An account cannot be read."""


def _advanced(layout: Layout, batch_id: str, before: BatchSpending) -> tuple[BatchSpending, ByKey]:
    """Return the account as of now, the same one where no attempt has ended since; and what is new in it.

    Raises:
        _Replaced: the ledger is another one.
        CorruptFile, OSError: the ledger cannot be read.
    """
    batch_dir = layout.batch(batch_id)
    if ledger.size(batch_dir) == before.offset or not members.is_there(batch_dir):
        return before, {}
    if before.offset and ledger.line_hash(batch_dir, before.offset) != before.mark:
        raise _Replaced
    offset, new = before.offset, dict[str, UsageSum]()
    for end, event in ledger.read(batch_dir, before.offset):
        offset = end
        if event.get("event") == "ended":
            key = str(event.get("queue_key", ""))
            new[key] = new.get(key, NOTHING) + ended_line.spent(event)
    if not new and offset - before.offset < _LONG_TAIL:
        return before, {}
    experiment = before.experiment if before.offset else batches.read_batch(batch_dir).experiment
    by_key = {**before.by_key, **{key: before.by_key.get(key, NOTHING) + spent for key, spent in new.items()}}
    return BatchSpending(offset, ledger.line_hash(batch_dir, offset), experiment, by_key), new


def _as_of_now(layout: Layout, batch_id: str, before: BatchSpending) -> BatchSpending:
    try:
        return _advanced(layout, batch_id, before)[0]
    except _Replaced:
        return _advanced(layout, batch_id, BatchSpending())[0]


def _every(layout: Layout, recent: Iterable[str]) -> list[str]:
    """Return all batches, and those whose account alone is left."""
    found = layout.batch_ids()
    kept = {name.removesuffix(".json") for name in members.names(layout.system / FOLDER)}
    return found + sorted(kept.union(recent).difference(found))


def _place(layout: Layout, batch_id: str) -> Path:
    return layout.system / FOLDER / f"{batch_id}.json"


def _read(layout: Layout, batch_id: str) -> BatchSpending:
    """Tell what is kept of the batch; an empty account where there is no record.

    Raises:
        _Spoilt: it cannot be read.
    """
    try:
        document = atomic.read_json_or_none(_place(layout, batch_id))
        return BatchSpending() if document is None else BatchSpending.restored(document)
    except _UNUSABLE as error:
        raise _Spoilt from error


def _kept(layout: Layout, batch_id: str) -> BatchSpending:
    """As ``_read``; an empty account also where it is spoilt."""
    try:
        return _read(layout, batch_id)
    except _Spoilt:
        return BatchSpending()


def _keep(layout: Layout, batch_id: str, account: BatchSpending) -> None:
    place = _place(layout, batch_id)
    place.parent.mkdir(exist_ok=True)
    atomic.write_json(place, account.stored(), durable=False)


# --- sums ---------------------------------------------------------------------------------------------


def _load(layout: Layout) -> _Sums | None:
    """Return the sums as they are kept; None where there are none that can be used."""
    try:
        document = atomic.read_json_or_none(layout.system / FILE)
        if document is None or document["schema_version"] != VERSION or not (layout.system / FOLDER).is_dir():
            return None
        return _Sums(
            _restored(document["keys"]),
            {name: _restored(by_key) for name, by_key in document["experiments"].items()},
            {batch_id: BatchSpending.restored(stored) for batch_id, stored in document["recent"].items()},
            [str(batch_id) for batch_id in document["unread"]],
        )
    except _UNUSABLE:
        return None


def _write(layout: Layout, sums: _Sums) -> None:
    document = {
        "schema_version": VERSION,
        "keys": _stored(sums.keys),
        "experiments": {name: _stored(by_key) for name, by_key in sums.experiments.items()},
        "recent": {batch_id: account.stored() for batch_id, account in sums.recent.items()},
        "unread": sums.unread,
    }
    atomic.write_json(layout.system / FILE, document, durable=False)


def _stored(by_key: ByKey) -> dict[str, Any]:
    return {key: spent.stored() for key, spent in by_key.items()}


def _restored(stored: dict[str, Any]) -> ByKey:
    return {key: UsageSum.restored(spent) for key, spent in stored.items()}
