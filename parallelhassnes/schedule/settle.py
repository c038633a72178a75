"""Settle: what follows from an attempt's end. Under ``tick.lock``; doing it twice changes nothing.

    ended/<ticket> ─▶ job files published ─▶ current.json ─▶ tickets of what became ready (or of the
    retry) ─▶ ledger line ─▶ what was spent ─▶ [all others that have ended] ─▶ the ledger on disk ─▶ ended/<ticket> removed

A crash anywhere leaves ended/<ticket>, and the next pass does it all again: the files are replaced by
the same, the tickets have the same names, and a line that is in the ledger already is not written twice. The ledger of a
batch is waited for once, for all of its ends that a pass has found.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from parallelhassnes.execute import launcher
from parallelhassnes.key_names import key_dir
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule import early_stopping, health, quarantine, rebuild
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import JobState, publish, record_end
from parallelhassnes.schedule.limits.concurrency_keys import QueueKeys
from parallelhassnes.schedule.limits.spending import Spending
from parallelhassnes.schedule.process import archiving
from parallelhassnes.schedule.rules import solver_critic
from parallelhassnes.store import attempts, batches, currents, decider, hosts, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import delayed, notices, tickets
from parallelhassnes.store.records import StepNow, Ticket

_MANY = 64
"""Steps that wait for one, or jobs of a batch that is over: of so many no claimed attempt is to wait for the end."""


def settle_ended(ctx: Context) -> int:
    """Settle every ended ticket; how many."""
    paths = tickets.ended(ctx.layout)
    books: dict[str, JobState] = {}
    settled: dict[str, list[Path]] = {}
    keys, spending = QueueKeys(ctx), Spending(ctx)
    for path in paths:
        if launcher.is_awaited() or not decider.decides(ctx.layout):
            health.wish(ctx.layout)
            break
        with members.apart(path, partial(_give_up, ctx, books, path)):
            ticket = tickets.read(path)
            if _frees_many(ctx, ticket) and launcher.is_too_long():
                health.wish(ctx.layout)
                break
            if ticket.batch_id not in books:
                books[ticket.batch_id] = JobState(ctx, ticket.batch_id)
            if not _settle(ctx, books[ticket.batch_id], keys, ticket, path.name):
                continue
            spending.settled(ticket.batch_id)
            archiving.wish(ctx, ticket.batch_id)
            settled.setdefault(ticket.batch_id, []).append(path)
    for batch_id, (*others, path) in settled.items():
        with members.apart(path, partial(_give_up, ctx, books, path)):
            ledger.sync(ctx.layout.batch(batch_id))
            for other in others:
                other.unlink(missing_ok=True)
            if not (tickets.has_any(ctx.layout, batch_id, path.name) or delayed.has_any(ctx.layout, batch_id)):
                folders = batches.job_dirs(ctx.layout, batch_id)
                if len(folders) > _MANY and launcher.is_too_long():
                    health.wish(ctx.layout)
                    continue
                _note_over(ctx, batch_id, folders)
            path.unlink(missing_ok=True)
            archiving.wish(
                ctx, batch_id
            )  # who has looked since the first wish saw a ticket, and a batch that was not over
    return len(paths)


def _frees_many(ctx: Context, ticket: Ticket) -> bool:
    """Tell whether the end of a step is looked at for so many others that no claimed attempt is to wait for it."""
    job, step = batches.read_step(ctx.layout, ticket)
    return len(job.dependents.get(step.step_id, ())) > _MANY


def _note_over(ctx: Context, batch_id: str, job_dirs: Sequence[Path]) -> None:
    """Tell what is done where a batch has nothing queued any more, before its last ticket goes."""
    for job_dir in job_dirs:
        currents.fold(job_dir)
    ctx.layout.checkpoint_wanted.touch()
    notices.note_end(ctx.layout, ctx.config.notify, batch_id)


def _give_up(ctx: Context, books: dict[str, JobState], path: Path, error: Exception) -> None:
    rebuild.pass_over(ctx, path, error)
    books.pop(quarantine.batch_of(path), None)


def _settle(ctx: Context, book: JobState, keys: QueueKeys, ticket: Ticket, name: str) -> bool:
    """Settle one end; False where another host's is not seen yet: not seen is not gone, and the ticket stays."""
    job, step = batches.read_step(book.ctx.layout, ticket)
    now = book.look_again(job, step)
    if ctx.layout.runner and not _is_seen(book.step_dir(job, step), now):
        still = hosts.still_sec(ctx.layout, ctx.config.heartbeat_sec)
        if (
            hosts.age_of(ctx.layout, ctx.layout.ended / name) > still
        ):  # it is another attempt's: that one is looked after again
            tickets.put_back(ctx.layout, key_dir(step.queue_key), name)
        return False
    if now is not None and now.ended_at is not None:
        publish(book.batch_dir / job.job_id, book.step_dir(job, step) / "attempts" / now.attempt)
        keys.note_end(job.batch_id, job.job_id, step, now)
        if solver_critic.waits_for_solver(step, now, book.overrides(job.job_id)):
            _begin_round(book, job, step)
        elif now.retry_at is not None:
            delayed.put(ctx.layout, ticket, name, now)
        else:
            book.spread(job, step)
            for skipped in early_stopping.skip(book, job, step):
                book.drop_ready(job, skipped)
                book.spread(job, skipped)
        book.save()
        if not ledger.has_ended(book.batch_dir, now.run_id):
            record_end(book.batch_dir, job, step, now)
        _note_end_of_loop(book, job, step)
    elif now is None:  # somebody deleted the attempt: the step is as if it had not been attempted
        book.place(job, step)
        book.save()
    else:  # the newest attempt has not ended: the ticket is that attempt's, unless it has one
        tickets.put_back(ctx.layout, key_dir(step.queue_key), name)
    return True


def _is_seen(step_dir: Path, now: StepNow | None) -> bool:
    return now is not None and now.ended_at is not None and attempts.is_sealed(step_dir / "attempts" / now.attempt)


def _begin_round(book: JobState, job: JobSpec, critic: StepSpec) -> None:
    """Write the ticket of the solver, unless it has had its turn already; then that of the critic."""
    assert critic.loop is not None  # noqa: S101 - it was asked for
    solver = job.step(critic.loop.solver)
    now = book.look_again(job, solver)
    if now is not None and now.retry_at is not None:
        book.put_ticket(job, solver)
    elif book.evaluate(job, critic)[0] == "ready":
        book.put_ticket(job, critic)


def _note_end_of_loop(book: JobState, job: JobSpec, solver: StepSpec) -> None:
    """After the end of a solver's attempt: if that ended its loop, say so of the critic."""
    loop = solver.loop
    if loop is None or solver.step_id != loop.solver:
        return
    critic = job.step(loop.critic)
    before = book.current(job.job_id).get(loop.critic)
    now = book.look_again(job, critic)
    if now is None or before is None or not now.unmet or before.unmet:
        return
    ledger.append(book.batch_dir, "unmet", job_id=job.job_id, step_id=loop.critic, attempt=now.attempt, line=now.unmet)
    book.spread(job, critic)
    book.save()
