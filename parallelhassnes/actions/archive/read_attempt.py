"""Reading one attempt of an archive, and proving it by its seal: its files are looked at, or made below a folder.

An archive has an attempt whole, or has the records alone that a rule left of it (``store/evidence/removals.py``), where it was pushed after that.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from parallelhassnes import walk
from parallelhassnes.actions.archive.push_batch import THREADS, each_of
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.archives import packing, unpacking
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives.object_store import ObjectStore
from parallelhassnes.store.archives.remote_batch import SealedAttempt
from parallelhassnes.store.evidence import merkle, removals, seal
from parallelhassnes.store.evidence.removals import Tombstone

type Look = Callable[[ObjectStore, SealedAttempt, Mapping[str, Any]], Mapping[str, Any]]
"""Returns what an attempt's files are, as ``seal.survey`` does."""


class Proved(NamedTuple):
    """An attempt that is what its seal says."""

    stored: int
    """Bytes in the archive."""
    is_whole: bool
    """If not, the archive has its records alone."""
    batch_id: str
    """The batch by which the archive has it."""


def read(store: ObjectStore, batch_id: str, digest: str, place: str, look: Look, *, records_do: bool) -> Proved:
    """Read an attempt, and compare it with its seal.

    Args:
        digest: SHA-256 of the seal.
        place: where it lies below a batch.
        look: ``survey`` or ``extract``.
        records_do: it may be that the archive has its records alone.

    Raises:
        WrongArchive: it is not what was sealed.
        StoreTrouble: that cannot be told.
    """
    key = remote.seal_key(batch_id, digest)
    if not removals.is_place(place):
        raise remote.wrong(store, key, "its place is none in a batch")
    attempt = remote.read_attempt(store, batch_id, digest).model_copy(update={"place": place})
    try:
        then = json.loads(attempt.seal)["files"]
        now = look(store, attempt, then)
        is_whole = merkle.root(now) == merkle.root(then)
        is_right = is_whole or (records_do and merkle.root(_records(now)) == merkle.root(_records(then)))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise remote.wrong(store, key, "holds no seal") from None
    if not is_right:
        raise remote.wrong(store, key, "its files are not those that were sealed")
    return Proved(attempt.stored, is_whole, batch_id)


def _records(files: Mapping[str, Any]) -> dict[str, Any]:
    return {path: facts for path, facts in files.items() if removals.stays(path)}


def read_best(
    store: ObjectStore, batch_id: str, digest: str, place: str, look: Look, stone: Tombstone | None
) -> Proved:
    """Read an attempt of a batch: whole, or its records where a rule has removed the rest and this archive is not said to have it; raises as ``read``.

    Args:
        stone: its tombstone, if it has one.
    """
    has_it = stone is not None and stone.archive == store.address
    other = stone.archived_as if stone is not None and has_it else ""
    found = read(
        store, batch_id, digest, place, look, records_do=stone is not None and not (has_it and other in ("", batch_id))
    )
    if found.is_whole or not other:
        return found
    return read(store, other, digest, place, look, records_do=False)


def prove(store: ObjectStore, batch_id: str, wanted: Mapping[str, str], *, threads: int = THREADS) -> int:
    """Read attempts, and prove that the archive has each of them whole; the bytes that were read.

    Args:
        wanted: SHA-256 of the seal → place.

    Raises:
        WrongArchive: one of them is not whole there.
        StoreTrouble: that cannot be told.
    """

    there = {name.removesuffix(".json") for name, _ in store.names(f"{remote.BATCHES}/{batch_id}/seals")}
    for digest in wanted.keys() - there:
        raise remote.wrong(store, remote.seal_key(batch_id, digest), "is gone")

    def check(item: tuple[str, str]) -> int:
        return read(store, batch_id, *item, survey, records_do=False).stored

    return sum(each_of(check, wanted.items(), threads))


def survey(store: ObjectStore, attempt: SealedAttempt, then: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read an attempt's files."""
    with remote.members(store, attempt.blobs, packing.ATTEMPT) as members:
        return seal.survey_members(_sealed(store, attempt, then, members), packing.ATTEMPT, like=then)


def extract(aside: Path, store: ObjectStore, attempt: SealedAttempt, then: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make an attempt's folder at its place below another, instead of what may be there."""
    target = aside / attempt.place
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = atomic.temp_path(target.parent)
    fresh.mkdir()
    try:
        with remote.members(store, attempt.blobs, packing.ATTEMPT) as members:
            unpacking.extract_members(_sealed(store, attempt, then, members), fresh)
        made = fresh / packing.ATTEMPT
        found = seal.survey(made, sync=False, like=then)
        walk.remove_tree(target)
        made.rename(target)
    finally:
        walk.remove_tree(fresh)
    return found


def _sealed(
    store: ObjectStore,
    attempt: SealedAttempt,
    then: Mapping[str, Any],
    members: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]],
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Give an attempt's members on, each file of the size that was sealed, and the seal as it was: before any of it is on a disk.

    Raises:
        WrongArchive: one is of another size, or the seal is another or is not there.
    """
    text, is_there = attempt.seal.encode(), False
    for info, content in members:
        path = info.name.partition("/")[2]
        if path == attempts.SEAL:
            is_there = True
            if content is None or info.size != len(text) or content.read() != text:
                raise remote.wrong(store, attempt.place, "has another seal among its files")
            yield info, io.BytesIO(text)
            continue
        if content is not None and info.size != then.get(path, {}).get("size", info.size if path in then else -1):
            raise remote.wrong(store, attempt.place, f"{path[:200]!r} is not of the size that was sealed")
        yield info, content
    if not is_there:
        raise remote.wrong(store, attempt.place, "has no seal among its files")
