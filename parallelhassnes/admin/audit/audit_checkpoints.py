"""Checkpoints, of the store and kept elsewhere, against the ledgers as they are now.

Every head that a checkpoint names must still be in its ledger, at the same number: then nothing before it was cut,
dropped or written anew. Those of the store must follow on each other without a gap; one that comes from elsewhere must be the
one that the store has under that number, and so binds all before it. Where they are sent to (``[audit] send_to``) each is called by its hash,
so a listing says whether all are there, and the same. The heads of an archive are compared alike: each of them must still be in its ledger.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import formatting
from parallelhassnes.admin.audit.audit_ledger import Lines
from parallelhassnes.admin.audit.audit_models import Finding
from parallelhassnes.errors import UserError
from parallelhassnes.schedule import checkpointing, configuration
from parallelhassnes.store import atomic, identity
from parallelhassnes.store.archives import remote_batch
from parallelhassnes.store.archives.object_store import ObjectStore, TooLarge
from parallelhassnes.store.archives.remote_batch import RemoteHead
from parallelhassnes.store.evidence import checkpoints, ledger, signatures
from parallelhassnes.store.evidence.checkpoints import Checkpoint, LedgerHead
from parallelhassnes.store.identity import STORE_ID
from parallelhassnes.store.layout import Layout

_PLACE = "_system/checkpoints"
_READERS = 16
"""Batches whose heads are read at once."""


class _Said(NamedTuple):
    """What one checkpoint says of one ledger."""

    head: LedgerHead
    who: str
    """The checkpoint, in words."""


def _heads(store: ObjectStore, batch_id: str) -> list[RemoteHead | str]:
    """Return every head of a batch in an archive; of one that cannot be used, what is wrong with it."""
    found: list[RemoteHead | str] = []
    for key in remote_batch.head_keys(store, batch_id):
        try:
            found.append(remote_batch.read_head(store, key))
        except (remote_batch.WrongArchive, atomic.CorruptFile) as error:
            found.append(str(error))
    return found


def _digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint that cannot be used; a question mark where it cannot be read either."""
    try:
        return checkpoints.digest(path)
    except OSError:
        return "?"


class Checkpoints:
    """All that are known of one store."""

    def __init__(
        self,
        layout: Layout,
        against: Sequence[Path] = (),
        signers: Path | None = None,
        *,
        elsewhere: Sequence[ObjectStore] = (),
        batch_ids: Sequence[str] = (),
    ) -> None:
        self.layout, self.signers = layout, signers
        self._store_id = identity.store_id(layout.runs) if elsewhere else ""
        self.findings: list[Finding] = []
        self.count = 0
        self._batches: dict[str, list[_Said]] = {}
        self._system: list[_Said] = []
        self._own: dict[int, Checkpoint] = {}
        self._read_own()
        for path in against:
            self._read_given(path)
        if signers is not None:
            self._check_signatures(against, signers)
        unsent = {
            number: f"{who} lacks it; see _system/checkpoints.log"
            for number, who in checkpointing.unsent(layout, configuration.in_force(layout).config.audit).items()
        }
        for store in elsewhere:
            heads, kept = self._read_heads(store, batch_ids), self._kept(store)
            if not kept:
                text = f"{store.url} has no checkpoint of the store by this id" + (
                    f", and {formatting.counted(heads, 'head')} of it" if heads else ""
                )
                self.findings.append(
                    Finding(what="uncovered" if heads else "checkpoint", place=f"_system/{STORE_ID}", text=text)
                )
            else:
                unsent |= dict.fromkeys(self._read_elsewhere(store, kept), f"{store.url} lacks it")
        for number in sorted(unsent):
            self.findings.append(Finding(what="unsent", place=f"{_PLACE}/{number}.json", text=unsent[number]))

    def _problem(self, name: str, text: str) -> None:
        self.findings.append(Finding(what="checkpoint", place=f"{_PLACE}/{name}", text=text))

    def _read_own(self) -> None:
        prev, prev_sig = "", ""
        names = checkpoints.listing(self.layout)  # before the numbers: one may be made meanwhile
        known = checkpoints.numbers(self.layout)
        for before, number in pairwise([0, *known]):
            if before + 1 < number:
                upto = f", and so are those up to {number - 1}.json" if before + 2 < number else ""
                self._problem(f"{before + 1}.json", f"is missing{upto}")
                prev = prev_sig = "?"
            path = checkpoints.place(self.layout, number)
            try:
                found = checkpoints.read(path)
            except (atomic.CorruptFile, OSError) as error:
                self._problem(path.name, f"cannot be read: {error}")
                prev, prev_sig = _digest(path), "?"
                continue
            if found.number != number:
                self._problem(path.name, f"is number {found.number}")
            if prev != "?" and found.prev != prev:
                name = f"{number - 1}.json" if number > 1 else path.name
                self._problem(name, f"is not the one that number {number} was written after")
            if prev_sig != "?" and found.prev_sig and found.prev_sig != prev_sig:
                name = f"{number - 1}.json{checkpoints.SIGNATURE}"
                self._problem(name, f"is not the one that number {number} was written after")
            prev = checkpoints.digest(path)
            prev_sig = ledger.content_hash(f"{path}{checkpoints.SIGNATURE}") or ""
            self._own[number] = found
            self._take_in(found, f"checkpoint {number}")
        ours = {"sent.json", *(f"{n}.json{e}" for n in known for e in ("", checkpoints.SIGNATURE))}
        for name in sorted(names - ours):
            self._problem(name, "is none of ours")
        if known:
            newest = checkpoints.place(self.layout, known[-1])
            if signatures.is_signed(newest) and (said := signatures.check(newest)):
                self._problem(f"{newest.name}{checkpoints.SIGNATURE}", said)

    def _read_given(self, path: Path) -> None:
        try:
            given = checkpoints.read(path)
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}", fix="name its file") from None
        except atomic.CorruptFile as error:
            raise UserError(f"{path} is no checkpoint: {error}", fix="name one that was kept") from None
        known = ledger.content_hash(self.layout.system / STORE_ID)
        if known is None or given.store_id != (self.layout.system / STORE_ID).read_text().strip():
            text = f"is not that of {path.name}: it is another store's checkpoint, or the store's id has changed"
            self.findings.append(Finding(what="checkpoint", place=f"_system/{STORE_ID}", text=text))
        own = checkpoints.place(self.layout, given.number)
        if ledger.content_hash(own) != ledger.content_hash(path):
            self._problem(own.name, f"is not {path.name}, which was kept elsewhere")
        self._take_in(given, f"{path.name}")

    def _kept(self, store: ObjectStore) -> dict[int, list[str]]:
        """Return the numbers that are where they are sent to, each with the keys that have it."""
        folder, kept = f"{checkpoints.ELSEWHERE}/{self._store_id}", dict[int, list[str]]()
        for name, _ in store.names(folder):
            if found := checkpoints.kept_as(name):
                kept.setdefault(found[0], []).append(f"{folder}/{name}")
        return kept

    def _read_elsewhere(self, store: ObjectStore, kept: Mapping[int, Sequence[str]]) -> list[int]:
        """Compare with what is where they are sent to; the numbers that are still to go there."""
        newest = max(kept)
        for number, keys in sorted(kept.items()):
            if len(keys) > 1:
                text = f"{store.url} has {len(keys)} of this number: two have written on the same store, or its copy"
                self._problem(f"{number}.json", text)
            for key in keys:
                self.count += 1
                own = ledger.content_hash(checkpoints.place(self.layout, number))
                if own is None or own not in key:
                    self._problem(
                        f"{number}.json", f"is {'not ' if own else 'gone, and was '}the one that {store.url} has"
                    )
                if own is None or own not in key or number == newest:
                    self._read_kept(store, key)
        for number in self._own:
            if number < newest and number not in kept:
                self._problem(f"{number}.json", f"{store.url} has later ones, and this one not any more")
        return [number for number in self._own if number > newest]

    def _read_kept(self, store: ObjectStore, key: str) -> None:
        try:
            data = store.read(key)
            if hashlib.sha256(data).hexdigest() not in key:
                raise ValueError("it is not what it is named by")
            found = atomic.parse(Checkpoint, json.loads(data), key)
        except (ValueError, RecursionError, atomic.CorruptFile, TooLarge) as error:
            self.findings.append(
                Finding(what="checkpoint", place=f"{store.url}/{key}", text=f"cannot be used: {error}")
            )
            return
        self._take_in(found, f"{store.url}")

    def _read_heads(self, store: ObjectStore, batch_ids: Sequence[str]) -> int:
        """Take in what an archive there has of batches that were pushed from this store; the number of their heads."""
        count, there = 0, {name for name, _ in store.names(remote_batch.BATCHES)}
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            wanted = [each for each in batch_ids if each in there]
            for batch_id, heads in zip(wanted, pool.map(partial(_heads, store), wanted), strict=True):
                for head in heads:
                    if isinstance(head, str):
                        self.findings.append(Finding(what="checkpoint", place=f"{batch_id}/{ledger.LEDGER}", text=head))
                    elif head.store_id == self._store_id:
                        count += 1
                        known = LedgerHead(head=head.ledger.head, lines=head.ledger.lines, seals=head.attempts)
                        who = f"head {head.number} in {store.url}"
                        self._batches.setdefault(batch_id, []).append(_Said(known, who))
        return count

    def _take_in(self, found: Checkpoint, who: str) -> None:
        self.count += 1
        for batch_id, head in found.batches.items():
            self._batches.setdefault(batch_id, []).append(_Said(head, who))
        self._system.append(_Said(found.system, who))

    def _check_signatures(self, against: Sequence[Path], signers: Path) -> None:
        for path in against:
            if text := signatures.check(path, signers):
                self.findings.append(Finding(what="signature", place=f"{path}", text=text))
        newest = max((n for n in self._own if signatures.is_signed(checkpoints.place(self.layout, n))), default=0)
        if newest == 0:
            text = "no checkpoint of the store is signed"
            self.findings.append(Finding(what="signature", place=_PLACE, text=text))
            return
        path = checkpoints.place(self.layout, newest)
        if text := signatures.check(path, signers):
            place = f"{_PLACE}/{path.name}{checkpoints.SIGNATURE}"
            self.findings.append(Finding(what="signature", place=place, text=text))
        if newest < max(self._own):
            text = f"is the newest signed one of {max(self._own)}"
            self.findings.append(Finding(what="uncovered", place=f"{_PLACE}/{path.name}", text=text))

    # --- ledgers ----------------------------------------------------------------------------------------

    def marks(self, batch_id: str | None) -> set[int]:
        """Return the numbers of the lines that a reader of the ledger is to remember; None for the store's own."""
        return {said.head.lines for said in self._of(batch_id)} - {0}

    def compare(self, batch_id: str | None, lines: Lines) -> Iterator[Finding]:
        """Tell what a ledger is not any more."""
        place = f"{batch_id or '_system'}/{ledger.LEDGER}"
        for head, who in self._of(batch_id):
            if head.lines == 0:
                continue
            if head.lines > lines.count:
                text = f"ends after {lines.count} lines, and {who} knows {head.lines}"
            elif lines.marked.get(head.lines) != head.head:
                text = f"is not what {who} knows up to line {head.lines}: its history was written anew"
            else:
                continue
            yield Finding(what="checkpoint", place=place, text=text)
            return

    def gone(self, batch_ids: Sequence[str]) -> Iterator[Finding]:
        """Yield the batches that a checkpoint knows, and that are not there any more."""
        for batch_id in sorted(self._batches.keys() - set(batch_ids)):
            text = f"{self._batches[batch_id][-1].who} knows this batch"
            yield Finding(what="missing", place=batch_id, text=text)

    def _of(self, batch_id: str | None) -> list[_Said]:
        return self._system if batch_id is None else self._batches.get(batch_id, [])
