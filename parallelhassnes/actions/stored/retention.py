"""``gc``: what the rules of ``[retention]`` say; ``actions/stored/removing.py`` does it.

What goes of an attempt and what stays, and what a tombstone says, stands in ``store.evidence.removals``. Only a batch that might be packed is touched
(``packs.why_not``: nothing of it runs, waits or is held, and all is sealed as its ledger says), and none of its attempts that another batch has taken over or
judges.
"""

import contextlib
import fnmatch
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from parallelhassnes import packed, places
from parallelhassnes.actions import packs
from parallelhassnes.actions.stored.archived import AskedArchive
from parallelhassnes.config import RetentionRule
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import ended_line
from parallelhassnes.store import atomic, attempts, batches, earlier_batches, members
from parallelhassnes.store.archives.object_store import ObjectStore
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


class Uses(NamedTuple):
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
    _find(ctx, made, made.known)
    ended = packs.finished(ctx, made.pack_after_days) if made.pack_after_days is not None else []
    made.said.packed = list(dict.fromkeys([*made.repack, *ended]))
    return made


def plan_of_archived(ctx: Context, batch_id: str, rule: RetentionRule, store: ObjectStore) -> RemovalPlan:
    """Find what goes of one batch by one rule, because an archive has it."""
    made = RemovalPlan(ctx.layout.batch_ids(), (rule,), AskedArchive(ctx, store), None)
    _find(ctx, made, [batch_id])
    return made


def _find(ctx: Context, made: RemovalPlan, batch_ids: Sequence[str]) -> None:
    now, uses = time.time(), uses_of(ctx.layout, made.known)
    for batch_id in batch_ids:
        with members.apart(ctx.layout.batch(batch_id)), contextlib.suppress(earlier_batches.EarlierBatch):
            _look(ctx, batch_id, uses, made, now)
    made.said.rules = told(made, made.goes)
    made.said.finished = sum(map(len, made.half.values()))
    made.said.failed = list(made.archive.troubles)
    made.said.ok = not made.said.failed


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


def _look(ctx: Context, batch_id: str, uses: Uses, made: RemovalPlan, now: float) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    size, buried = ledger.size(batch_dir), removals.of(batch_dir)
    half = [place for place in buried if removals.left_of(batch_dir / place)]
    if half:
        made.half[batch_id] = half
    if is_to_be_packed_again(ctx, batch_id, made.said):
        made.repack.append(batch_id)
    found, kept = _fitting(batch_dir, made, buried, uses.taken, now)
    why = (packs.why_not(ctx, batch_id) or uses.unknown) if found else ""
    if why and (line := f"{batch_id}: {why}") not in made.said.kept:
        made.said.kept.append(line)
    elif found and not why:
        made.goes[batch_id], made.sizes[batch_id] = found, size
    for reason, count in kept.items():
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


def _fitting(
    batch_dir: Path, made: RemovalPlan, buried: Mapping[str, Tombstone], taken: Mapping[str, str], now: float
) -> tuple[dict[str, Removable], Counter[str]]:
    """Return the attempts that go, by their places; and why others that would go are kept, with how many."""
    found: dict[str, Removable] = {}
    kept: Counter[str] = Counter()
    experiment = batches.read_batch(batch_dir).experiment if made.rules else ""
    by_outcome = any(rule.outcomes for rule in made.rules)
    named = cache(lambda: made.archive.named(batch_dir))
    for place, line, since in _ends(batch_dir):
        if place in buried:
            continue
        days = (now - since) / _DAY_SEC
        came_to = _came_to(batch_dir, place, line) if by_outcome else ""
        weighed: Tombstone | None = None
        lacks = False
        for rule in made.rules:
            if not _speaks_of(rule, came_to, experiment):
                continue
            if rule.keep and not rule.min_mb:
                break
            weighed = weighed or _weigh(batch_dir, place, line)
            if weighed is None:
                kept["have another seal than the ledger names"] += 1
                break
            if weighed.bytes < rule.min_mb * 1e6:
                continue
            is_due = rule.after_days is not None and days >= rule.after_days and weighed.files > 0
            if rule.archived and (is_due or rule is not made.rules[-1]):
                there = named()
                if there is None:  # nobody knows whether this rule speaks of it
                    break
                if weighed.seal not in there:
                    lacks = lacks or is_due
                    continue
            user = taken.get(f"{batch_dir.name}/{place}")
            if is_due and user is not None:
                kept[f"are taken over or judged by {user}"] += 1
            elif is_due:
                found[place] = Removable(rule, weighed)
            break
        else:
            kept[f"are not in {made.archive.address} yet"] += lacks
    return found, +kept


def _ends(batch_dir: Path) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """Yield the place of each sealed attempt, the line of its end, and since when its files are here: since then, or since they were brought back."""
    ends: dict[str, Mapping[str, Any]] = {}
    since: dict[str, float] = {}
    for _, line in ledger.read(batch_dir):
        if (sealed := ledger.sealed_by(line)) is not None:
            ends[sealed[0]] = line
        elif line.get("event") == removals.RESTORED:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # no writer of ours has written it
                since.update(dict.fromkeys(removals.restored_by(line), parse_time(str(line["at"]))))
    for place, end in ends.items():
        yield place, end, since.get(place) or parse_time(str(end["at"]))


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


def uses_of(layout: Layout, batch_ids: list[str]) -> Uses:
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
                if line.get("event") == "carried" and "source" in line and str(places.of_line(line)) not in buried:
                    found[_in_store(f"{line['source']}/{line['attempt']}")] = batch_id
            found.update(dict.fromkeys(map(_in_store, _judged(batch_dir)), batch_id))
    unknown = f"may be taken over or judged by {mute[0]}, which cannot be read" if mute else ""
    return Uses(found, unknown)


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
    return f"{batch_id}/{places.Place(job_id, step_id, attempt)}"
