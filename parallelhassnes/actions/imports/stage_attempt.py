"""A trial of another program as a sealed attempt of ours, made aside.

    _system/imports/<batch_id>/<job_id>/<step_id>/attempts/<name>/meta.json, trial/…, final.json, state.json, seal.json

The copy is made by descriptors: no link is followed (a link stays a link), pipes, sockets and devices are left out, what is past
the configured bounds, too, and the seal names each. Every byte is hashed as it is read, so ``imported`` in the seal has the hashes
of the source's files: their Merkle root, and one by one of those in which a secret was found here. Whoever stages clears the
folder first, so a crash leaves nothing that counts.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from parallelhassnes import names, walk
from parallelhassnes.actions.imports.source_jobs import SourceJob, SourceTrial
from parallelhassnes.config import Bounds
from parallelhassnes.execute import finish
from parallelhassnes.execute.clean import Patience, clean
from parallelhassnes.execute.redact import Redactor
from parallelhassnes.formatting import counted
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import ticket_of
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt, WorkerEnd
from parallelhassnes.steps.trial import outcome as trial_outcome
from parallelhassnes.steps.trial.trial_paths import TRIAL_DIR
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.evidence import merkle
from parallelhassnes.store.evidence.seal import seal
from parallelhassnes.store.records import AttemptMeta, AttemptState, Heartbeat, ImportedAttempt, dump, now_text
from parallelhassnes.version import __version__

UNKNOWN_HOST = "unknown"
"""Of an attempt that ran elsewhere."""
_CHUNK = 1 << 20
_LONGEST_PATH = 3_000
"""Bytes of a path below the trial."""
_MOST_NAMED = 1_000


def run_id_of(job: SourceJob, trial: SourceTrial) -> str:
    """Return the run id of a trial's attempt: the same whenever the same result is imported."""
    text = f"{job.job_id}\0{trial.name}\0{trial.result_sha256}"
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(12))


_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def stage(
    ctx: Context,
    step_dir: Path,
    where: tuple[JobSpec, StepSpec],
    source: tuple[SourceJob, SourceTrial],
    redactor: Redactor,
    earlier: list[str],
) -> Path:
    """Make the sealed attempt of a trial; its folder.

    Args:
        step_dir: where ``attempts/`` is made.
        where: job and step of the batch that it is for, ``batch_id`` filled in.
        earlier: names of the attempts that the step has.

    Raises:
        OSError: something of it can neither be read nor left out, or there is no space.
    """
    (job, step), (source_job, trial) = where, source
    now = datetime.now(UTC)
    run_id, number = run_id_of(source_job, trial), len(earlier) + 1
    name = names.attempt_name(run_id, trial.started_at or now)
    if earlier and name <= earlier[-1]:  # the newest of a step is the last by name
        name = names.attempt_name(run_id, names.begun(earlier[-1]) + timedelta(seconds=1))
    folder = step_dir / "attempts" / name
    folder.mkdir(parents=True)
    folder_of_trial = source_job.folder / trial.place
    copy = _Copy(folder / TRIAL_DIR, ctx.config.bounds)
    copy.run(folder_of_trial)
    root = merkle.root(copy.files)
    meta = AttemptMeta(
        run_id=run_id,
        batch_id=job.batch_id,
        job_id=job.job_id,
        step_id=step.step_id,
        kind="trial",
        queue_key=step.queue_key,
        number=number,
        created_at=now_text(now),
        runner_id="",
        host=UNKNOWN_HOST,
        harness_version=__version__,
        config_sha256="",
        ticket=ticket_of(job, step)[1],
        imported=ImportedAttempt(
            source=source_job.source,
            job_id=source_job.job_id,
            trial=trial.name,
            path=str(folder_of_trial),
            result_sha256=trial.result_sha256,
            merkle_root=root,
            began=now_text(trial.started_at) if trial.started_at else None,
            ended=now_text(trial.ended_at) if trial.ended_at else None,
        ),
    )
    atomic.write_json(folder / attempts.META, dump(meta), durable=False)
    attempt = StepAttempt(folder, step_dir.parents[1], job.batch_id, job.job_id, run_id, number, step)
    outcome = trial_outcome.conclude(attempt, WorkerEnd(0, "elsewhere"))
    finish.write_outcome(attempt, outcome)
    state = AttemptState(
        status=outcome.status,
        run_id=run_id,
        started_at=meta.imported.began if meta.imported else None,
        ended_at=now_text(trial.ended_at or now),
        heartbeat=Heartbeat(count=0, at=now_text(now)),
        host=UNKNOWN_HOST,
        failure=finish.failure_of(outcome),
    )
    attempts.write_state(folder, state)
    cleaned = clean(folder, redactor, ctx.config.bounds, patience := Patience(ctx.config.bounds))
    changed = {
        path.removeprefix(f"{TRIAL_DIR}/"): found
        for path in cleaned.redacted
        if (found := copy.files.get(path.removeprefix(f"{TRIAL_DIR}/")))
    }
    said = {"source": source_job.source, "job_id": source_job.job_id, "trial": trial.name, "merkle_root": root}
    if changed:
        said["changed_here"] = changed  # type: ignore[assignment] # JSON
    seal(folder, cleaned.redacted, [*copy.left_out, *cleaned.left_out], redactor.unfit, patience.check, imported=said)
    return folder


def changed_since(source: Path, attempt_dir: Path) -> list[str]:
    """Return the files of a trial that are not what was imported, by their paths in it: other, new or gone.

    A file of the same size and time is taken for the same; of any other the hash decides.
    """
    document = safe_read.read_object(attempt_dir / attempts.SEAL) or {}
    before = {
        path.removeprefix(f"{TRIAL_DIR}/"): safe_read.mapping(said)
        for path, said in safe_read.mapping(document.get("files")).items()
        if path.startswith(f"{TRIAL_DIR}/")
    }
    there = safe_read.mapping(safe_read.mapping(document.get("imported")).get("changed_here"))
    left_out = {str(safe_read.mapping(each).get("path")) for each in safe_read.sequence(document.get("left_out"))}
    found: list[str] = []
    seen: set[str] = set()
    top = walk.open_folder(source)
    try:
        for entry in walk.walk(top):
            path = entry.path
            if not entry.is_file or f"{TRIAL_DIR}/{path}" in left_out:
                continue
            seen.add(path)
            said = safe_read.mapping(there.get(path)) or before.get(path)
            if said is None or not (_looks_same(entry, attempt_dir / TRIAL_DIR / path) or _is_same(entry, said)):
                found.append(path)
    finally:
        os.close(top)
    return sorted({*found, *(path for path, said in before.items() if "link" not in said and path not in seen)})


def _looks_same(entry: walk.Entry, copy: Path) -> bool:
    try:
        info = copy.lstat()
    except OSError:
        return False
    return (info.st_size, info.st_mtime_ns) == (entry.info.st_size, entry.info.st_mtime_ns)


def _is_same(entry: walk.Entry, said: Mapping[str, Any]) -> bool:
    try:
        with os.fdopen(entry.open(), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == said.get("sha256")
    except OSError:
        return False


class _Copy:
    """One copy of a trial's folder."""

    def __init__(self, target: Path, bounds: Bounds) -> None:
        self._target, self._bounds = target, bounds
        self._room, self._data = bounds.max_files, bounds.max_mb << 20
        self._more = 0
        self._left_out: list[Mapping[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        """What a seal of the source would say of it."""

    def run(self, source: Path) -> None:
        """Copy what is below a folder.

        Raises:
            OSError: there is no space, or the folder cannot be read.
        """
        top = walk.open_folder(source)
        self._target.mkdir()
        try:
            for entry in walk.walk(top, lambda: self._room):
                why = self._leaving(entry) if entry.leaving else self._take(entry)
                if why:
                    entry.skip()
                    self._note(entry, why)
        finally:
            os.close(top)

    @property
    def left_out(self) -> list[Mapping[str, Any]]:
        return [*self._left_out, *([{"more": self._more}] if self._more else [])]

    def _note(self, entry: walk.Entry, why: str) -> None:
        if len(self._left_out) < _MOST_NAMED:
            self._left_out.append({"path": f"{TRIAL_DIR}/{entry.path}", "why": why})
        else:
            self._more += 1

    def _leaving(self, entry: walk.Entry) -> str:
        return f"cannot be looked at: {entry.error.strerror}" if entry.error is not None else ""

    def _take(self, entry: walk.Entry) -> str:
        """Copy an entry; why it was left out."""
        self._room -= 1
        if self._room < 0:
            return f"past {counted(self._bounds.max_files, 'file')} (bounds.max_files)"
        if entry.depth > self._bounds.max_depth:
            return f"in more than {self._bounds.max_depth} folders (bounds.max_depth)"
        path = entry.path
        if len(os.fsencode(path)) > _LONGEST_PATH:
            return f"its path is longer than {_LONGEST_PATH} bytes"
        if entry.is_folder:
            (self._target / path).mkdir()
            return ""
        if entry.is_link:
            with contextlib.suppress(FileNotFoundError):
                lead = os.readlink(entry.name, dir_fd=entry.folder)
                (self._target / path).symlink_to(lead)
                self.files[path] = {"link": lead}
            return ""
        if not entry.is_file:
            return "is no file, folder or link"
        if min(entry.info.st_size, entry.info.st_blocks * 512) > self._data:
            return f"past {self._bounds.max_mb} MB of data (bounds.max_mb)"
        found = _copy_file(entry, self._target / path, self._data)
        if isinstance(found, str):
            (self._target / path).unlink(missing_ok=True)
            return found
        self.files[path] = found
        self._data -= min(int(found["size"]), entry.info.st_blocks * 512)
        return ""


def _copy_file(entry: walk.Entry, target: Path, most: int) -> dict[str, Any] | str:
    """Copy one file, with its holes; its hash and size, or why it was left out."""
    try:
        handle = entry.open()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    digest, size = hashlib.sha256(), 0
    made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        while True:
            try:
                part = os.read(handle, _CHUNK)
            except OSError as error:
                return f"cannot be read: {error.strerror}"
            if not part:
                break
            digest.update(part)
            size += len(part)
            if part.count(0) == len(part):
                os.lseek(made, len(part), os.SEEK_CUR)
                continue
            most -= len(part)
            if most < 0:
                return "grew past the bounds while it was read"
            _write(made, part)
        os.ftruncate(made, size)
        os.fchmod(made, entry.info.st_mode & 0o777)
        os.utime(made, ns=(entry.info.st_atime_ns, entry.info.st_mtime_ns))
    finally:
        os.close(made)
        os.close(handle)
    return {"sha256": digest.hexdigest(), "size": size}


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
