"""Admission: which batches may start anything now, limits aside, and what keeps the others from it.

Under ``tick.lock``. The reason is written down in ``_queue/blocked/<batch_id>.json`` (derived: the next pass writes it anew, or
removes it), where ``explain`` and the views find it.
"""

from functools import partial

from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.limits.budgets import BudgetGuard
from parallelhassnes.store import atomic, batches, members
from parallelhassnes.store.queue import tickets


class Gate:
    """What keeps a batch's ready steps from starting, besides limits; noted in ``_queue/blocked/``."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._answers: dict[str, bool] = {}
        self._books: dict[str, JobState] = {}
        self.credentials = credentials.Credentials(ctx)
        self.purse = BudgetGuard(ctx)

    def book(self, batch_id: str) -> JobState:
        """Return the batch's jobs in this pass, which nothing else changes meanwhile."""
        if batch_id not in self._books:
            self._books[batch_id] = JobState(self.ctx, batch_id)
        return self._books[batch_id]

    def may_start(self, batch_id: str) -> bool:
        if batch_id not in self._answers:
            self._answers[batch_id] = self._decide(batch_id)
        return self._answers[batch_id]

    def close(self, batch_id: str) -> None:
        """Have the batch start nothing more in this pass."""
        self._answers[batch_id] = False

    def _decide(self, batch_id: str) -> bool:
        if quarantine.is_deleted(self.ctx, batch_id):
            quarantine.forget(self.ctx, batch_id)
            return False
        if quarantine.reason_of(self.ctx, batch_id) is not None:
            return False
        note = self.ctx.layout.blocked / f"{batch_id}.json"
        with members.apart(note, partial(quarantine.note, self.ctx, batch_id)):
            reason, missing = self._reason(batch_id)
            if reason is None:
                note.unlink(missing_ok=True)
                return True
            self.note(batch_id, reason, missing)
        return False

    def note(self, batch_id: str, reason: str, missing: tuple[str, ...] = ()) -> None:
        note = {"reason": reason, **({"missing": missing} if missing else {})}
        atomic.write_json(self.ctx.layout.blocked / f"{batch_id}.json", note, durable=False)

    def _reason(self, batch_id: str) -> tuple[str | None, tuple[str, ...]]:
        """Tell why a batch may not start anything, and the secrets that this process lacks for it."""
        batch_dir = self.ctx.layout.batch(batch_id)
        hold = batches.read_control(batch_dir).hold
        if hold:
            return hold, ()
        spent = self.purse.refuses(batch_id)
        if spent is not None:
            return spent, ()
        try:
            known = self.credentials.given(batch_id)
        except BadEnvFile as error:
            return str(error), ()
        return credentials.why_missing(self.ctx, batch_id, known), known.missing


def note_blocked(ctx: Context) -> None:
    """Write down which batches with ready steps may not start, and why."""
    gate = Gate(ctx)
    for _, batch_id, _ in tickets.ready_folders(ctx.layout):
        gate.may_start(batch_id)
