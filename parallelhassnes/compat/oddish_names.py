"""What Oddish clients call an experiment, where they have given it a name besides its id.

    runs/_system/oddish_names.json   A   experiment → name

An experiment's id is the label that its tables were submitted under, and stays; the name is only what these clients show.
"""

from parallelhassnes.store import atomic, locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

FILE = "oddish_names.json"


def given(layout: Layout) -> dict[str, str]:
    """Experiment → name, of those that were given one."""
    return atomic.read_json_or_none(layout.system / FILE) or {}


def give(layout: Layout, experiment: str, name: str) -> None:
    """From now on it is shown under that name; the system ledger says who did it."""
    with locks.held(layout.tick_lock):
        names = given(layout) | {experiment: name}
        ledger.replace_json(layout.system, FILE, names)
        ledger.append(layout.system, "experiment_named", by=ledger.person(), experiment=experiment, name=name)
