"""Pausing a queue key for a credential that its provider turns down for a reason that all others with it would meet, too.

    closed ── an attempt ends as auth, quota, unknown_model ──▶ open ── probe_at passed: one attempt ──▶ half-open
    half-open ── it ends so again ──▶ open, the interval doubled;  ── it says nothing ──▶ open, the same interval
    half-open ── it ends in any other way ──▶ closed;   open, half-open ── an operator's ``resume`` ──▶ closed

Pure functions. Attempts that were live when the key got paused end as they do and change nothing.
"""

from parallelhassnes.steps.failures import INFRASTRUCTURE_CLASSES
from parallelhassnes.store.queue.queue_keys import Breaker
from parallelhassnes.store.records import Credential

MOST_SEC = 4 * 3600.0
"""Between two probes at most."""
SAYS_NOTHING = INFRASTRUCTURE_CLASSES | {"canceled", "task_definition"}
"""Ends that a probe can have without having reached its provider."""


def after_failure(
    known: Breaker | None,
    *,
    failure_class: str,
    line: str,
    evidence: str,
    attempt: str,
    run_id: str,
    now: float,
    probe_sec: float,
    credential: Credential = Credential(),
) -> Breaker:
    """Return an attempt ended in a way that pauses its key for its credential."""
    if known is not None and known.probe != run_id:
        return known
    interval = probe_sec if known is None else min(known.interval_sec * 2, max(MOST_SEC, probe_sec))
    return Breaker(
        failure_class=failure_class,
        line=line,
        evidence=evidence,
        attempt=attempt,
        at=now,
        interval_sec=interval,
        probe_at=now + interval,
        credential=credential,
        batches=known.batches if known is not None else (),
    )


def after_other_end(known: Breaker | None, run_id: str, failure_class: str | None, now: float) -> Breaker | None:
    """Return an attempt ended in another way: a probe that reached its provider opens the key again."""
    if known is None or known.probe != run_id:
        return known
    if failure_class in SAYS_NOTHING:
        return known.model_copy(update={"probe": None, "probe_at": now + known.interval_sec})
    return None


def may_probe(known: Breaker, now: float) -> bool:
    """Tell whether one attempt may start on the paused key."""
    return known.probe is None and now >= known.probe_at


def start_probe(known: Breaker, run_id: str, batch_id: str = "") -> Breaker:
    return known.model_copy(update={"probe": run_id, "probe_batch": batch_id})
