"""``gc``: removing files of attempts, and packing batches, by the rules of ``[retention]``.

    rules, ledgers ──plan──▶ attempts that go ──ingest.lock, tick.lock──▶ tombstones ──no lock──▶ files ──▶ batches that are packed

What goes of an attempt and what stays, and what a tombstone says, stands in ``store.evidence.removals``. Only a batch that might be packed is touched
(``packs.why_not``: nothing of it runs, waits or is held, and all is sealed as its ledger says), and none of its attempts that another batch has taken over or
judges. Both are asked again under the locks, which are held for the tombstones alone, so no start waits for files to go. A packed batch is
unpacked for it, and packed again; its ledger says that it is for now, so the next ``gc`` goes on after a crash.
"""

import contextlib
import errno
import fnmatch
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from parallelhassnes import packed
from parallelhassnes.actions import packs
from parallelhassnes.config import RetentionConfig, RetentionRule
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, attempts, batches, decider, earlier_batches, locks, members
from parallelhassnes.store.evidence import ledger, merkle, removals, seal
from parallelhassnes.store.evidence.removals import Tombstone
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import parse_time
from parallelhassnes.views import outcome

_DAY_SEC = 86_400
_REGRADE = b'{"regrade":'
"""How the table of a regrade begins."""


class RuleUse(BaseModel):
    """What one rule comes to."""

    rule: str
    says: str
    """The rule in words."""
    batches: int = 0
    attempts: int = 0
    files: int = 0
    bytes: int = 0
    """Of the files, as their seals say."""


class Collected(BaseModel):
    """What ``gc`` has done, or would do."""

    ok: bool = True
    dry_run: bool
    rules: list[RuleUse] = []
    """Those that say of some attempts that they go, in the order of the file."""
    finished: int = 0
    """Attempts whose removal was cut off, and is completed."""
    packed: list[str] = []
    """Batches."""
    kept: list[str] = []
    """A line per batch of which a rule's attempts are kept, with the reason."""
    failed: list[str] = []
    """A line for each thing that could not be done."""

    @property
    def is_nothing(self) -> bool:
        return not (self.rules or self.finished or self.packed)


class _Found(NamedTuple):
    """An attempt that a rule would have go."""

    rule: RetentionRule
    tombstone: Tombstone


class _Uses(NamedTuple):
    """What batches have of others."""

    taken: dict[str, str]
    """``batch/place`` of each attempt that other batches have taken over or judge → one of these batches."""
    unknown: str
    """Why nothing may go, where a batch does not say what it has of others; empty where all do."""


@dataclass
class RemovalPlan:
    """What is to be done, as far as that is known before the locks are held."""

    known: list[str]
    """Batches that were looked at for what they have taken over."""
    goes: dict[str, dict[str, _Found]] = field(default_factory=dict)
    """Batch → place of each attempt that goes."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Batch → bytes of its ledger when it was looked at."""
    half: dict[str, list[str]] = field(default_factory=dict)
    """Batch → places of the attempts that have a tombstone, and files still."""
    repack: list[str] = field(default_factory=list)
    """Batches that an earlier ``gc`` has unpacked, and not packed again, and those whose ``pack`` was cut off."""
    said: Collected = field(default_factory=lambda: Collected(dry_run=True))


def plan(ctx: Context) -> RemovalPlan:
    """Find what the rules say.

    Raises:
        UserError: there are no rules.
    """
    rules = ctx.config.retention
    if not rules.rules and rules.pack_after_days is None:
        raise UserError(
            "there are no rules for gc", fix="write [retention] into parallelhassnes.toml, as docs/files.md has it"
        )
    made, now = RemovalPlan(ctx.layout.batch_ids()), time.time()
    uses = _uses(ctx.layout, made.known)
    for batch_id in made.known:
        with members.apart(ctx.layout.batch(batch_id)), contextlib.suppress(earlier_batches.EarlierBatch):
            _look(ctx, batch_id, rules, uses, made, now)
    for rule in rules.rules:
        found = {
            batch_id: [each for each in all_.values() if each.rule is rule] for batch_id, all_ in made.goes.items()
        }
        stones = [each.tombstone for every in found.values() for each in every]
        if stones:
            made.said.rules.append(
                RuleUse(
                    rule=rule.name,
                    says=rule.says,
                    batches=sum(map(bool, found.values())),
                    attempts=len(stones),
                    files=sum(each.files for each in stones),
                    bytes=sum(each.bytes for each in stones),
                )
            )
    made.said.finished = sum(map(len, made.half.values()))
    ended = packs.finished(ctx, rules.pack_after_days) if rules.pack_after_days is not None else []
    made.said.packed = list(dict.fromkeys([*made.repack, *ended]))
    return made


def carry_out(ctx: Context, made: RemovalPlan) -> Collected:
    """Do what was found; what has changed since is left to the next time.

    Raises:
        UserError: another ``gc`` is at it, or there is no space to say what is removed.
        NotHere: another host decides.
    """
    done = made.said.model_copy(deep=True, update={"dry_run": False})
    lock = locks.hold(ctx.layout.gc_lock)
    if lock is None:
        raise UserError("another gc is at work on this store", fix="wait until it has ended")
    try:
        for batch_id in dict.fromkeys([*made.half, *made.goes]):
            with members.apart(
                ctx.layout.batch(batch_id), lambda error: done.failed.append(atomic.describe_damage(error))
            ):
                _of_batch(ctx, batch_id, made, done)
        days = ctx.config.retention.pack_after_days
        again = [each for each in made.repack if _is_to_be_packed_again(ctx, each, done)]
        due = [*again, *(packs.finished(ctx, days) if days is not None else [])]
        done.packed = []
        for batch_id in dict.fromkeys(due):
            with _told(done, batch_id):
                packs.pack(ctx, batch_id)
                done.packed.append(batch_id)
    finally:
        locks.release(lock)
    done.ok = not done.failed
    return done


# --- finding ----------------------------------------------------------------------------------------------------


def _look(ctx: Context, batch_id: str, rules: RetentionConfig, uses: _Uses, made: RemovalPlan, now: float) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    size, buried = ledger.size(batch_dir), removals.of(batch_dir)
    half = [place for place in buried if removals.left_of(batch_dir / place)]
    if half:
        made.half[batch_id] = half
    if _is_to_be_packed_again(ctx, batch_id, made.said):
        made.repack.append(batch_id)
    found, kept = _fitting(batch_dir, rules, buried, uses.taken, now)
    why = (packs.why_not(ctx, batch_id) or uses.unknown) if found else ""
    if why and (line := f"{batch_id}: {why}") not in made.said.kept:
        made.said.kept.append(line)
    elif found and not why:
        made.goes[batch_id], made.sizes[batch_id] = found, size
    for reason, count in kept.items():
        made.said.kept.append(f"{batch_id}: {count} of its attempts {reason}")


def _is_to_be_packed_again(ctx: Context, batch_id: str, said: Collected) -> bool:
    """Tell whether a ``pack``, or a ``gc`` that has unpacked the batch, is to go on; one that runs again or is held waits, and is told as kept."""
    batch_dir = ctx.layout.batch(batch_id)
    if not packs.is_cut_off(batch_dir):
        return False
    why = "" if packed.of(batch_dir) is not None else packs.why_not(ctx, batch_id)
    if why and (line := f"{batch_id}: {why}") not in said.kept:
        said.kept.append(line)
    return not why


def _fitting(
    batch_dir: Path, rules: RetentionConfig, buried: Mapping[str, Tombstone], taken: Mapping[str, str], now: float
) -> tuple[dict[str, _Found], dict[str, int]]:
    """Return the attempts that go, by their places; and why others that would go are kept, with how many."""
    found: dict[str, _Found] = {}
    kept: dict[str, int] = {}
    experiment = batches.read_batch(batch_dir).experiment if rules.rules else ""
    by_outcome = any(rule.outcomes for rule in rules.rules)
    for place, line in _ends(batch_dir):
        if place in buried:
            continue
        days = (now - parse_time(str(line["at"]))) / _DAY_SEC
        came_to = _came_to(batch_dir, place, line) if by_outcome else ""
        weighed: Tombstone | None = None
        for rule in rules.rules:
            if not _speaks_of(rule, came_to, experiment):
                continue
            if rule.keep and not rule.min_mb:
                break
            weighed = weighed or _weigh(batch_dir, place, line)
            if weighed is None:
                kept["have another seal than the ledger names"] = (
                    kept.get("have another seal than the ledger names", 0) + 1
                )
                break
            if weighed.bytes < rule.min_mb * 1e6:
                continue
            user = taken.get(f"{batch_dir.name}/{place}")
            if rule.after_days is None or days < rule.after_days or not weighed.files:
                pass
            elif user is not None:
                reason = f"are taken over or judged by {user}"
                kept[reason] = kept.get(reason, 0) + 1
            else:
                found[place] = _Found(rule, weighed)
            break
    return found, kept


def _ends(batch_dir: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the place of each sealed attempt, and the line of its end."""
    ends: dict[str, Mapping[str, Any]] = {}
    for _, line in ledger.read(batch_dir):
        if (sealed := ledger.sealed_by(line)) is not None:
            ends[sealed[0]] = line
    yield from ends.items()


def _place(line: Mapping[str, Any]) -> str:
    return f"{line['job_id']}/{packed.STEPS}/{line['step_id']}/{packed.ATTEMPTS}/{line['attempt']}"


def _speaks_of(rule: RetentionRule, came_to: str, experiment: str) -> bool:
    if rule.experiments and not any(_fits(experiment, each) for each in rule.experiments):
        return False
    return not rule.outcomes or came_to in rule.outcomes


def _came_to(batch_dir: Path, place: str, line: Mapping[str, Any]) -> str:
    """Return what an attempt came to, by the line of its end; what one of an older version lacks, by its report as every view does."""
    kind, status = line.get("kind"), str(line["status"])
    if kind is None or (kind == "trial" and "trial" not in line):
        step = batches.read_job(batch_dir / str(line["job_id"])).step(str(line["step_id"]))
        report = safe_read.read_object(batch_dir / place / attempts.FINAL) or {}
        line = ended_line.line(step, status, report)
    return outcome.standing(str(line["kind"]), status, line.get("trial"))


def _fits(label: str, pattern: str) -> bool:
    """Tell whether a label has a pattern's form; ``*`` and ``?`` stand for others, a bracket for itself, as in ``run[1]``."""
    return fnmatch.fnmatchcase(label, pattern.replace("[", "[[]"))


def _weigh(batch_dir: Path, place: str, line: Mapping[str, Any]) -> Tombstone | None:
    """Return what would be said of an attempt, by its seal; None where that is not the one that the ledger names."""
    try:
        told = seal.recorded(batch_dir / place)
        files: dict[str, Any] = atomic.read_json(batch_dir / place / attempts.SEAL)["files"]
    except (OSError, atomic.CorruptFile, KeyError, TypeError):
        return None
    if told["seal_sha256"] != line["seal_sha256"] or told["merkle_root"] != merkle.root(files):
        return None
    return removals.of_seal(told["seal_sha256"], told["merkle_root"], files)


def _uses(layout: Layout, batch_ids: list[str]) -> _Uses:
    found: dict[str, str] = {}
    mute: list[str] = []
    for batch_id in batch_ids:
        batch_dir = layout.batch(batch_id)

        def note(error: Exception, batch_id: str = batch_id) -> None:
            mute.append(batch_id)
            members.pass_over(error)

        with members.apart(batch_dir, note):
            buried = removals.of(batch_dir)
            for _, line in ledger.read(batch_dir):
                if line.get("event") == "carried" and "source" in line and _place(line) not in buried:
                    found[_in_store(f"{line['source']}/{line['attempt']}")] = batch_id
            found.update(dict.fromkeys(map(_in_store, _judged(batch_dir)), batch_id))
    unknown = f"may be taken over or judged by {mute[0]}, which cannot be read" if mute else ""
    return _Uses(found, unknown)


def _judged(batch_dir: Path) -> Iterator[str]:
    """Yield ``batch/job/step/attempt`` of what a regrade judges."""
    try:
        data = atomic.read_bytes(batch_dir / "launch_table.json")
    except FileNotFoundError:
        return
    if data.startswith(_REGRADE):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for trial in json.loads(data)["trials"]:
                yield str(trial["regrade"]["attempt"])


def _in_store(text: str) -> str:
    """Turn ``batch/job/step/attempt`` into ``batch/place``."""
    batch_id, job_id, step_id, attempt = text.split("/")
    return f"{batch_id}/{job_id}/{packed.STEPS}/{step_id}/{packed.ATTEMPTS}/{attempt}"


# --- doing ------------------------------------------------------------------------------------------------------


def _of_batch(ctx: Context, batch_id: str, made: RemovalPlan, done: Collected) -> None:
    batch_dir, found = ctx.layout.batch(batch_id), made.goes.get(batch_id, {})
    places = list(made.half.get(batch_id, ()))
    if found and packs.is_packed(batch_dir):
        with _told(done, batch_id):
            packs.unpack(ctx, batch_id, for_now=True)
            made.sizes[batch_id] = ledger.size(batch_dir)
            made.repack.append(batch_id)
    if found and not packs.is_packed(batch_dir):
        places += _bury(ctx, batch_id, made, done)
    for place in places:
        folder = batch_dir / place
        with members.apart(folder, lambda error: done.failed.append(atomic.describe_damage(error))):
            removals.strip(folder, removals.left_of(folder))


def _bury(ctx: Context, batch_id: str, made: RemovalPlan, done: Collected) -> list[str]:
    """Write the tombstones of a batch, if all is as it was; the places of its attempts."""
    layout, batch_dir, found = ctx.layout, ctx.layout.batch(batch_id), made.goes[batch_id]
    with locks.held(layout.ingest_lock), decider.deciding(layout):
        why = packs.why_not(ctx, batch_id)
        if ledger.size(batch_dir) != made.sizes[batch_id]:
            why = "was changed meanwhile"
        elif not why and _is_named_by_a_table(layout, batch_id):
            why = "is named by a table that waits to be taken in"
        since = _uses(layout, [each for each in layout.batch_ids() if each not in made.known])
        why = why or since.unknown
        goes = {place: each for place, each in found.items() if f"{batch_id}/{place}" not in since.taken}
        if why or not goes:
            done.kept.append(f"{batch_id}: {why or 'its attempts were taken over meanwhile'}")
            return []
        try:
            for rule in dict.fromkeys(each.rule for each in goes.values()):
                stones = {place: each.tombstone for place, each in goes.items() if each.rule is rule}
                removals.bury(batch_dir, rule.name, rule.says, stones)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{batch_dir / ledger.LEDGER}: there is no space for the line that says what is removed, so nothing more was",
                fix="free some space elsewhere, then run gc again",
            ) from None
    return list(goes)


def _is_named_by_a_table(layout: Layout, batch_id: str) -> bool:
    """Tell whether a table that is not a batch yet speaks of the batch, as those of rerun, regrade and reuse do."""
    name = batch_id.encode()
    for entry in members.names(layout.incoming):
        try:
            if name in atomic.read_bytes(layout.incoming / entry):
                return True
        except (IsADirectoryError, FileNotFoundError):
            continue
    return False


@contextlib.contextmanager
def _told(done: Collected, batch_id: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not atomic.is_damage(error):
            raise
        done.failed.append(str(error) if batch_id in str(error) else f"{batch_id}: {error}")
