"""``_system/budgets.json``: budgets over all batches as operators have changed them.

Replaced whole, under ``tick.lock``. An entry takes the place of the configured budget of that queue key or experiment.
Not derived: a rebuild leaves it alone; deleting it takes every change back, which is safe.
"""

from typing import Literal

from parallelhassnes.config import Budget, Budgets
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump

FILE = "budgets.json"


class Raised(Record):
    """The whole file."""

    schema_version: Literal[1] = 1
    keys: dict[str, Budget] = {}
    """Queue key → budget."""
    experiments: dict[str, Budget] = {}
    """Experiment → budget of all its batches together."""


def read(layout: Layout) -> Raised:
    """Tell what was said; nothing where the file is gone or spoilt, so that the configured budgets hold."""
    try:
        return atomic.read_record(Raised, layout.system / FILE)
    except (OSError, atomic.CorruptFile):
        return Raised()


def write(layout: Layout, raised: Raised) -> None:
    """Replace it; the caller holds ``tick.lock``."""
    ledger.replace_json(layout.system, FILE, dump(raised))


def in_force(layout: Layout, configured: Budgets) -> Budgets:
    """Return the budgets over all batches that count now."""
    raised = read(layout)
    return Budgets(
        keys={**configured.keys, **raised.keys}, experiments={**configured.experiments, **raised.experiments}
    )
