"""The attempts of a step on disk.

    steps/<step_id>/step.lock                    held by the live attempt's processes
    steps/<step_id>/cancel.json                  an operator's word: the attempt of this run_id is to end
    steps/<step_id>/fence.<run_id>.json          the attempt counts as lost, whatever its processes on another host still do
    steps/<step_id>/fenced/<name>                what those may still write into; a sealed copy stands among the attempts
    steps/<step_id>/attempts/<name>/meta.json    written before the folder gets its name
                                   /state.json   replaced by the supervisor
                                   /seal.json    written last; nothing changes after it

An attempt's folder is prepared under ``runs/_system/tmp`` and appears whole, by rename, under ``step.lock``. An attempt without a seal whose
``step.lock`` is free is dead. The word to end is beside the attempts and not in them, because it may come just
as the attempt is sealed.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import packed, walk
from parallelhassnes.names import run_id_of
from parallelhassnes.states import TERMINAL
from parallelhassnes.store import atomic, clocks
from parallelhassnes.store.records import AttemptMeta, AttemptState, Heartbeat, dump, now_text

META, STATE, FINAL, FINAL_TEXT, SEAL, PUBLISH = (
    "meta.json",
    "state.json",
    "final.json",
    "final.txt",
    "seal.json",
    "publish",
)
CANCEL = "cancel.json"
_NAME = re.compile(r"\d{8}T\d{6}Z_[a-z0-9]+")
LOGS = ("stdout.log", "stderr.log")
_ASK_AGAIN_SEC = 0.2
_BEATS, _BEAT_PATIENCE_SEC = 3, 5.0
"""After so many heartbeats and so long without one a supervisor that cannot be seen is taken for dead."""


def is_name(text: str) -> bool:
    """Tell whether a folder of that name can be an attempt's."""
    return _NAME.fullmatch(text) is not None


class AttemptRef(NamedTuple):
    """One attempt of a step."""

    dir: Path
    name: str
    number: int
    """Its place among the step's attempts, from 1."""


def names(step_dir: Path) -> list[str]:
    """Return the names of the step's attempts, oldest first."""
    try:
        entries = os.listdir(f"{step_dir}/attempts")
    except FileNotFoundError:
        return packed.names(step_dir)
    return sorted(name for name in entries if _NAME.fullmatch(name))


def newest(step_dir: Path) -> AttemptRef | None:
    found = names(step_dir)
    if not found:
        return None
    return AttemptRef(step_dir / "attempts" / found[-1], found[-1], len(found))


def create(step_dir: Path, name: str, meta: AttemptMeta, state: AttemptState) -> Path:
    """Make the attempt's folder with its first records; the caller holds ``step.lock``."""
    folder = step_dir / "attempts"
    first = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = atomic.temp_path(folder)
    fresh.mkdir()
    atomic.write_new(f"{fresh}/{META}", dump(meta))
    atomic.write_new(
        f"{fresh}/{STATE}", dump(state), durable=False
    )  # replaced at once, and a torn one is known as such
    atomic.sync_dir(fresh)
    target = folder / name
    fresh.rename(target)
    atomic.sync_dir(folder)
    if first:
        for above in (step_dir, step_dir.parent, step_dir.parent.parent):
            atomic.sync_dir(above)
    return target


def adopt(source: Path, step_dir: Path, without: Callable[[str, list[str]], list[str]] | None = None) -> Path:
    """Give a step an attempt of another batch: the same files under the same name, linked where the disk allows that.

    It appears whole, by rename; one that is there already stays. A sealed attempt never changes, so two batches can
    share its bytes.

    Args:
        without: names that are left out of a folder, as ``shutil.copytree`` asks for them.
    """
    target = step_dir / "attempts" / source.name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = atomic.temp_path(target.parent)
    shutil.copytree(source, fresh, symlinks=True, ignore=without, copy_function=_link_or_copy)
    fresh.rename(target)
    atomic.sync_dir(target.parent)
    return target


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)


def read_meta(attempt_dir: Path) -> AttemptMeta:
    return atomic.read_record(AttemptMeta, attempt_dir / META)


def read_state(attempt_dir: Path) -> AttemptState:
    """Tell how the attempt stands.

    One whose ``state.json`` is torn or gone counts as running, by a dead process; if it is sealed, as what its report says.

    Raises:
        FileNotFoundError: there is no such attempt.
    """
    try:
        return atomic.read_record(AttemptState, f"{attempt_dir}/{STATE}")
    except (atomic.CorruptFile, FileNotFoundError):
        seen = now_text(datetime.fromtimestamp(attempt_dir.stat().st_mtime, UTC))
    state = AttemptState(
        status="running",
        run_id=run_id_of(attempt_dir.name),
        heartbeat=Heartbeat(count=0, at=seen),
        host=platform.node(),
    )
    if not is_sealed(attempt_dir):
        return state
    try:
        said = atomic.read_json(attempt_dir / FINAL).get("status")
    except (atomic.CorruptFile, FileNotFoundError):
        said = None
    status = said if said in TERMINAL else "lost"
    return state.model_copy(update={"status": status, "ended_at": seen})


def has_beaten(attempt_dir: Path, heartbeat_sec: float) -> bool:
    """Tell whether its supervisor has written ``state.json`` of late, by this host's clock."""
    try:
        age = clocks.age((attempt_dir / STATE).stat().st_mtime)
    except OSError:
        return False
    return age < _BEATS * heartbeat_sec + _BEAT_PATIENCE_SEC


def put_back_meta(attempt_dir: Path, content: bytes) -> None:
    """Write ``meta.json`` again, which is gone or has been changed, before the seal."""
    atomic.write_bytes(attempt_dir / META, content, durable=False)


def write_state(attempt_dir: Path, state: AttemptState) -> None:
    """Replace ``state.json`` without waiting for the disk; the seal does that."""
    atomic.write_json(f"{attempt_dir}/{STATE}", dump(state), durable=False)


def is_asked_to_end(attempt_dir: Path, run_id: str) -> bool:
    step_dir = os.fspath(attempt_dir).rsplit("/", 2)[0]
    return atomic.read_derived(f"{step_dir}/{CANCEL}").get("run_id") == run_id


def half_set_apart(step_dir: Path) -> str | None:
    """Return the attempt whose folder was set apart (``execute.set_apart``) and whose copy is not in its place yet."""
    try:
        aside = sorted(os.listdir(step_dir / "fenced"), reverse=True)
    except FileNotFoundError:
        return None
    known = {run_id_of(name) for name in names(step_dir)}
    return next((name for name in aside if run_id_of(name) not in known), None)


def is_set_apart(step_dir: Path, run_id: str) -> bool:
    """Tell whether the attempt's folder is the copy that no process on a silent host reaches."""
    try:
        return any(run_id_of(name) == run_id for name in os.listdir(step_dir / "fenced"))
    except FileNotFoundError:
        return False


class Fenced(Exception):
    """The attempt of this process was given up by the host that decides: nothing more of it is to be written."""


def fence(step_dir: Path, run_id: str, by: str) -> None:
    """Give up an attempt whose host is silent; its supervisor, should it live, sees that and writes nothing more.

    Args:
        by: the runner that says so.
    """
    document = {"schema_version": 1, "run_id": run_id, "by": by, "at": now_text()}
    atomic.claim(step_dir / f"fence.{run_id}.json", atomic.dumps(document).encode())


def is_fenced(step_dir: Path, run_id: str) -> bool:
    """Tell whether an attempt was given up.

    Raises:
        OSError: that cannot be told now, as when the file server has lost this host's locks or handles (EIO, ESTALE).
    """
    try:
        os.stat(f"{step_dir}/fence.{run_id}.json")  # noqa: PTH116 - asked at every beat
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def wait_until_told(is_fenced: Callable[[], bool]) -> bool:
    """Ask whether an attempt was given up until that can be told: who does not know may write nothing."""
    while True:
        try:
            return is_fenced()
        except OSError:
            time.sleep(_ASK_AGAIN_SEC)


def is_sealed(attempt_dir: Path) -> bool:
    return walk.kind(f"{attempt_dir}/{SEAL}") != ""
