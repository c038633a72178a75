"""From the end of the worker to the seal; done by the supervisor, or for a dead one by a repair.

    what the worker did to our files undone ─▶ sweep, conclude ─▶ publish/ ─▶ final.json, final.txt ─▶ state.json (terminal) ─▶ tmp/ removed
    ─▶ secrets taken out of every file ─▶ seal.json

Whoever finds a terminal ``state.json`` without a seal has only what comes after it to do; anything earlier
is done again from what the worker left.

Nothing here waits for the disk before the seal, which puts every file there before it names it. A power
cut can so keep a terminal ``state.json`` and take the report; then the report is made again.
"""

import dataclasses
import errno
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from parallelhassnes import walk
from parallelhassnes.config import Bounds, RetryConfig
from parallelhassnes.execute import logs, own_files
from parallelhassnes.execute.clean import Patience, clean
from parallelhassnes.execute.redact import Redactor
from parallelhassnes.steps import final_report, safe_read
from parallelhassnes.steps.step_types import Failure, Kind, Outcome, StepAttempt, WorkerEnd
from parallelhassnes.store import atomic, attempts, space
from parallelhassnes.store.evidence.seal import seal
from parallelhassnes.store.records import AttemptState, FailureRecord, now_text

MAX_EVIDENCE = 2000
"""Characters of a failure's evidence that are kept."""
SPACE_WAIT_SEC = 60.0
_REMOVING_SEC = 2.0
"""Time after which what is left of ``tmp/`` is left to the next tick."""


def finish(
    attempt: StepAttempt,
    kind: Kind,
    end: WorkerEnd,
    state: AttemptState,
    secrets: Mapping[str, str] = MappingProxyType({}),
    log_ceiling: int = logs.CEILING,
    bounds: Bounds = Bounds(),
    meta: bytes | None = None,
    retry: Callable[[], RetryConfig] = RetryConfig,
    is_fenced: Callable[[], bool] = lambda: False,
    lacking: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the attempt's end and seal it; every process of the attempt but ours has ended.

    On a full disk it tries again for a minute.

    Args:
        secrets: name → value of what the attempt was given and nobody is to read in its files.
        log_ceiling: bytes of each log beyond which its middle is cut out.
        bounds: what is kept of the attempt, and how long this may take.
        meta: the content of ``meta.json`` before the worker began, where it is known.
        retry: asked when the end is written: what the configuration says of retries, by which this end is judged.
        is_fenced: asked before each part of it: whether another host has given the attempt up.
        lacking: name → why its value cannot be looked for here; the seal says so.

    Raises:
        Fenced: it has; what was written by then counts for nothing.
        OSError: there is still no space; the attempt has no seal, and a repair goes on from what there is.
    """
    redactor = Redactor(secrets)
    patience = Patience(bounds, lambda: attempts.is_asked_to_end(attempt.dir, attempt.run_id))
    deadline = time.monotonic() + SPACE_WAIT_SEC
    was_full = space.is_exhausted(attempt.dir)
    while True:
        try:
            _check(is_fenced)
            own_files.take_over_from_worker(attempt.dir, meta)
            if not (state.terminal and _has_report(attempt)):
                state = _write_end(attempt, kind, end, state, retry, was_full=was_full)
            _remove_tmp(attempt.dir / "tmp")
            logs.trim(attempt.dir, log_ceiling)
            _close_log()
            cleaned = clean(attempt.dir, redactor, bounds, patience)
            _check(is_fenced)
            seal(attempt.dir, cleaned.redacted, cleaned.left_out, {**redactor.unfit, **lacking}, patience.check)
        except OSError as error:
            if not space.is_full(error) or time.monotonic() > deadline:
                raise
            was_full = True
            _remove_tmp(attempt.dir / "tmp")
            time.sleep(0.2)
        else:
            return


def _check(is_fenced: Callable[[], bool]) -> None:
    if attempts.wait_until_told(is_fenced):
        raise attempts.Fenced


def _write_end(
    attempt: StepAttempt,
    kind: Kind,
    end: WorkerEnd,
    state: AttemptState,
    retry: Callable[[], RetryConfig],
    *,
    was_full: bool,
) -> AttemptState:
    outcome = _blame_the_disk(attempt, _conclude(attempt, kind, end, state.stuck_since), was_full=was_full)
    write_outcome(attempt, outcome)
    state = state.model_copy(
        update={
            "status": outcome.status,
            "ended_at": now_text(),
            "exit_code": end.exit_code,
            "failure": failure_of(outcome),
            "retry": retry() if attempt.step.retry.open else None,
            "stuck_since": None,
            "live": None,
        }
    )
    attempts.write_state(attempt.dir, state)
    return state


def _blame_the_disk(attempt: StepAttempt, outcome: Outcome, *, was_full: bool) -> Outcome:
    """Return the outcome, as a failure of the infrastructure where the disk was full."""
    if outcome.status != "failed" or outcome.failure is None:
        return outcome
    said = safe_read.read_bytes(attempt.dir / "stderr.log", 65_536, end=True) or b""
    said += outcome.failure.line.encode("utf-8", "replace")
    said_so = any(os.strerror(number).encode() in said for number in (errno.ENOSPC, errno.EDQUOT))
    if not was_full and not said_so:
        return outcome
    line = f"no space left on the disk: {outcome.failure.line}"
    return dataclasses.replace(outcome, failure=Failure("infrastructure", line))


def _has_report(attempt: StepAttempt) -> bool:
    try:
        return bool(atomic.read_json_or_none(attempt.dir / attempts.FINAL))
    except atomic.CorruptFile:
        return False


def failure_of(outcome: Outcome) -> FailureRecord | None:
    """Return why the attempt did not succeed, as files keep it."""
    if outcome.failure is None:
        return None
    line = " ".join(outcome.failure.line.split())[:500]
    evidence = safe_read.text(outcome.failure.evidence, MAX_EVIDENCE) or None
    return FailureRecord(
        failure_class=outcome.failure.failure_class,
        line=line,
        evidence=evidence,
        retry_after_sec=_retry_after_sec(outcome.failure.evidence),
        guessed=outcome.failure.guessed or None,
    )


def _retry_after_sec(evidence: str) -> float | None:
    if not evidence:
        return None
    from parallelhassnes.steps import failure_evidence  # its many expressions are compiled where something failed

    return failure_evidence.retry_after_sec(evidence)


def _conclude(attempt: StepAttempt, kind: Kind, end: WorkerEnd, stuck_since: str | None) -> Outcome:
    """Tell what the attempt came to; one that was stopped from outside and left something to salvage is what that says."""
    if end.reason not in ("stuck", "job_time_limit"):
        return _ask_the_kind(attempt, kind, end)
    outcome = _ask_the_kind(attempt, kind, WorkerEnd(end.exit_code, "lost"))
    if outcome.status != "lost":
        return outcome
    failure = Failure("job_time_limit", "ended by the time limit of its cluster's job")
    if end.reason == "stuck":
        failure = Failure("infrastructure", f"stuck: nothing of it had moved since {stuck_since}")
    return replace(outcome, status="failed", summary=f"The attempt was {failure.line}.", failure=failure)


def sweep(attempt: StepAttempt, kind: Kind) -> None:
    """Remove what an attempt has outside its folder, where there is no folder any more to write its end into."""
    for line in kind.sweep(attempt):
        logs.say(f"removed {line}")


def _ask_the_kind(attempt: StepAttempt, kind: Kind, end: WorkerEnd) -> Outcome:
    try:
        if end.exit_code != 0:
            sweep(attempt, kind)
        return kind.conclude(attempt, end)
    except Exception as error:
        if isinstance(error, OSError) and space.is_full(error):
            raise
        logs.say(traceback.format_exc())
        line = f"{type(error).__name__}: {error}; see supervisor.log"
        return Outcome("failed", f"The harness failed to read this attempt. {line}", Failure("internal", line))


def write_outcome(attempt: StepAttempt, outcome: Outcome) -> None:
    """Write what an attempt publishes, and its report."""
    if outcome.publish:
        folder = attempt.dir / attempts.PUBLISH
        folder.mkdir(exist_ok=True)
        for name, document in outcome.publish.items():
            atomic.write_json(folder / name, document, durable=False)
    atomic.write_json(f"{attempt.dir}/{attempts.FINAL}", final_report.build(attempt, outcome), durable=False)
    atomic.write_text(f"{attempt.dir}/{attempts.FINAL_TEXT}", outcome.summary.rstrip() + "\n", durable=False)


def _remove_tmp(folder: Path) -> None:
    try:
        above = walk.open_folder(folder.parent)
    except OSError as error:
        logs.say(f"could not remove {folder}: {error.strerror}")
        return
    try:
        if os.path.lexists(folder):
            walk.put_away(above, folder.name, atomic.to_be_swept(), _REMOVING_SEC)
    except OSError as error:
        logs.say(f"could not remove {folder}: {error.strerror}")
    finally:
        os.close(above)


def _close_log() -> None:
    """Let go of supervisor.log: the seal is about to state its size."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
