"""``gc``: what the rules of ``[retention]`` say; ``actions/stored/removing.py`` does it.

What goes of an attempt and what stays, and what a tombstone says, stands in ``store.evidence.removals``. Only a batch that might be packed is touched
(``packs.why_not``: nothing of it runs, waits or is held, and all is sealed as its ledger says), and none of its attempts that another batch has taken over or
judges.

Of a batch in which nothing is to be done a note is left (``retention_notes``), so a ``gc`` costs what has changed or is due since the one before.
"""

import contextlib
import fnmatch
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from parallelhassnes import packed, places
from parallelhassnes.actions import packs
from parallelhassnes.actions.stored import retention_notes
from parallelhassnes.actions.stored.archived import AskedArchive
from parallelhassnes.actions.stored.retention_notes import BatchNote
from parallelhassnes.config import RetentionConfig, RetentionRule
from parallelhassnes.errors import UserError
from parallelhassnes.plan import BatchMeta
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, attempts, batches, earlier_batches, members
from parallelhassnes.store.archives.object_store import ObjectStore
from parallelhassnes.store.evidence import ledger, merkle, removals
from parallelhassnes.store.evidence.removals import Tombstone
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import parse_time
from parallelhassnes.views import outcome

_DAY_SEC = 86_400
_CARRIED = '"carried"'
"""Stands in every line of what a batch has taken over."""


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
    archive: str = ""
    """Address of the archive in which each attempt is read and proved before; empty where the rule asks for none."""


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


class Removable(NamedTuple):
    """An attempt that a rule would have go."""

    rule: RetentionRule
    tombstone: Tombstone


@dataclass
class Uses:
    """What batches have of others."""

    taken: dict[str, str] = field(default_factory=dict)
    """``batch/place`` of each attempt that other batches have taken over or judge → one of these batches."""
    mute: list[str] = field(default_factory=list)
    """Batches that do not say what they have of others, as they cannot be read."""

    @property
    def unknown(self) -> str:
        """Why nothing may go; empty where all batches say what they have of others."""
        if not self.mute:
            return ""
        one = self.mute[0]
        more = f", and by {len(self.mute) - 1} more," if len(self.mute) > 1 else ","
        them = "them" if len(self.mute) > 1 else "it"
        return f"may be taken over or judged by {one}{more} which cannot be read; mend {them} as `parallelhassnes doctor` says"


@dataclass
class _Weighed:
    """What a whole look at a batch has found."""

    size: int
    """Bytes of its ledger."""
    found: dict[str, Removable] = field(default_factory=dict)
    """Place of each attempt that a rule would have go."""
    kept: Counter[str] = field(default_factory=Counter)
    """Why others that would go are kept → how many."""
    due: float | None = None
    """When a rule will have the next one go, in seconds since the epoch; None: never."""
    is_archive_asked: bool = False
    """What goes depends on an archive, of which no stamp of the batch tells."""

    def will_be(self, due: float) -> None:
        """Note when an attempt will be due that is not yet."""
        self.due = due if self.due is None else min(self.due, due)


@dataclass
class RemovalPlan:
    """What is to be done, as far as that is known before the locks are held."""

    known: list[str]
    """Batches that were looked at for what they have taken over."""
    rules: tuple[RetentionRule, ...]
    archive: AskedArchive
    pack_after_days: float | None
    goes: dict[str, dict[str, Removable]] = field(default_factory=dict)
    """Batch → place of each attempt that goes."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Batch → bytes of its ledger when it was looked at."""
    half: dict[str, list[str]] = field(default_factory=dict)
    """Batch → places of the attempts that have a tombstone, and files still."""
    repack: list[str] = field(default_factory=list)
    """Batches that an earlier ``gc`` has unpacked, and not packed again, and those whose ``pack`` was cut off."""
    ended: list[str] = field(default_factory=list)
    """Batches that ended so long ago that they are to be packed."""
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
    made = RemovalPlan(ctx.layout.batch_ids(), rules.rules, AskedArchive(ctx), rules.pack_after_days)
    now = time.time()
    notes = _find(ctx, made, made.known, now)
    retention_notes.leave(ctx.layout, rules, notes)
    if (days := made.pack_after_days) is not None:
        young = {each for each, note in notes.items() if note.last_at is None or now - note.last_at < days * _DAY_SEC}
        made.ended = packs.finished(ctx, days, [each for each in made.known if each not in young])
    made.said.packed = list(dict.fromkeys([*made.repack, *made.ended]))
    return made


def plan_of_archived(ctx: Context, batch_id: str, rule: RetentionRule, store: ObjectStore) -> RemovalPlan:
    """Find what goes of one batch by one rule, because an archive has it."""
    made = RemovalPlan(ctx.layout.batch_ids(), (rule,), AskedArchive(ctx, store), None)
    _find(ctx, made, [batch_id], time.time())
    return made


def _find(ctx: Context, made: RemovalPlan, batch_ids: Collection[str], now: float) -> dict[str, BatchNote]:
    """Find what goes of some batches; the notes of those in which nothing is to be done."""
    asked = RetentionConfig(pack_after_days=made.pack_after_days, rules=made.rules)
    known = retention_notes.read(ctx.layout, asked)
    notes: dict[str, BatchNote] = {}
    uses, looks = Uses(), dict[str, _Weighed]()
    for batch_id in made.known:
        note = known.get(batch_id)
        with _apart(ctx.layout, batch_id, uses):
            fits = note is not None and note.fits(ctx.layout.batch(batch_id))
            if note is not None and fits and not (batch_id in batch_ids and note.is_due(now)):
                uses.taken.update(dict.fromkeys(note.taken, batch_id))
            elif batch_id in batch_ids:
                note = _look(ctx, batch_id, uses, made, looks, now)
            else:
                _add_uses(ctx.layout, batch_id, uses)
            if note is not None:
                notes[batch_id] = note
    for batch_id, look in looks.items():
        with members.apart(ctx.layout.batch(batch_id)):
            _decide(ctx, batch_id, look, uses, made)
    made.said.rules = told(made, made.goes)
    made.said.finished = sum(map(len, made.half.values()))
    made.said.failed = list(made.archive.troubles)
    made.said.ok = not made.said.failed
    return notes


def told(made: RemovalPlan, goes: Mapping[str, Mapping[str, Removable]]) -> list[RuleUse]:
    """Tell what each rule comes to.

    Args:
        goes: batch → place of each attempt that goes.
    """
    uses: list[RuleUse] = []
    for rule in made.rules:
        found = [[each.tombstone for each in all_.values() if each.rule is rule] for all_ in goes.values()]
        stones = [stone for every in found for stone in every]
        if stones:
            use = RuleUse(rule=rule.name, says=rule.says, batches=sum(map(bool, found)), attempts=len(stones))
            use.files, use.bytes = sum(each.files for each in stones), sum(each.bytes for each in stones)
            use.archive = made.archive.address if rule.archived else ""
            uses.append(use)
    return uses


# --- finding ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _apart(layout: Layout, batch_id: str, uses: Uses) -> Iterator[None]:
    """Pass over a batch that cannot be read, as one that does not say what it has of others."""

    def note(error: Exception) -> None:
        uses.mute.append(batch_id)
        members.pass_over(error)

    with members.apart(layout.batch(batch_id), note):
        yield


def _look(
    ctx: Context, batch_id: str, uses: Uses, made: RemovalPlan, looks: dict[str, _Weighed], now: float
) -> BatchNote | None:
    """Look at all of a batch; a note where nothing is to be done in it, and nothing to be told of it."""
    batch_dir = ctx.layout.batch(batch_id)
    stamp, look = retention_notes.stamp(batch_dir), _Weighed(ledger.size(batch_dir))
    buried = removals.of(batch_dir)
    lines = _lines(batch_dir, ledger.SEALED, _CARRIED, removals.RESTORED)
    taken = list(_taken(batch_dir, lines, buried))
    uses.taken.update(dict.fromkeys(taken, batch_id))
    with members.apart(batch_dir), contextlib.suppress(earlier_batches.EarlierBatch):
        half = [place for place in buried if removals.left_of(batch_dir / place)]
        if half:
            made.half[batch_id] = half
        cut_off = packs.is_cut_off(batch_dir)
        if is_to_be_packed_again(ctx, batch_id, made.said):
            made.repack.append(batch_id)
        _weigh_all(batch_dir, made, lines, buried, look, now)
        looks[batch_id] = look
        if stamp and not (half or cut_off or look.found or look.kept or look.is_archive_asked):
            pack = packed.of(batch_dir)
            asked = made.pack_after_days is not None and pack is None
            last_at = packs.last_event(batch_dir) if asked else None
            return BatchNote(stamp, look.due, last_at, taken, list(pack.rest) if pack else [])
    return None


def _decide(ctx: Context, batch_id: str, look: _Weighed, uses: Uses, made: RemovalPlan) -> None:
    """Tell what goes of what rules would have go, and why the rest is kept."""
    goes: dict[str, Removable] = {}
    for place, each in look.found.items():
        if (user := uses.taken.get(f"{batch_id}/{place}")) is not None:
            look.kept[f"are taken over or judged by {user}"] += 1
        else:
            goes[place] = each
    why = (packs.why_not(ctx, batch_id) or uses.unknown) if goes else ""
    if why and (line := f"{batch_id}: {why}") not in made.said.kept:
        made.said.kept.append(line)
    elif goes and not why:
        made.goes[batch_id], made.sizes[batch_id] = goes, look.size
    for reason, count in look.kept.items():
        made.said.kept.append(f"{batch_id}: {count} of its attempts {reason}")


def is_to_be_packed_again(ctx: Context, batch_id: str, said: Collected) -> bool:
    """Tell whether a ``pack``, or a ``gc`` that has unpacked the batch, is to go on; one that runs again or is held waits, and is told as kept."""
    batch_dir = ctx.layout.batch(batch_id)
    if not packs.is_cut_off(batch_dir):
        return False
    why = "" if packed.of(batch_dir) is not None else packs.why_not(ctx, batch_id)
    if why and (line := f"{batch_id}: {why}") not in said.kept:
        said.kept.append(line)
    return not why


def _weigh_all(
    batch_dir: Path,
    made: RemovalPlan,
    lines: Iterable[Mapping[str, Any]],
    buried: Mapping[str, Tombstone],
    look: _Weighed,
    now: float,
) -> None:
    """Find which of the batch's attempts have files that the rules would have go, and when the next one will."""
    meta = batches.read_batch(batch_dir) if made.rules else None
    rules = [rule for rule in made.rules if meta is not None and _speaks_of_batch(rule, meta)]
    by_outcome = any(rule.outcomes for rule in rules)
    is_last = all(rule.archived or rule.keep for rule in rules)
    named, seals = cache(lambda: made.archive.named(batch_dir, is_last=is_last)), cache(lambda: _seals(batch_dir))
    for place, line, since in _ends(lines):
        if place in buried:
            continue
        came_to = _came_to(batch_dir, place, line) if by_outcome else ""
        weighed: Tombstone | None = None
        lacks = False
        for rule in (each for each in rules if not each.outcomes or came_to in each.outcomes):
            if rule.keep and not rule.min_mb:
                break
            due = since + (rule.after_days or 0.0) * _DAY_SEC
            asks = rule.archived and (now >= due or rule is not made.rules[-1])
            if now < due and not rule.min_mb and not asks:  # what it weighs decides nothing yet
                look.will_be(due)
                break
            weighed = weighed or _weigh(seals(), place, line)
            if weighed is None:
                look.kept["have another seal than the ledger names"] += 1
                break
            if weighed.bytes < rule.min_mb * 1e6:
                continue
            is_due = rule.after_days is not None and now >= due and weighed.files > 0
            if rule.archived and (is_due or rule is not made.rules[-1]):
                look.is_archive_asked = True
                there = named()
                if there is None:  # nobody knows whether this rule speaks of it
                    break
                if weighed.seal not in there:
                    lacks = lacks or is_due
                    continue
            if is_due:
                look.found[place] = Removable(rule, weighed)
            elif rule.after_days is not None and weighed.files:
                look.will_be(due)
            break
        else:
            look.kept.update([f"are not in {made.archive.address} yet"] * lacks)


def _ends(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """Yield the place of each sealed attempt, the line of its end, and since when its files are here: since then, or since they were brought back."""
    ends: dict[str, Mapping[str, Any]] = {}
    since: dict[str, float] = {}
    for line in lines:
        if (sealed := ledger.sealed_by(line)) is not None:
            ends[sealed[0]] = line
        elif line.get("event") == removals.RESTORED:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # no writer of ours has written it
                since.update(dict.fromkeys(removals.restored_by(line), parse_time(str(line["at"]))))
    for place, end in ends.items():
        yield place, end, since.get(place) or parse_time(str(end["at"]))


def _speaks_of_batch(rule: RetentionRule, meta: BatchMeta) -> bool:
    labels = all(name in meta.labels and _fits(meta.labels[name], value) for name, value in rule.labels.items())
    return labels and (not rule.experiments or any(_fits(meta.experiment, each) for each in rule.experiments))


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


type _Seals = Callable[[str], tuple[str, dict[str, Any]]]
"""Place of an attempt → SHA-256 of its seal, and the seal."""


def _seals(batch_dir: Path) -> _Seals:
    """Give the seals of a batch; of a packed one they are read once, from beside the archive."""
    pack = packed.of(batch_dir)
    if pack is not None:
        with contextlib.suppress(OSError):  # else they are in the archive, too
            return pack.seals().__getitem__
    return lambda place: _seal(batch_dir / place / attempts.SEAL)


def _seal(path: Path) -> tuple[str, dict[str, Any]]:
    data = atomic.read_bytes(path)
    return hashlib.sha256(data).hexdigest(), json.loads(data)


def _weigh(seals: _Seals, place: str, line: Mapping[str, Any]) -> Tombstone | None:
    """Return what would be said of an attempt, by its seal; None where that is not the one that the ledger names."""
    try:
        digest, document = seals(place)
        files: dict[str, Any] = document["files"]
        root = merkle.root(files)
    except (OSError, atomic.CorruptFile, ValueError, KeyError, TypeError, AttributeError):
        return None
    if digest != line["seal_sha256"] or (document.get("merkle_root") or root) != root:
        return None
    return removals.of_seal(digest, root, files)


def uses_of(layout: Layout, batch_ids: Iterable[str]) -> Uses:
    """Tell what these batches have of others."""
    uses = Uses()
    for batch_id in batch_ids:
        with _apart(layout, batch_id, uses):
            _add_uses(layout, batch_id, uses)
    return uses


def _add_uses(layout: Layout, batch_id: str, uses: Uses) -> None:
    batch_dir = layout.batch(batch_id)
    lines = _lines(batch_dir, _CARRIED)
    uses.taken.update(dict.fromkeys(_taken(batch_dir, lines, removals.of(batch_dir)), batch_id))


def _taken(batch_dir: Path, lines: Iterable[Mapping[str, Any]], buried: Mapping[str, Tombstone]) -> Iterator[str]:
    """Yield ``batch/place`` of each attempt that a batch has taken over, and has files of, or judges."""
    with contextlib.suppress(earlier_batches.EarlierBatch):
        told = batches.judged(batch_dir)
        for line in lines:
            with contextlib.suppress(KeyError):  # a line that no writer of ours has written
                if line.get("event") == "carried" and "source" in line and str(places.of_line(line)) not in buried:
                    told.append(f"{line['source']}/{line['attempt']}")
        yield from filter(None, map(_in_store, told))


def _lines(batch_dir: Path, *words: str) -> list[dict[str, Any]]:
    """Return the lines of a ledger that have one of these words.

    Raises:
        CorruptFile, OSError: there is no ledger, or it cannot be read.
    """
    if not ledger.size(batch_dir):
        with contextlib.suppress(earlier_batches.EarlierBatch):  # which has none
            batches.read_batch(batch_dir)
            ledger.check_readable(batch_dir)
    return list(ledger.mentioning(batch_dir, *words))


def _in_store(text: str) -> str:
    """Turn ``batch/job/step/attempt`` into ``batch/place``; into nothing what is none."""
    if text.count("/") != 3:
        return ""
    batch_id, job_id, step_id, attempt = text.split("/")
    return f"{batch_id}/{places.Place(job_id, step_id, attempt)}"
