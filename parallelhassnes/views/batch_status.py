"""The state of every step of a batch, from its index, its ledger and the notes of the queue.

A step is ``running`` or terminal by its newest attempt. One that was not attempted, or whose retry is due,
is ``ready`` when nothing but a limit or the clock keeps it from starting, ``canceled`` when an operator
said so, and ``blocked`` otherwise, with the reason.
"""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import file_stamp, places
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.limits import concurrency_keys
from parallelhassnes.schedule.rules.step_state import Dependency, Known, dependency, kills
from parallelhassnes.states import TROUBLE
from parallelhassnes.store import atomic, attempts, batches, earlier_batches, index
from parallelhassnes.store.evidence.ledger import LEDGER
from parallelhassnes.store.index import IndexedStep
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import queue_keys, tickets
from parallelhassnes.store.records import Control
from parallelhassnes.views import projection
from parallelhassnes.views.projection import Fold, StepRow
from parallelhassnes.views.scoreboard_models import BatchState, Counts

MANY = 100
"""Reports that are not to be read again."""


class StepStatus(NamedTuple):
    """How one step stands."""

    job_id: str
    step: IndexedStep
    state: str
    """One of ``states.STATES``."""
    reason: str = ""
    """Why it is blocked."""
    row: StepRow | None = None
    """Its newest attempt; None where there was none."""
    final: bool = False
    """Blocked for good, by a step that ended without success, unless that is retried."""
    gated: bool = False
    """Blocked, and a person's word is all that it waits for."""
    skipped: bool = False
    """Canceled by the job's own rule (``enough``): it was not needed any more."""

    @property
    def key(self) -> str:
        return f"{self.job_id}/{self.step.step_id}"

    @property
    def delayed(self) -> bool:
        """Ready, but not before ``row.retry_at``."""
        return self.state == "ready" and self.row is not None


class Group(NamedTuple):
    """Steps of a batch or job, counted, and what they amount to."""

    counts: Counts
    final: int = 0
    """Of the blocked ones those that are blocked for good."""
    skipped: int = 0
    """Of the canceled ones those that the job's own rule (``enough``) has called off."""

    @property
    def state(self) -> BatchState:
        """What goes on by itself decides first, then what went wrong, then what an operator called off."""
        if self.counts.running:
            return "running"
        if self.counts.ready:
            return "waiting"
        if self.counts.blocked > self.final:
            return "blocked"
        if self.final or self.failed:
            return "attention"
        return "canceled" if self.counts.canceled > self.skipped else "done"

    @property
    def failed(self) -> int:
        """Steps that did not succeed."""
        return sum(getattr(self.counts, name) for name in TROUBLE)


def group(steps: Iterable[StepStatus]) -> Group:
    """Count the steps of a batch or job."""
    states: Counter[str] = Counter()
    final = skipped = 0
    for step in steps:
        states[step.state] += 1
        final += step.final
        skipped += step.skipped
    return Group(Counts(**states), final, skipped)


class Hold(NamedTuple):
    """What keeps the whole batch's ready steps from starting."""

    canceled: bool
    reason: str
    """Empty where it may start."""


def held(layout: Layout, batch_id: str) -> Hold:
    try:
        control = atomic.read_json_or_none(layout.batch(batch_id) / batches.CONTROL) or {}
    except atomic.CorruptFile as error:
        return Hold(canceled=False, reason=f"damaged: {error}")
    note = atomic.read_derived(layout.blocked / f"{batch_id}.json")
    canceled = bool(control.get("canceled"))
    reason = str(note.get("reason", ""))
    if control.get("paused") or control.get("closed"):
        reason = atomic.parse(Control, control, layout.batch(batch_id) / batches.CONTROL).hold
    return Hold(canceled, "" if canceled or reason == "canceled" else reason)


@dataclass
class BatchStatus:
    """Every step of a batch with its state, in the table's order."""

    batch_dir: Path
    jobs: dict[str, list[IndexedStep]]
    fold: Fold
    held: Hold
    paused: dict[str, str] = field(default_factory=dict)
    """Queue key → why nothing of the batch starts on it; empty where something may start."""

    def __post_init__(self) -> None:
        # ``job/step`` → the step, in the table's order.
        self.steps = {f"{job_id}/{step.step_id}": step for job_id, steps in self.jobs.items() for step in steps}
        self._dead: dict[str, str] = {}

    def __iter__(self) -> Iterator[StepStatus]:
        for job_id, steps in self.jobs.items():
            for step in steps:
                yield self.of(job_id, step)

    def below(self, job_id: str | None, step_id: str | None = None) -> list[StepStatus]:
        """Return the steps of the batch, of one of its jobs, or one step."""
        jobs = self.jobs if job_id is None else {job_id: self.jobs.get(job_id, [])}
        return [self.of(job, step) for job, steps in jobs.items() for step in steps if step_id in (None, step.step_id)]

    def of(self, job_id: str, step: IndexedStep) -> StepStatus:
        key = f"{job_id}/{step.step_id}"
        row = self.fold.steps.get(key)
        if row is not None and row.retry_at is None:
            return StepStatus(job_id, step, row.status, row=row)
        if self._called_off(key):
            # A retry that was due is called off: the step stays what its last attempt came to.
            between_rounds = row is not None and step.loop and row.status == "succeeded"
            state = "canceled" if row is None or between_rounds else row.status
            skipped = state == "canceled" and self.fold.canceled.get(key) is False
            return StepStatus(job_id, step, state, row=row, skipped=skipped)
        if (row is None or step.loop) and step.depends_on:
            dead = self.dead(key)
            if dead:
                return StepStatus(job_id, step, "blocked", self._why(dead), final=True)
            waits = self._open_dependency(step)
            if waits is not None:
                return StepStatus(job_id, step, "blocked", f"waiting for {waits}")
        if row is None and step.gate and key not in self.fold.approved:
            why = f"waiting for a person: approve or reject {self.batch_dir.name}/{key}"
            return StepStatus(job_id, step, "blocked", why, gated=True)
        if self.held.reason:
            return StepStatus(job_id, step, "blocked", self.held.reason, row)
        if self.paused.get(step.queue_key):
            return StepStatus(job_id, step, "blocked", self.paused[step.queue_key], row)
        return StepStatus(job_id, step, "ready", row=row)

    def dead(self, key: str) -> str:
        """Return the step because of which ``key`` can never start: the first in the chain; empty where there is none."""
        stack = [key]
        while stack:
            top = stack[-1]
            step = self.steps.get(top)
            if top in self._dead or step is None or step.after == "end" or top in self.fold.steps:
                self._dead.setdefault(top, "")
                stack.pop()
                continue
            unknown = [ref for ref in step.depends_on if ref not in self._dead and ref not in self.fold.steps]
            if unknown:
                stack.extend(unknown)
                continue
            killers = (ref for ref in step.depends_on if kills(step.after, self._means(ref)))
            killer = next(killers, "")
            self._dead[top] = self._dead.get(killer, "") or killer
            stack.pop()
        return self._dead[key]

    def _means(self, reference: str) -> Dependency:
        """Tell what a dependency means to what waits for it; whether it is dead has been found out."""
        row = self.fold.steps.get(reference)
        called_off = self._called_off(reference)
        if row is None:
            dead = bool(self._dead.get(reference))
            return dependency(Known(called_off=called_off, dead=dead))
        return dependency(Known(row.status, row.retry_at is not None, called_off))

    def _called_off(self, key: str) -> bool:
        return self.held.canceled or key in self.fold.canceled

    def _open_dependency(self, step: IndexedStep) -> str | None:
        """Return the first dependency that has neither ended nor is dead."""
        for reference in step.depends_on:
            if reference not in self.fold.steps:
                self.dead(reference)
            if self._means(reference) == "open":
                return reference
        return None

    def _why(self, key: str) -> str:
        """Tell why what waits for this step can never start."""
        row = self.fold.steps.get(key)
        if self.steps[key].kind == "baseline" and row is not None and row.line:
            return f"baseline: {row.line}"
        return f"{key} {self._how(key)}"

    def _how(self, key: str) -> str:
        row = self.fold.steps.get(key)
        status = row.status if row is not None else "canceled"
        return {"canceled": "was canceled", "needs_attention": "needs attention", "lost": "was lost"}.get(
            status, status
        )


def read(
    layout: Layout, batch_id: str, fold: Fold | None = None, paused: concurrency_keys.Holds | None = None
) -> BatchStatus:
    """Return the status of a batch as of now.

    Args:
        fold: the batch's fold, where the caller has it already; it is advanced.
        paused: what keeps queue keys from starting anything, where the caller has it already.

    Raises:
        FileNotFoundError: there is no such batch.
    """
    batch_dir = layout.batch(batch_id)
    try:
        jobs = read_index(batch_dir)
    except earlier_batches.EarlierBatch as found:
        return _of_earlier(batch_dir, found.document)
    if fold is None:
        fold = projection.load(batch_dir)
    else:
        projection.advance(fold, batch_dir)
    if paused is None:
        paused = concurrency_keys.Holds(layout, configuration.in_force(layout).config)
    own = {key: paused.of(key, batch_id) for key in (*paused.closed, *paused.states)}
    status = BatchStatus(batch_dir, jobs, fold, held(layout, batch_id), own)
    _add_unlogged(layout, status)
    return status


def read_told(layout: Layout, batch_id: str, fold: Fold | None = None) -> BatchStatus:
    """As ``read``, with what reports of older versions' attempts say; leaves the fold's cache behind where that is worth it."""
    status = read(layout, batch_id, fold)
    many = projection.take_in(status.fold, status.batch_dir)
    projection.save(status.fold, status.batch_dir, force=many > MANY)
    return status


def origins(status: BatchStatus) -> list[list[str]]:
    """Return the versions, hosts and configurations under which attempts of the batch ran, as ``Fold.origins``."""
    many = projection.take_origins(status.fold, status.batch_dir)
    projection.save(status.fold, status.batch_dir, force=many > MANY)
    return status.fold.origins


def _of_earlier(batch_dir: Path, document: dict[str, Any]) -> BatchStatus:
    """Return the status of a batch of the earlier ParallelHassnes, from its own files."""
    jobs: dict[str, list[IndexedStep]] = {job: [] for job in earlier_batches.about(batch_dir, document)["job_ids"]}
    fold = Fold(batch_dir.name)
    for step in earlier_batches.steps(batch_dir, document):
        shown = IndexedStep(step.step_id, "agent", "", "", "success", step.depends_on)
        jobs[step.job_id].append(shown)
        fold.attempts += step.attempts
        if step.attempts:
            line = None if step.status == "succeeded" else step.summary or f"ended as {step.status}"
            name = None if step.status == "succeeded" else step.status
            fold.put(
                f"{step.job_id}/{step.step_id}",
                StepRow(step.status, step.attempt, step.attempts, step.at, "", None, name, line),
            )
    return BatchStatus(batch_dir, jobs, fold, Hold(canceled=False, reason=earlier_batches.HELD), {})


def read_index(batch_dir: Path) -> dict[str, list[IndexedStep]]:
    """Return the batch's index; written anew from its jobs where it is gone or cannot be read.

    Raises:
        FileNotFoundError: there is no such batch.
    """
    try:
        return index.kept(batch_dir)
    except (FileNotFoundError, atomic.CorruptFile):
        jobs = [batches.read_job(batch_dir / job_id) for job_id in batches.read_batch(batch_dir).job_ids]
    try:
        index.write(batch_dir, jobs)
        return index.read(batch_dir)
    except OSError:  # a reader with no right to write
        return {job.job_id: [index.of(step) for step in job.steps] for job in jobs}


def _add_unlogged(layout: Layout, status: BatchStatus) -> None:
    """Take in live attempts whose ledger line is not there yet, or was lost with the process that was to write it."""
    prefix = f"{status.batch_dir.name}."
    paths = [entry.path for entry in tickets.running(layout) if entry.name.startswith(prefix)]
    for path in paths:
        try:
            ticket = tickets.read(path)
        except FileNotFoundError:  # its attempt has just ended
            continue
        key = f"{ticket.job_id}/{ticket.step_id}"
        if key not in status.steps:
            continue
        row = status.fold.steps.get(key)
        if row is not None and row.status == "running":
            continue
        ref = attempts.newest(status.batch_dir / places.step_key(key).place)
        if ref is not None and (row is None or ref.number > row.number):
            at, queue_key = ref.name.partition("_")[0], status.steps[key].queue_key
            status.fold.put(key, projection.started(row, ref.name, ref.number, at, queue_key))


# --- what a view depends on ----------------------------------------------------------------------------


class Surroundings(NamedTuple):
    """What the lines of all batches depend on besides, looked at once."""

    stamp: str
    noted: frozenset[str]
    """Files of ``blocked/``: a batch has one where something keeps it from starting anything."""
    about: Mapping[str, FileStamp]
    """Batch → the version of its ``batch_meta.json``."""


def around(layout: Layout, about: Mapping[str, FileStamp]) -> Surroundings:
    """Look at what the lines of all batches depend on.

    Args:
        about: batch → the version of its ``batch_meta.json``, as a listing has told.
    """
    noted = frozenset[str]()
    with contextlib.suppress(OSError):  # whoever reads a batch is told
        noted = frozenset(os.listdir(layout.blocked))
    return Surroundings(_of_store(layout), noted, about)


def stamp(layout: Layout, batch_id: str, live: int | str, surroundings: Surroundings | None = None) -> str:
    """Tell what a view of a batch depends on, in a few stats: as long as it is the same, what was made is still right.

    Args:
        live: running tickets of the batch: how many, or a digest of which (``running_digest``).
        surroundings: ``around``, where the caller has it already, of a look at many batches.
    """
    # Plain strings: a store may have 10,000 batches, and a Path costs more than a stat.
    folder, name = f"{layout.runs}/{batch_id}", f"{batch_id}.json"
    about = None if surroundings is None else surroundings.about.get(batch_id)
    own = [
        _text(file_stamp.seen(f"{folder}/{LEDGER}")),
        _text(about or file_stamp.seen(f"{folder}/{batches.META}")),
        _text(file_stamp.seen(f"{folder}/{batches.CONTROL}")),
    ]
    noted = surroundings is None or name in surroundings.noted
    own.append(_text(file_stamp.seen(f"{layout.blocked}/{name}") if noted else None))
    besides = _of_store(layout) if surroundings is None else surroundings.stamp
    return f"{'.'.join(own)}.{live}.{besides}"


def running_digest(layout: Layout, batch_id: str) -> str:
    """Return a digest of the batch's running tickets."""
    names = sorted(entry.name for entry in tickets.running(layout) if entry.name.startswith(f"{batch_id}."))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _of_store(layout: Layout) -> str:
    paths = f"{layout.limits}/{queue_keys.PAUSED_MARK}", f"{layout.root}/{CONFIG_NAME}"  # a limit of 0 closes a key
    return ".".join(_text(file_stamp.seen(path)) for path in paths)


def _text(stamp: FileStamp | None) -> str:
    return "0" if stamp is None else "{}-{}-{}-{}".format(*stamp)
