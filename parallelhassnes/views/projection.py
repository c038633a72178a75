"""The fold of a batch's ledger: every attempted step as its last event left it.

    ledger.jsonl ──(tail)──▶ Fold ◀──▶ scoreboard.batch.json   (derived: may be deleted)

The cache says up to which byte of the ledger it speaks, and what the line before that hashes to, which of a chained ledger vouches for
all of it; so a later view reads only what came after. One that does not fit (another version, another ledger, not JSON) is ignored
and made anew from the whole ledger. A process that stays keeps what it has read in memory, for as long as the file is the one that it
was and the ledger goes on from there: then a look costs the lines that are new. Any reader may write it, at any time, by rename; the newest offset need not win, since a cache
that is behind only costs a longer tail.

Shape: ``{"schema_version": 6, "batch_id", "ledger_offset", "ledger_line", "stand_in", "attempts", "last_at", "canceled",
"approved", "carried", "reused", "added", "steps": {"job/step": [status, attempt, number, at, queue_key, retry_at, class, line, said, counting,
others, guessed]}, "unread": [["job/step", attempt]], "failures": {run_id: ["job/step", attempt, class, line, guessed]}, "last_ended":
{"job/step": run_id}, "origins": [[version, host, config_sha256]], "unread_origins": [["job/step", attempt]], "spent": […]}``; times are the ledger's.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import file_stamp, formatting, places
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.names import run_id_of
from parallelhassnes.plan import JobSpec
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line, facts
from parallelhassnes.steps.usage import NOTHING, UsageSum, total
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.evidence import ledger

CACHE = "scoreboard.batch.json"
VERSION = 6
MOST_KEPT = 50_000
"""Steps of the folds that a process keeps between looks."""
_MOST_BATCHES = 64
_UNMET = "needs_attention"
"""How a critic stands whose attempt succeeded and whose loop is over without it being satisfied."""
_WORTH_WRITING = 1 << 15
"""Bytes of tail below which re-reading it is cheaper than writing the cache again."""


class StepRow(NamedTuple):
    """One attempted step."""

    status: str
    """``running``, or how the newest attempt ended."""
    attempt: str
    number: int
    at: str
    """When the newest attempt started, or ended."""
    queue_key: str = ""
    retry_at: str | None = None
    """When the next attempt may start, where one is due."""
    failure_class: str | None = None
    line: str | None = None
    said: dict[str, Any] | None = None
    """What the report of the attempt that counts says (``trial``, ``used`` or ``verdict`` of ``steps.trial_data.ended_line``): of a trial the
    newest scored attempt, or where none is scored the newest, of other kinds the newest; None before one has ended."""
    counting: str = ""
    """Which attempt that is."""
    others: list[Any] | None = None
    """Of a trial what its other ended attempts have used, as ``UsageSum.stored``; None where there are none."""
    guessed: bool = False
    """The failure class is a guess."""

    @property
    def kept(self) -> tuple[dict[str, Any] | None, str, list[Any] | None]:
        """What another attempt of the step changes only once it has ended."""
        return self.said, self.counting, self.others

    @property
    def failure(self) -> str:
        """The failure's class and line; empty where there is none."""
        return formatting.failure(self.failure_class, self.line, self.guessed)

    @property
    def scored(self) -> bool:
        """Whether it is a trial with a score, be it of an attempt that another has followed."""
        return self.said is not None and self.said.get("result") == "scored"


def started(before: StepRow | None, attempt: str, number: int, at: str, queue_key: str) -> StepRow:
    """Return a step of which an attempt has started."""
    return StepRow("running", attempt, number, at, queue_key, None, None, None, *(before.kept if before else ()))


@dataclass
class Fold:
    """What the ledger of one batch amounts to."""

    batch_id: str
    offset: int = 0
    """Bytes of the ledger that are in here."""
    cached: int = -1
    """Bytes of the ledger that the cache on disk speaks for; -1 where there is none."""
    stand_in: bool = False
    """At least one attempt was answered by the stand-in."""
    attempts: int = 0
    """Attempts that ended."""
    last_at: str = ""
    """Time of the newest event of a step; empty before the first."""
    canceled: dict[str, bool] = field(default_factory=dict)
    """``job/step`` of steps that were canceled before they started; False where the job's own rule (``enough``) canceled them."""
    carried: dict[str, str] = field(default_factory=dict)
    """``job/step`` → the attempt that was taken over from an earlier batch."""
    reused: dict[str, str] = field(default_factory=dict)
    """``job/step/attempt`` of those of these that were not run because their content is the same → ``batch/job/step/attempt`` there."""
    added: dict[str, int] = field(default_factory=dict)
    """``job/file`` of each addition → steps in it. By file, since a crash may have its line written twice."""
    approved: list[str] = field(default_factory=list)
    """``job/step`` of steps that a person let through their gate."""
    steps: dict[str, StepRow] = field(default_factory=dict)
    unread: list[list[Any]] = field(default_factory=list)
    """``[job/step, attempt, status, paid]`` of ended attempts whose line, of an older version, says nothing of the report;
    ``paid`` where the attempt was not taken over from another batch."""
    failures: dict[str, list[Any]] = field(default_factory=dict)
    """run_id → ``[job/step, attempt, class, line, guessed]`` of each attempt that failed, in the order in which they ended."""
    last_ended: dict[str, str] = field(default_factory=dict)
    """Of the steps of ``failures``: ``job/step`` → run_id of the newest attempt that has ended."""
    origins: list[list[str]] = field(default_factory=list)
    """``[version of ParallelHassnes, host, config_sha256]`` under which attempts ran, each once."""
    unread_origins: list[list[str]] = field(default_factory=list)
    """``[job/step, attempt]`` whose line, of an older version, does not say that."""
    spent: UsageSum = NOTHING
    """By all ended attempts that this batch has paid for."""
    unsummed: list[UsageSum] = field(default_factory=list)
    """By attempts that are being taken in, and are not in ``spent`` yet."""
    tally: Counter[str] = field(default_factory=Counter)
    """Status → steps; those whose retry is due count as ``retry``."""

    def sum_up(self) -> None:
        """Add what was taken in to ``spent``."""
        self.spent = total((self.spent, *self.unsummed))
        self.unsummed.clear()

    def put(self, key: str, row: StepRow) -> None:
        """Set how a step stands."""
        before = self.steps.get(key)
        if before is not None:
            self.tally[_counted_as(before)] -= 1
        self.tally[_counted_as(row)] += 1
        self.steps[key] = row

    def copy(self) -> "Fold":
        """Return another with the same content, of which nothing is changed with this one."""
        own: dict[str, Any] = {
            name: value.copy() for name, value in vars(self).items() if isinstance(value, (dict, list))
        }
        return replace(self, **own)


def _counted_as(row: StepRow) -> str:
    return row.status if row.retry_at is None else "retry"


class _KeptFold(NamedTuple):
    """A fold in memory, which nobody changes, and what it goes with."""

    cache: FileStamp | None
    """The file beside the ledger, as it was."""
    line: str
    fold: Fold


_kept: dict[Path, _KeptFold] = {}
"""Folder of a batch → its fold, those that were looked at last."""
_keeping = threading.Lock()


def load(batch_dir: Path) -> Fold:
    """Return the fold as of now: what is kept, if it fits, and the ledger's tail."""
    kept = _from_memory(batch_dir)
    fold = kept or _from_cache(batch_dir) or Fold(batch_dir.name)
    began = fold.offset
    advance(fold, batch_dir)
    if kept is None or fold.offset > began:
        _remember(fold, batch_dir)
    return fold


def _from_memory(batch_dir: Path) -> Fold | None:
    kept = _kept.get(batch_dir)
    if (
        kept is None
        or kept.cache != file_stamp.seen(batch_dir / CACHE)
        or kept.line != _line_hash(batch_dir, kept.fold.offset)
    ):
        return None
    return kept.fold.copy()


def _remember(fold: Fold, batch_dir: Path) -> None:
    """Keep the fold for the next look of this process, and few enough of others."""
    line = _line_hash(batch_dir, fold.offset)
    with _keeping:
        _kept.pop(batch_dir, None)
        if line is not None and len(fold.steps) <= MOST_KEPT:
            _kept[batch_dir] = _KeptFold(file_stamp.seen(batch_dir / CACHE), line, fold.copy())
            while sum(len(each.fold.steps) for each in _kept.values()) > MOST_KEPT or len(_kept) > _MOST_BATCHES:
                del _kept[next(iter(_kept))]


def advance(fold: Fold, batch_dir: Path) -> list[dict[str, Any]]:
    """Take in what the ledger has got since; the events that were new."""
    new = []
    for offset, event in ledger.read(batch_dir, fold.offset):
        fold.offset = offset
        try:
            if _apply(fold, event):
                new.append(event)
        except (KeyError, TypeError, ValueError, AttributeError):  # one that no writer of ours has written
            continue
    fold.sum_up()
    return new


def save(fold: Fold, batch_dir: Path, *, force: bool = False) -> bool:
    """Write the cache where that is worth it; a store that cannot be written to is read all the same."""
    behind = fold.offset - max(fold.cached, 0)
    if not force and behind < max(_WORTH_WRITING, fold.offset // 20):
        return False
    document = {
        "schema_version": VERSION,
        "batch_id": fold.batch_id,
        "ledger_offset": fold.offset,
        "ledger_line": _line_hash(batch_dir, fold.offset),
        "stand_in": fold.stand_in,
        "attempts": fold.attempts,
        "last_at": fold.last_at,
        "canceled": fold.canceled,
        "approved": fold.approved,
        "carried": fold.carried,
        "reused": fold.reused,
        "added": fold.added,
        "steps": fold.steps,
        "unread": fold.unread,
        "failures": fold.failures,
        "last_ended": fold.last_ended,
        "origins": fold.origins,
        "unread_origins": fold.unread_origins,
        "spent": fold.spent.stored(),
    }
    try:
        atomic.write_kept(batch_dir / CACHE, document)
    except OSError:  # a reader with no right to write, a full disk, a batch being deleted
        return False
    fold.cached = fold.offset
    return True


def _from_cache(batch_dir: Path) -> Fold | None:
    try:
        document = atomic.read_kept(batch_dir / CACHE)
        if document.get("schema_version") != VERSION:
            return None
        offset = int(document["ledger_offset"])
        line = _line_hash(batch_dir, offset)
        if document["batch_id"] != batch_dir.name or line is None or document["ledger_line"] != line:
            return None
        fold = Fold(
            batch_id=batch_dir.name,
            offset=offset,
            cached=offset,
            stand_in=document["stand_in"],
            attempts=document["attempts"],
            last_at=document["last_at"],
            canceled=dict(document["canceled"]),
            approved=list(document["approved"]),
            carried=dict(document["carried"]),
            reused=dict(document["reused"]),
            added=dict(document["added"]),
            steps=dict(zip(document["steps"], map(StepRow._make, document["steps"].values()), strict=True)),
            unread=list(document["unread"]),
            failures=dict(document["failures"]),
            last_ended=dict(document["last_ended"]),
            origins=list(document["origins"]),
            unread_origins=list(document["unread_origins"]),
            spent=UsageSum.restored(document["spent"]),
        )
        fold.tally.update(map(_counted_as, fold.steps.values()))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return fold


def _line_hash(batch_dir: Path, offset: int) -> str | None:
    """Return what the last line of these bytes of the ledger hashes to; None where none ends there, which fits nothing."""
    try:
        return (ledger.line_hash(batch_dir, offset) or None) if offset else ""
    except OSError:
        return None


# --- events -------------------------------------------------------------------------------------------


def _apply(fold: Fold, event: dict[str, Any]) -> bool:
    """Take in one event; False where it says nothing new."""
    match event.get("event"):
        case "launched":
            return _launched(fold, f"{event['job_id']}/{event['step_id']}", event)
        case "ended":
            return _ended(fold, f"{event['job_id']}/{event['step_id']}", event)
        case "canceled":
            fold.canceled.update(dict.fromkeys(event["steps"], event.get("by") != "enough"))
            return True
        case "unmet":
            key = f"{event['job_id']}/{event['step_id']}"
            row = fold.steps.get(key)
            if row is not None and row.attempt == event["attempt"]:
                fold.put(key, row._replace(status=_UNMET, retry_at=None, line=event["line"]))
            return True
        case "carried":
            _carried(fold, f"{event['job_id']}/{event['step_id']}", event)
            return True
        case "added":
            fold.added[f"{event['job_id']}/{event['file']}"] = len(event["steps"])
            return True
        case "approved" | "rejected" as word:
            said = set(event["steps"])
            fold.approved = [key for key in fold.approved if key not in said]
            fold.canceled = {key: own for key, own in fold.canceled.items() if key not in said}
            if word == "approved":
                fold.approved += event["steps"]
            else:
                fold.canceled.update(dict.fromkeys(event["steps"], True))
            return True
        case "retry":
            _retry(fold, event)
            return True
        case "again":
            key = f"{event['job_id']}/{event['step_id']}"
            row = fold.steps.get(key)
            if row is not None and row.status != "running" and run_id_of(row.attempt) == event["run_id"]:
                fold.put(key, row._replace(retry_at=row.at))
            return True
    return False


def _launched(fold: Fold, key: str, event: dict[str, Any]) -> bool:
    _note_origin(fold, key, event)
    row = fold.steps.get(key)
    now = started(row, event["attempt"], event["number"], event["at"], event["queue_key"])
    # A view may have taken in a live attempt before its line was written.
    known = row is not None and row.number >= now.number
    if row is not None and known and (row.attempt != now.attempt or row.status != "running" or row == now):
        return False
    fold.stand_in = fold.stand_in or bool(event.get("stand_in"))
    fold.put(key, now)
    fold.last_at = event["at"]
    return True


def _carried(fold: Fold, key: str, event: dict[str, Any]) -> None:
    fold.carried[key] = event["attempt"]
    if event.get("reused"):
        fold.reused[f"{key}/{event['attempt']}"] = f"{event['source']}/{event['attempt']}"
    _note_origin(fold, key, event)
    if _ended(fold, key, event):
        fold.attempts -= 1


def _ended(fold: Fold, key: str, event: dict[str, Any]) -> bool:
    row = fold.steps.get(key)
    number = event["number"]
    failure = event.get("failure") or {}
    if event["event"] == "ended":
        _note_failure(fold, key, event, failure)
    if row is not None and (row.number > number or (row.number == number and row.status != "running")):
        return False
    unmet = event.get("unmet")
    now = StepRow(
        _UNMET if unmet else event["status"],
        event["attempt"],
        number,
        event.get("ended_at") or event["at"],
        row.queue_key if row else "",
        event.get("retry_at"),
        failure.get("failure_class"),
        unmet or failure.get("line"),
        *(row.kept if row else (None, "", None)),
        bool(failure.get("guessed")),
    )
    fold.put(key, now)
    paid = event["event"] == "ended"
    if not event.keys().isdisjoint(ended_line.SAID):
        _take(fold, key, event["attempt"], event, paid=paid)
    elif event.get("kind") not in ended_line.SILENT:
        fold.unread.append([key, event["attempt"], event["status"], paid])
    fold.attempts += 1
    fold.last_at = event["at"]
    return True


def _note_origin(fold: Fold, key: str, event: dict[str, Any]) -> None:
    if "harness_version" not in event:
        fold.unread_origins.append([key, event["attempt"]])
        return
    origin = [event["harness_version"], event["host"], event["config_sha256"]]
    if origin not in fold.origins:
        fold.origins.append(origin)


def _note_failure(fold: Fold, key: str, event: dict[str, Any], failure: dict[str, Any]) -> None:
    """Keep how the attempt failed, if it did; a crash can have its line written twice."""
    run_id = event["run_id"]
    if failure and event["status"] not in ("succeeded", "canceled"):
        said = [key, event["attempt"], failure["failure_class"], failure["line"], bool(failure.get("guessed"))]
        fold.failures[run_id] = said
        fold.last_ended[key] = run_id
    elif key in fold.last_ended:
        fold.last_ended[key] = run_id


def _retry(fold: Fold, event: dict[str, Any]) -> None:
    """Everything under the target may start again; of the ended steps those that the line names."""
    target = event["target"].partition("/")[2]
    if event.get("only"):  # some ended steps were picked out: what never started stays canceled
        again = set(event["steps"])
        fold.canceled = {key: said for key, said in fold.canceled.items() if key not in again}
    else:
        fold.canceled = {
            key: said
            for key, said in fold.canceled.items()
            if target and key != target and not key.startswith(f"{target}/")
        }
    for key in event["steps"]:
        row = fold.steps.get(key)
        if row is not None and row.status != "running":
            fold.put(key, row._replace(retry_at=row.at))


# --- what the reports say -----------------------------------------------------------------------------


def take_in(fold: Fold, batch_dir: Path) -> int:
    """Read the reports that lines of older versions say nothing of; how many."""
    jobs: dict[str, JobSpec] = {}
    for key, attempt, status, paid in fold.unread:
        job_id, step_id = places.step_key(key)
        try:
            if job_id not in jobs:
                jobs[job_id] = batches.read_job(batch_dir / job_id)
            step = jobs[job_id].step(step_id)
        except (atomic.CorruptFile, OSError, KeyError):
            continue
        folder = batch_dir / places.step_key(key).attempt(attempt)
        report = safe_read.read_object(folder / attempts.FINAL) or {}
        _take(fold, key, attempt, ended_line.line(step, status, report), paid=paid)
    fold.sum_up()
    count = len(fold.unread)
    fold.unread.clear()
    return count


def take_origins(fold: Fold, batch_dir: Path) -> int:
    """As ``take_in``, of who ran the attempts whose lines of older versions do not say that."""
    for key, attempt in fold.unread_origins:
        try:
            meta = attempts.read_meta(batch_dir / places.step_key(key).attempt(attempt))
        except (atomic.CorruptFile, OSError):
            continue
        origin = [meta.harness_version, meta.host, meta.config_sha256]
        if origin not in fold.origins:
            fold.origins.append(origin)
    count = len(fold.unread_origins)
    fold.unread_origins.clear()
    return count


def _take(fold: Fold, key: str, attempt: str, line: dict[str, Any], *, paid: bool) -> None:
    """Count what one attempt's report says; ``line`` is that of its end, or what would stand there."""
    said = line.get("trial") or line.get("used") or line.get("verdict")
    if paid:
        fold.unsummed.append(ended_line.spent(line))
    row = fold.steps.get(key)
    if said is None or row is None:
        return
    is_newer = (said.get("result") == "scored", attempt) >= (row.scored, row.counting)
    other = row.said if is_newer else said
    others = row.others
    if line["kind"] == "trial" and other is not None:
        known = UsageSum.restored(others) if others else NOTHING
        others = (known + facts.spent_by(facts.expanded(other))).stored()
    if is_newer:
        row = row._replace(said=said, counting=attempt)
    fold.steps[key] = row._replace(others=others)
