"""``_system/limits/<key>.json``: what is known of a queue key besides its configured limit. Shared by all batches.

    <key>.json   what operators said, what the provider's answers made of the limit, whether the key is paused
    .paused      rewritten whenever a key gets paused or open again, or gets an operator's limit or loses it, so that
                 views know from one stat what may have been closed or opened

Replaced whole, always under ``tick.lock``. Not derived: a rebuild leaves it alone; deleting the file of a key
forgets all of it, which is safe.
"""

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from parallelhassnes.errors import UserError
from parallelhassnes.names import key_dir, key_from_dir
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Said, dump, now_text

MOST_CHANGES = 50
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
    said: Said


class Adaptive(Record):
    """The limit that the provider's answers have made."""

    limit: int
    changed_at: float
    """Seconds since the epoch; the quiet period counts from here."""
    decreased_at: float
    """When it was last lowered."""


class Breaker(Record):
    """The key is paused because its provider turned an attempt down in a way that it would all others."""

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

    @property
    def state(self) -> Literal["open", "half-open"]:
        return "half-open" if self.probe else "open"


class KeyState(Record):
    """Everything that is kept of one queue key."""

    schema_version: Literal[1] = 1
    queue_key: str
    limit: OperatorLimit | None = None
    paused: Said | None = None
    breaker: Breaker | None = None
    adaptive: Adaptive | None = None
    """None while the key has its whole limit."""
    history: tuple[Change, ...] = ()
    """Newest last."""

    def changed(self, what: str, at: str, run_id: str | None = None) -> "KeyState":
        """With one more entry in its history."""
        entry = Change(at=at, what=what, run_id=run_id)
        return self.model_copy(update={"history": (*self.history, entry)[-MOST_CHANGES:]})

    @property
    def hold(self) -> str:
        """What keeps the key from starting anything, in one line with what to do; empty where nothing does."""
        if self.paused is not None:
            return f"{self.queue_key} is paused {self.paused}"
        if self.breaker is None:
            return ""
        return (
            f"{self.queue_key} is paused: {WORDS.get(self.breaker.failure_class, self.breaker.failure_class)} "
            f"({self.breaker.line}); cure it, then `parallelhassnes resume {self.queue_key}`"
        )


WORDS = {"auth": "authentication failed", "quota": "the quota is used up", "unknown_model": "no such model"}  # fmt: skip


def read(layout: Layout, queue_key: str) -> KeyState:
    """The key's state; an empty one where nothing is known of it."""
    try:
        return _read(layout.limits / f"{key_dir(queue_key)}.json", queue_key)
    except FileNotFoundError:
        return KeyState(queue_key=queue_key)


def _read(path: Path, queue_key: str) -> KeyState:
    """The state in a file; one that is torn may have said that the key is paused, so it is until somebody resumes it."""
    try:
        return atomic.read_record(KeyState, path)
    except FileNotFoundError:
        raise
    except (atomic.CorruptFile, OSError) as error:
        if not atomic.is_damage(error):
            raise
        at = now_text(datetime.fromtimestamp(_mtime(path), UTC))
        said = Said(
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
            state = _read(path, _key_of(path.stem))
            states[state.queue_key] = state
    return states


def _key_of(folder: str) -> str:
    """The queue key that a file is of, by its name; the name itself where that is too long to be read back."""
    try:
        return key_from_dir(folder)
    except UserError:
        return folder


def write(layout: Layout, state: KeyState) -> None:
    """Replace the key's state; the caller holds ``tick.lock``."""
    layout.limits.mkdir(exist_ok=True)
    before = read(layout, state.queue_key)
    atomic.write_json(layout.limits / f"{key_dir(state.queue_key)}.json", dump(state))
    if (bool(before.hold), before.limit is None) != (bool(state.hold), state.limit is None):
        atomic.write_text(layout.limits / PAUSED_MARK, "", durable=False)
