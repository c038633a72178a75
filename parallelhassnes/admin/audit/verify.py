"""``audit verify``: is the store what was once written down about it.

    audit_ledger        the chain of a ledger, and what it says
    audit_batch         a batch's files and attempts against its ledger and its seals
    audit_job           what follows from the sealed attempts: verdicts, current.json; tasks that were edited
    audit_system        the store's own ledger: configuration, budgets, tokens, uploaded tasks
    audit_checkpoints   the heads that checkpoints know, and who signed them

Nothing is changed, no lock is held; a batch that runs meanwhile is looked at as far as it has ended, and again where its ledger has
grown under the look. What is a trace of a crash and not of a change (a torn line, an attempt that died before its line), and what
an earlier version has kept no record of, is a note.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from parallelhassnes.admin.audit import audit_system
from parallelhassnes.admin.audit.audit_batch import BatchAudit
from parallelhassnes.admin.audit.audit_checkpoints import Checkpoints
from parallelhassnes.admin.audit.audit_job import JobsAudit, TaskFolders
from parallelhassnes.admin.audit.audit_models import NOTES, Audit, Finding
from parallelhassnes.store import atomic, batches, earlier_batches, members, process_identity
from parallelhassnes.store.archives.object_store import ObjectStore
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

_LOOKS = 4
"""At a batch that goes on meanwhile."""


@dataclass
class _ReadTally:
    """What was read of a batch."""

    attempts: int = 0
    files: int = 0
    size: int = 0
    head: str = ""
    removed: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)


def verify(
    layout: Layout,
    batch_ids: list[str] | None = None,
    *,
    against: Sequence[Path] = (),
    elsewhere: Sequence[ObjectStore] = (),
    signers: Path | None = None,
    tasks: bool = False,
) -> Audit:
    """Verify these batches, or all; reads every byte of every sealed attempt once.

    Args:
        against: checkpoints that were kept elsewhere; every ledger must go on from what they know.
        elsewhere: where checkpoints are sent to, or batches are kept: the same for what is there.
        signers: OpenSSH's ``allowed_signers``: the checkpoints must be signed by one of them.
        tasks: a task that is not what it was when it was submitted is a problem, and not only a note.

    Raises:
        UserError: a checkpoint, or the file of signers, is not there or is none, or a place cannot be read.
    """
    began = time.monotonic()
    wanted = layout.batch_ids() if batch_ids is None else batch_ids
    known = Checkpoints(layout, against, signers, elsewhere=elsewhere, batch_ids=wanted)
    found, folders = list(known.findings), TaskFolders(strict=tasks)
    whole = _ReadTally()
    heads: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        for batch_id in wanted:
            with members.apart(layout.batch(batch_id), partial(_unreadable, found, batch_id)):
                earlier_batches.check_ours(layout.batch(batch_id) / batches.META)
                done = _look(layout, batch_id, known, folders, pool)
                found += done.found
                whole.attempts += done.attempts
                whole.files += done.files
                whole.size += done.size
                whole.removed += done.removed
                heads[batch_id] = done.head
    if batch_ids is None:
        found += _strangers(layout, wanted)
        found += known.gone(wanted)
        found += _system(layout, known)
    problems = [finding for finding in found if finding.what not in NOTES]
    return Audit(
        ok=not problems,
        batches=len(wanted),
        attempts=whole.attempts,
        files=whole.files,
        bytes=whole.size,
        seconds=round(time.monotonic() - began, 3),
        heads=heads,
        checkpoints=known.count,
        removed=dict(whole.removed),
        problems=problems,
        notes=[finding for finding in found if finding.what in NOTES],
    )


def _unreadable(found: list[Finding], batch_id: str, error: Exception) -> None:
    if isinstance(error, earlier_batches.EarlierBatch):
        text = "of the earlier ParallelHassnes, which sealed nothing: not verified"
        found.append(Finding(what="earlier", place=batch_id, text=text))
        return
    text = f"{atomic.describe_damage(error)}; {atomic.advice(error)}"
    found.append(Finding(what="unreadable", place=batch_id, text=text))


def _look(
    layout: Layout, batch_id: str, known: Checkpoints, folders: TaskFolders, pool: ThreadPoolExecutor
) -> _ReadTally:
    """Return one batch; again where it has gone on while we looked, and something seems to be wrong."""
    for _ in range(_LOOKS):
        before = ledger.size(layout.batch(batch_id))
        done = _batch(layout, batch_id, known, folders, pool)
        if all(finding.what in NOTES for finding in done.found):
            break
        if ledger.size(layout.batch(batch_id)) == before:
            break
    return done


def _batch(
    layout: Layout, batch_id: str, known: Checkpoints, folders: TaskFolders, pool: ThreadPoolExecutor
) -> _ReadTally:
    batch = BatchAudit(layout, batch_id, known.marks(batch_id))
    done = _ReadTally(head=batch.lines.head)
    done.found += batch.records()
    done.found += batch.archive()
    done.found += known.compare(batch_id, batch.lines)
    for checked in pool.map(batch.attempt, batch.attempt_dirs(), chunksize=16):
        done.found += checked.findings
        done.attempts += checked.sealed
        done.files += checked.files
        done.size += checked.size
    done.found += batch.files()
    done.found += JobsAudit(batch, folders, restarted=_is_restarted(layout)).findings()
    done.found += batch.leftover_lines()
    done.removed.update(batch.removed())
    return done


def _system(layout: Layout, known: Checkpoints) -> Iterator[Finding]:
    found: list[Finding] = []
    for _ in range(_LOOKS):
        before = ledger.size(layout.system)
        lines = audit_system.read(layout, known.marks(None))
        found = [*known.compare(None, lines), *audit_system.findings(layout, lines)]
        if ledger.size(layout.system) == before:
            break
    yield from found


def _is_restarted(layout: Layout) -> bool:
    """Tell whether the host has been started since its last tick, which makes anew what a power cut may have taken."""
    notes = layout.runners.glob("*/boot_id")
    seen = [note.read_text(encoding="utf-8").strip() for note in notes]
    return bool(seen) and process_identity.boot_id() not in seen


def _strangers(layout: Layout, known: list[str]) -> Iterator[Finding]:
    """Tell what is no batch: a folder with attempts whose ``batch_meta.json`` is gone, and any file."""
    for entry in sorted(layout.runs.iterdir()):
        if entry.name[0] in "_." or entry.name in known:
            continue
        if entry.is_dir() and (any(entry.glob("*/steps")) or (entry / ledger.LEDGER).exists()):
            yield Finding(what="missing", place=f"{entry.name}/{batches.META}")
        elif not entry.is_dir():
            yield Finding(what="added", place=entry.name)
