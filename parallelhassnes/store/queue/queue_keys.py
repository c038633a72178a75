"""``_system/limits/<key>.json``: what is known of a queue key besides its configured limit. Shared by all batches.

    <key>.json   what operators said, what the provider's answers made of the limit, which credentials are paused
    .paused      rewritten whenever a key gets paused or open again (for a credential, or a batch with it), or gets an
                 operator's limit or loses it, so that views know from one stat what may have been closed or opened

A provider's refusal pauses the key for the credential that it refused (``records.Credential``), and for no other. Views,
which have no keys to compare, know from the pause which batches were found to wait for it. A file of an earlier version says
``breaker`` and knows no credential: that pause holds for every one.

Replaced whole, always under ``tick.lock``. Not derived: a rebuild leaves it alone; deleting the file of a key
forgets all of it, which is safe.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from parallelhassnes.errors import UserError
from parallelhassnes.key_names import key_dir, key_from_dir
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, clocks
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import turns
from parallelhassnes.store.records import Attribution, Credential, dump, now_text

MOST_CHANGES = 50
MOST_PAUSES = 32
"""Credentials of one key that are kept as paused; the oldest is forgotten, and its next attempt asks again."""
MOST_BATCHES = 1000
EVERY = "*"
"""In the place of a credential's mark: the pause of an earlier version, which holds for all."""
PAUSED_MARK = ".paused"


class Change(Record):
    """One entry of a key's history."""

    at: str
    what: str
    """In words: ``8 to 4: rate_limit``, ``paused by its provider: auth``, ``resumed by ann@host``."""
    run_id: str | None = None
    """The attempt whose end it was."""


class OperatorLimit(Record):
    """A limit that an operator set while things run; it takes the place of the configured one."""

    limit: int
    said: Attribution


class Adaptive(Record):
    """The limit that the provider's answers have made."""

    limit: int
    changed_at: float
    """Seconds since the epoch; the quiet period counts from here."""
    decreased_at: float
    """When it was last lowered."""


class Breaker(Record):
    """The key is paused for a credential: its provider turned an attempt down in a way that it would all others with it."""

    credential: Credential = Credential()
    batches: tuple[str, ...] = ()
    """Batches that were found to wait for it, for views."""
    failure_class: str
    line: str
    evidence: str = ""
    attempt: str
    """``batch/job/step/attempt`` whose end it was."""
    at: float
    """Seconds since the epoch."""
    interval_sec: float
    """Between the last failure and the next probe; doubled after each probe that fails."""
    probe_at: float
    """When one attempt may try again."""
    probe: str | None = None
    """Run id of the live probe."""
    probe_batch: str = ""
    """The batch that the probe belongs to."""

    @property
    def state(self) -> Literal["open", "half-open"]:
        return "half-open" if self.probe else "open"

    def hold(self, queue_key: str, *, of_all: bool = False) -> str:
        """Tell what keeps the key from starting attempts with the credential, in one line with what to do."""
        whose = "" if of_all else f" for attempts {self.credential.words}"
        why = WORDS.get(self.failure_class, self.failure_class)
        return f"{queue_key} is paused{whose}: {why} ({self.line}); cure it, then `parallelhassnes resume {queue_key}`"


class KeyState(Record):
    """Everything that is kept of one queue key."""

    schema_version: Literal[1] = 1
    queue_key: str
    limit: OperatorLimit | None = None
    paused: Attribution | None = None
    breakers: dict[str, Breaker] = {}
    """Mark of a credential → why nothing starts on the key with it."""
    adaptive: Adaptive | None = None
    """None while the key has its whole limit."""
    history: tuple[Change, ...] = ()
    """Newest last."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier(cls, document: Any) -> Any:
        """Take in a pause as it was written when pauses knew no credential."""
        if not isinstance(document, dict) or "breaker" not in document:
            return document
        found = {key: value for key, value in document.items() if key != "breaker"}
        if document["breaker"] is not None:
            found["breakers"] = {EVERY: document["breaker"], **found.get("breakers", {})}
        return found

    def changed(self, what: str, at: str, run_id: str | None = None) -> "KeyState":
        """With one more entry in its history."""
        entry = Change(at=at, what=what, run_id=run_id)
        return self.model_copy(update={"history": (*self.history, entry)[-MOST_CHANGES:]})

    def bounded(self, now: float) -> "KeyState":
        """Return the same with instants that a clock which was ahead has noted brought back to what their rules allow."""
        found = self
        late = {
            mark: {"at": min(b.at, now), "probe_at": clocks.latest(b.probe_at, now, b.interval_sec)}
            for mark, b in self.breakers.items()
            if b.at > now or b.probe_at > now + b.interval_sec
        }
        if late:
            mended = {m: b.model_copy(update=late.get(m)) for m, b in self.breakers.items()}
            found = found.model_copy(update={"breakers": mended})
        if (a := self.adaptive) is not None and max(a.changed_at, a.decreased_at) > now:
            past = {"changed_at": min(a.changed_at, now), "decreased_at": min(a.decreased_at, now)}
            found = found.model_copy(update={"adaptive": a.model_copy(update=past)})
        return found

    @property
    def holds(self) -> tuple[str, ...]:
        """What keeps the key from starting attempts, whosever: a line each, with what to do."""
        if self.paused is not None:
            return (f"{self.queue_key} is paused {self.paused}",)
        return tuple(each.hold(self.queue_key, of_all=mark == EVERY) for mark, each in self.breakers.items())

    def breaker_of(self, batch_id: str) -> Breaker | None:
        """Return the provider's pause that the attempts of a batch wait for."""
        return next((each for mark, each in self._waited_for(batch_id)), None)

    def _waited_for(self, batch_id: str) -> Iterator[tuple[str, Breaker]]:
        return ((mark, each) for mark, each in self.breakers.items() if mark == EVERY or batch_id in each.batches)

    def hold_of(self, batch_id: str) -> str:
        """Tell what keeps the key from starting anything of a batch, in one line with what to do; empty where it may start."""
        if self.paused is not None:
            return self.holds[0]
        lines = (each.hold(self.queue_key, of_all=mark == EVERY) for mark, each in self._waited_for(batch_id))
        return next(lines, "")

    def with_breaker(self, mark: str, breaker: Breaker | None) -> "KeyState":
        """With another pause for a credential, or none."""
        found = {key: each for key, each in self.breakers.items() if key != mark}
        if breaker is not None:
            found[mark] = breaker
        for key in sorted(found, key=lambda key: found[key].at)[: max(0, len(found) - MOST_PAUSES)]:
            del found[key]
        return self.model_copy(update={"breakers": found})


WORDS = {"auth": "authentication failed", "quota": "the quota is used up", "unknown_model": "no such model"}


def read(layout: Layout, queue_key: str) -> KeyState:
    """Return the key's state; an empty one where nothing is known of it. A pass writes back what it ``bounded``."""
    try:
        return _read(layout.limits / f"{key_dir(queue_key)}.json", queue_key)
    except FileNotFoundError:
        return KeyState(queue_key=queue_key)


def _read(path: Path, queue_key: str) -> KeyState:
    """Return the state in a file; one that is torn may have said that the key is paused, so it is until somebody resumes it."""
    try:
        return atomic.read_record(KeyState, path)
    except FileNotFoundError:
        raise
    except (atomic.CorruptFile, OSError) as error:
        if not atomic.is_damage(error):
            raise
        at = now_text(datetime.fromtimestamp(_mtime(path), UTC))
        said = Attribution(
            at=at,
            by="parallelhassnes",
            reason=f"{atomic.describe_damage(error)}; resume it to forget what the file said",
        )
        return KeyState(queue_key=queue_key, paused=said)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def every(layout: Layout) -> dict[str, KeyState]:
    """Queue key → state, of all that something is known of."""
    paths = map(Path, atomic.json_files(layout.limits))
    states: dict[str, KeyState] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # just resumed
            state = _read(path, _key_of(path.stem)).bounded(time.time())
            states[state.queue_key] = state
    return states


def _key_of(folder: str) -> str:
    """Return the queue key that a file is of, by its name; the name itself where that is too long to be read back."""
    try:
        return key_from_dir(folder)
    except UserError:
        return folder


def write(layout: Layout, state: KeyState) -> None:
    """Replace the key's state; the caller holds ``tick.lock``."""
    layout.limits.mkdir(exist_ok=True)
    before = read(layout, state.queue_key)
    atomic.write_json(layout.limits / f"{key_dir(state.queue_key)}.json", dump(state))
    if _closed(before) != _closed(state):
        atomic.write_text(layout.limits / PAUSED_MARK, "", durable=False)
    if before.breakers.keys() - state.breakers.keys():
        turns.recall_on(layout, key_dir(state.queue_key))


def _closed(state: KeyState) -> object:
    """Tell what views make of the state."""
    waiting = {mark: each.batches for mark, each in state.breakers.items()}
    return state.paused is None, state.limit is None, waiting
