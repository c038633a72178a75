"""Folders in which one agent step works at a time (``workspace_policy.exclusive``).

The worker holds the folder's lock while it works. A pass passes over a ready step whose folder is taken, so that it
uses up neither a slot nor its own time; should two start at once all the same, the second waits for the lock.
"""

from pathlib import Path

from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.store import batches, locks
from parallelhassnes.store.queue import tickets


class ExclusiveDirs:
    """The folders that are taken, as one pass sees them."""

    MOST_LOOKS = 64
    """Ready steps of one lane that are passed over in one pass; the others wait for the next."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._taken: set[Path] = set()
        self._looks: dict[str, int] = {}

    def refuse(self, path: Path) -> bool:
        """Tell whether the step of a ready ticket must not start now; one that may has its folder from here on."""
        if tickets.parse_name(path.name).kind != "agent":
            return False
        try:
            ticket = tickets.read(path)
        except FileNotFoundError:
            return False
        folder = own_folder(batches.read_step(self._ctx.layout, ticket)[1])
        if folder is None:
            return False
        lock = self._ctx.layout.directory_lock(folder)
        if lock in self._taken or locks.is_held(lock):
            self._taken.add(lock)
            return True
        self._taken.add(lock)
        return False

    def gives_up(self, lane: str) -> bool:
        """Note that a step of the lane was passed over; whether the pass is to leave the lane alone now."""
        self._looks[lane] = self._looks.get(lane, 0) + 1
        return self._looks[lane] >= self.MOST_LOOKS


def own_folder(step: StepSpec) -> Path | None:
    """Return the folder in which the step must be alone; None for any other step."""
    policy = mapping(step.spec.get("workspace_policy"))
    folder = step.spec.get("working_directory")
    if not folder or not policy.get("exclusive") or policy.get("mode", "shared") != "shared":
        return None
    return Path(folder)
