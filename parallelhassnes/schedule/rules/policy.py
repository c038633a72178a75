"""Whether an ended attempt is followed by another by itself, when, and why: one table and one pure function.

``TABLE`` is what docs/failures.md shows (a test holds them equal). ``decide`` takes the step's attempts as
they are on disk and nothing else, the jitter included, so the same files always give the same answer.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from parallelhassnes.plan import Retry

JITTER = 0.2
"""A delay is stretched by up to this share, so that steps that failed together do not come back together."""
HOURS = 3600.0
WINDOWS = (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0)
"""Backoff by provider windows: most quotas are per minute, so less than one is wasted."""


class ClassPolicy(NamedTuple):
    """One row of the table."""

    retry: bool
    backoff: tuple[float, ...] = ()
    """Seconds before the first, second … retry, the last one repeated; empty: the step's ``backoff_sec``, doubled."""
    cap: float = 600.0
    """Seconds that a doubled backoff grows to at most."""
    first_at_once: bool = False
    max_attempts: int | None = None
    """Attempts of the step that may end so before it is given up; None: only the step's ``max_attempts`` counts."""
    uses_attempt: bool = True
    within_sec: float | None = None
    """Seconds from the first end of an unbroken row of them within which the last retry must start."""
    pauses_key: bool = False
    """Nothing starts on the queue key until ``resume`` or a probe that works."""
    top_up: bool = True
    """A trial of an agent with ``n_valid`` gets an extra attempt for it: the end says nothing about the agent."""
    why: str = ""


_PROVIDER = ClassPolicy(True, WINDOWS, uses_attempt=False, within_sec=6 * HOURS)
_PAUSES = ClassPolicy(True, (0.0,), uses_attempt=False, max_attempts=20, pauses_key=True)
_NEVER = ClassPolicy(False, uses_attempt=True, top_up=False)

TABLE: dict[str, ClassPolicy] = {
    "rate_limit": _PROVIDER._replace(why="the provider's window has to pass; the attempt never had a chance"),
    "overloaded": _PROVIDER._replace(why="as rate_limit"),
    "transient_provider": ClassPolicy(
        True,
        (5.0, 20.0, 60.0),
        max_attempts=3,
        why="short troubles of a provider pass soon, long ones are another class",
    ),
    "auth": _PAUSES._replace(why="every attempt on the key would fail until somebody mends it"),
    "quota": _PAUSES._replace(why="as auth"),
    "unknown_model": _PAUSES._replace(why="as auth"),
    "context_length": _NEVER._replace(why="a result of the tested agent"),
    "refusal": _NEVER._replace(why="a result of the tested agent"),
    "agent_timeout": _NEVER._replace(why="a result of the tested agent"),
    "capped": _NEVER._replace(why="it has used what it may; another attempt would cost as much again"),
    "agent_error": _NEVER._replace(why="a result of the tested agent, or of the command"),
    "verifier": ClassPolicy(True, max_attempts=2, why="tests that crash sometimes crash once"),
    "infrastructure": ClassPolicy(True, why="the host's fault"),
    "configuration": _NEVER._replace(
        why="a key, a name or a package is missing: would fail in the same way, and says nothing about the task"
    ),
    "task_definition": _NEVER._replace(why="would fail in the same way"),
    "canceled": ClassPolicy(False, uses_attempt=False, top_up=False, why="somebody said so"),
    "lost": ClassPolicy(True, first_at_once=True, why="its processes died, mostly by a crash of the host"),
    "job_time_limit": ClassPolicy(True, why="its cluster's job was out of time; a longer `resources.time` helps"),
    "internal": ClassPolicy(False, why="our own fault, which a repetition would hide"),
}

SHUT_DOWN = ClassPolicy(True, (30.0,), uses_attempt=False, max_attempts=20)
"""A supervisor that was told to end (SIGTERM, no cancel): no attempt; the pause keeps a host that goes down from starting it."""
NOT_BEGUN = ClassPolicy(True, (0.1,), uses_attempt=False, max_attempts=1000)
"""An attempt that was handed to a host which ended before it took it: nothing of it ran, and another host gets it."""
UNSCORED = ClassPolicy(False)
"""A trial that ended well and has no valid score."""
MODEL_SILENT = "no tokens"


class Past(NamedTuple):
    """One ended attempt, as far as the decision needs it."""

    run_id: str
    status: str
    failure_class: str | None
    ended_at: float
    """Seconds since the epoch."""
    retry_after: float | None = None
    """Seconds that the provider asked to wait."""
    shut_down: bool = False
    began: bool = True
    """Whether its supervisor had begun: one that was handed to a host which then ended had not."""
    exception: str = ""
    """The type of the exception that a trial ended by, where the step's rule names types."""
    scored: bool = True
    """Of a step with ``top_up``: whether it has a score that counts."""


class Decision(NamedTuple):
    """What follows an ended attempt."""

    retry_at: float | None
    """Seconds since the epoch; None where nothing follows by itself."""
    why: str
    """In a few words, for ``explain`` and the ledger; empty where there was nothing to decide."""
    extra: int = 0
    """Extra attempts (``top_up``) among those so far, the coming one included."""


def policy_of(failure_class: str, retry: Retry) -> ClassPolicy:
    """Return the row of a class with what the table or the configuration says otherwise."""
    row = TABLE[failure_class]
    said = retry.classes.get(failure_class)  # type: ignore[call-overload]
    if said is None:
        return row
    backoff = row.backoff
    cap = said.max_backoff_sec if said.max_backoff_sec is not None else row.cap
    if said.backoff_sec is not None:
        cap = max(cap, said.backoff_sec) if said.max_backoff_sec is None else cap
        backoff = tuple(min(said.backoff_sec * 2**k, cap) for k in range(16))
    elif said.max_backoff_sec is not None:
        backoff = tuple(min(sec, cap) for sec in row.backoff)
    return row._replace(
        retry=row.retry if said.retry is None else said.retry,
        backoff=backoff,
        cap=cap,
        first_at_once=row.first_at_once and said.backoff_sec is None,
        max_attempts=row.max_attempts if said.max_attempts is None else said.max_attempts,
        within_sec=row.within_sec if said.within_sec is None else said.within_sec,
        uses_attempt=row.uses_attempt if said.uses_attempt is None else said.uses_attempt,
        top_up=row.top_up if said.top_up is None else said.top_up,
    )


def decide(history: Sequence[Past], retry: Retry) -> Decision:
    """Tell what follows the last of these attempts: all those since the step began or an operator had it retried.

    Args:
        history: the ended attempts, oldest first.
        retry: the step's own.
    """
    tally = _Tally(retry)
    decision = Decision(None, "")
    for past in history:
        decision = tally.take(past)
    return decision


class _Tally:
    """The counts over a history."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.used = 0
        self.by_class: dict[str, int] = {}
        self.row, self.row_class, self.row_began = 0, "", 0.0
        self.extra = 0

    def take(self, past: Past) -> Decision:
        if self.retry.on_statuses and not past.shut_down:
            return self._by_status(past)
        name, policy = self._named(past)
        if not name:
            return Decision(None, "", self.extra)
        self.used += policy.uses_attempt
        self.by_class[name] = self.by_class.get(name, 0) + 1
        self._count_row(name, past)
        delay = self._delay(policy, past)
        refused = self._refused(name, policy, past, delay)
        if not refused:
            return Decision(past.ended_at + delay, self._said(name, policy, delay), self.extra)
        wanted = self.retry.top_up
        if wanted is None or past.scored or not policy.top_up:
            return Decision(None, refused, self.extra)
        if self.extra >= wanted.extra:
            why = f"not scored, and {_times(wanted.extra, 'extra attempt')} used up ({refused})"
            return Decision(None, why, self.extra)
        self.extra += 1
        return Decision(
            past.ended_at + delay, f"not scored ({name}): extra attempt {self.extra} of {wanted.extra}", self.extra
        )

    def _by_status(self, past: Past) -> Decision:
        """Go by how the attempt ended, whatever the class of its failure."""
        self.used += 1
        status = "failed" if past.status == "lost" else past.status
        if status == "succeeded":
            return Decision(None, "", self.extra)
        if status not in self.retry.on_statuses:
            return Decision(None, f"{status} is not retried, as the table says (retry_on_statuses)", self.extra)
        if self.used >= self.retry.max_attempts:
            return Decision(None, f"{_times(self.used, 'attempt')} used up", self.extra)
        delay = self.retry.backoff_sec
        counted = f"{self.used} of {self.retry.max_attempts} attempts used"
        return Decision(past.ended_at + delay, f"{status}: again after {delay:.0f} s ({counted})", self.extra)

    def _named(self, past: Past) -> tuple[str, ClassPolicy]:
        if past.shut_down and past.status == "lost":
            return ("shut down", SHUT_DOWN) if past.began else ("not begun", NOT_BEGUN)
        if past.status == "succeeded":
            missing = self.retry.top_up is not None and not past.scored
            return ("unscored", UNSCORED) if missing else ("", UNSCORED)
        if past.status == "needs_attention":
            return "", UNSCORED
        name = past.failure_class or ("lost" if past.status == "lost" else "internal")
        if past.status == "canceled":
            name = "canceled"
        return (name, policy_of(name, self.retry)) if name in TABLE else ("", UNSCORED)

    def _count_row(self, name: str, past: Past) -> None:
        if name == self.row_class:
            self.row += 1
        else:
            same_window = {name, self.row_class} <= {"rate_limit", "overloaded"}
            self.row, self.row_class = self.row + 1 if same_window else 1, name
            if not same_window:
                self.row_began = past.ended_at
        self.row_began = min(self.row_began, past.ended_at)  # a clock that was set back

    def _delay(self, policy: ClassPolicy, past: Past) -> float:
        nth = self.row
        if policy.first_at_once and nth == 1:
            return 0.0
        if policy.backoff:
            planned = policy.backoff[min(nth, len(policy.backoff)) - 1]
        else:
            doublings = min(nth - 1 - policy.first_at_once, 40)
            planned = min(self.retry.backoff_sec * 2**doublings, max(policy.cap, self.retry.backoff_sec))
        if past.retry_after is not None:
            # The first time the provider is taken at its word; if that was not enough, the longer counts.
            planned = past.retry_after if nth == 1 else max(planned, past.retry_after)
        return planned * (1 + JITTER * _unit(past.run_id))

    def _refused(self, name: str, policy: ClassPolicy, past: Past, delay: float) -> str:
        """Tell why there is no retry; empty where there is."""
        said = self.retry.classes.get(name)  # type: ignore[call-overload]
        named = past.exception in self.retry.only
        if past.exception and (past.exception in self.retry.never or (self.retry.only and not named)):
            return f"{past.exception} is not retried, as the table says"
        if not policy.retry and not named:
            return f"{name} is not retried"
        if self.retry.max_attempts == 1 and policy is not NOT_BEGUN and not (said and said.retry):
            return "its retries are switched off (max_attempts is 1)"
        if policy.max_attempts is not None and self.by_class[name] >= policy.max_attempts:
            return f"{_times(self.by_class[name], 'attempt')} ended as {name}, which is the most"
        if policy.uses_attempt and self.used >= max(self.retry.max_attempts, _asked(said)):
            return f"{_times(self.used, 'attempt')} used up"
        if policy.within_sec is not None:
            passed = past.ended_at + delay - self.row_began
            if passed > policy.within_sec:
                return f"{name} has gone on for too long ({policy.within_sec:g} s are allowed)"
        return ""

    def _said(self, name: str, policy: ClassPolicy, delay: float) -> str:
        counted = (
            f"{self.used} of {self.retry.max_attempts} attempts used" if policy.uses_attempt else "uses up no attempt"
        )
        if policy.pauses_key:
            return f"{name}: again when the key is open ({counted})"
        return f"{name}: again after {delay:.0f} s ({counted})"


def _asked(said: object) -> int:
    """Return the attempts that a class override speaks of: it may be more than the step's own."""
    return getattr(said, "max_attempts", None) or 0


def _unit(run_id: str) -> float:
    """Return a number from 0 to 1 that is the same for a run whenever it is asked for."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8]) / 2**64


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
