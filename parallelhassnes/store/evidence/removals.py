"""Attempts whose files were removed by a rule, and what is left to say so: tombstones in the batch's ledger.

    {"event": "removed", "by": …, "rule": "old", "says": "after 90 days, passed",
     "attempts": [{"attempt": "<job>/steps/<step>/attempts/<name>", "seal": "<SHA-256 of seal.json>", "merkle_root": …, "files": 12, "bytes": 70123}, …]}
    {"event": "removed", …, "archive": "s3://…", "archived_as": "<batch_id>"}    that archive has these attempts whole, as it was read before
    {"event": "restored", "by": …, "archive": "s3://…", "archived_as": …, "attempts": [{"attempt": …, "seal": …}, …]}    the files are back from there

The line is on disk before the first file goes, so a crash leaves files that nobody needs, and never a gap that nobody explains: what such
an attempt still has beside its records is removed by the next ``gc`` (``strip``) and is not packed. Records stay: ``meta.json``, ``state.json``, the
report, what it published, and ``seal.json`` with the hash of every file that was there. So nothing that counts or decides by attempts
sees a difference. An attempt that was taken over after its files had gone gets the same tombstone in the ledger of the batch that has taken it over;
where an archive has it, that word names the batch which has it there (``archived_as``; without it the batch's own id).

Files come back the other way round: they are all in place, and on disk, before the line ``restored`` takes the tombstone's word back. What a crash leaves
before that line are files that have a tombstone.

A tombstone counts only behind the line of its attempt's end, and with the seal that stands there. By no other are files removed, or left out of an archive,
whatever a ledger says that came from elsewhere or that somebody has written by hand.
"""

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import batched
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import file_stamp, places, walk
from parallelhassnes.errors import UserError
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.names import is_safe_id
from parallelhassnes.store import locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

EVENT, RESTORED = "removed", "restored"
_STAYS = frozenset(
    {"meta.json", "state.json", "final.json", "final.txt", "seal.json", "analysis.json", "verdict.json", "publish"}
)
_A_LINE = 200
"""Attempts that one line of a ledger speaks of at most."""


class Tombstone(NamedTuple):
    """What is said of one attempt."""

    at: str
    """When."""
    by: str
    rule: str
    """Name of the rule."""
    says: str
    """The rule, in words."""
    seal: str
    """SHA-256 of the attempt's ``seal.json``."""
    merkle_root: str
    files: int
    """That were removed, or were to be."""
    bytes: int
    archive: str = ""
    """Address of the archive that has the attempt whole; empty where a rule asked for none."""
    archived_as: str = ""
    """The batch that has the attempt there; empty for its own."""
    batch_id: str = ""
    """The batch that the tombstone is in, where that was asked for."""

    def says_of_files(self, other: "Tombstone") -> bool:
        """Tell whether both say the same of an attempt's files, whoever has removed them."""
        return self[4:8] == other[4:8]

    @property
    def line(self) -> str:
        """Tell it to whoever looks for a file."""
        text = f"its files were removed on {self.at[:10]} by the rule {self.rule} ({self.says}); report, verdict and seal are kept"
        if not self.archive:
            return text
        command = f"parallelhassnes archive pull {self.batch_id} --from {shlex.quote(self.archive)}"
        return f"{text}, and `{command}` brings the files back"


def stays(path: str) -> bool:
    """Tell whether a file of an attempt, by its path in the attempt's folder, is a record that no rule removes, or below one's name."""
    return path.partition("/")[0] in _STAYS


def goes(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a seal's files a rule removes."""
    return {path: facts for path, facts in files.items() if not stays(path)}


def of(batch_dir: Path | str) -> dict[str, Tombstone]:
    """Return place of each such attempt, below the batch's folder → its tombstone."""
    as_of = file_stamp.at(f"{batch_dir}/{ledger.LEDGER}")  # asked for every file that is not there
    return {} if as_of is None else _read(os.fspath(batch_dir), as_of)


@lru_cache(maxsize=16)
def _read(batch_dir: str, _ledger_as_of: FileStamp) -> dict[str, Tombstone]:
    data = b""
    with contextlib.suppress(OSError), open(f"{batch_dir}/{ledger.LEDGER}", "rb") as stream:  # noqa: PTH123 - the store's own
        data = stream.read()
    if f'"event":"{EVENT}"'.encode() not in data:
        return {}
    found: dict[str, Tombstone] = {}
    seals: dict[str, str] = {}
    batch_id = os.path.basename(batch_dir)  # noqa: PTH119 - a plain path
    for line in ledger.mentioning(Path(batch_dir), EVENT, RESTORED, ledger.SEALED):
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a line that no writer of ours has written
            if line.get("event") == EVENT:
                told = {place: stone._replace(batch_id=batch_id) for place, stone in told_by(line).items()}
                found.update({place: stone for place, stone in told.items() if seals.get(place) == stone.seal})
            elif line.get("event") == RESTORED:
                take_back(found, line)
            elif (sealed := ledger.sealed_by(line)) is not None:
                seals.update([sealed])
    return found


def told_by(line: Mapping[str, Any]) -> dict[str, Tombstone]:
    """Return what one line of a ledger says.

    Raises:
        KeyError, TypeError, ValueError: it says nothing that a tombstone does.
    """
    head = str(line["at"]), str(line["by"]), str(line["rule"]), str(line["says"])
    where = str(line.get("archive", "")), str(line.get("archived_as", ""))
    return {
        _place(each["attempt"]): Tombstone(
            *head, str(each["seal"]), str(each["merkle_root"]), index(each["files"]), index(each["bytes"]), *where
        )
        for each in line["attempts"]
    }


def restored_by(line: Mapping[str, Any]) -> dict[str, str]:
    """Return place → seal of each attempt whose files are back by a line ``restored``; raises as ``told_by``."""
    return {_place(each["attempt"]): str(each["seal"]) for each in line["attempts"]}


def back_by(lines: Iterable[Mapping[str, Any]], without: str) -> set[str]:
    """Return the places of the attempts whose files are back by some of a ledger's lines.

    Args:
        without: address of an archive; what came from there is left out, where it has it by this batch's id.
    """
    found: set[str] = set()
    for line in lines:
        if line.get("event") == RESTORED and (line.get("archive") != without or "archived_as" in line):
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a line that no writer of ours has written
                found.update(restored_by(line))
    return found


def take_back(stones: dict[str, Tombstone], line: Mapping[str, Any]) -> None:
    """Drop the tombstones of attempts whose files are back by a line ``restored``; raises as ``told_by``."""
    for place, seal in restored_by(line).items():
        if place in stones and stones[place].seal == seal:
            del stones[place]


def is_place(text: str) -> bool:
    """Tell whether a path is that of an attempt below a batch's folder, and nothing else."""
    try:
        return all(map(is_safe_id, places.place(text)))
    except ValueError:
        return False


def _place(text: str) -> str:
    """Return it, if it is the place of an attempt below a batch: files are removed there."""
    if not is_place(text):
        raise ValueError(f"{text}: is no attempt of a batch")
    return text


def of_seal(seal: str, root: str, files: Mapping[str, Any]) -> Tombstone:
    """Return what is to be said of an attempt with such a seal, by no rule yet.

    Args:
        seal: its hash.
        root: its Merkle root.
    """
    gone = goes(files)
    return Tombstone("", "", "", "", seal, root, len(gone), sum(int(facts.get("size", 0)) for facts in gone.values()))


def of_attempt(attempt_dir: Path) -> Tombstone | None:
    """Return the tombstone of one attempt; None where it has all that it had."""
    parts = attempt_dir.parts[-5:]
    if len(parts) < 5 or len(attempt_dir.parents) < 5:
        return None
    return of(attempt_dir.parents[4]).get("/".join(parts))


def bury(
    batch_dir: Path,
    rule: str,
    says: str,
    buried: Mapping[str, Tombstone],
    *,
    by: str | None = None,
    archive: str = "",
    archived_as: str = "",
) -> None:
    """Write the tombstones of attempts, before any of their files goes; the caller is the ledger's only writer.

    Args:
        archive: address of the archive that has them whole.
        archived_as: the batch that has them there, where it is another.

    Raises:
        OSError: there is no space for them; those that are not written yet are not.
    """
    for group in batched(buried, _A_LINE):
        ledger.append(
            batch_dir,
            EVENT,
            by=by or ledger.person(),
            rule=rule,
            says=says,
            archive=archive or None,
            archived_as=archived_as or None,
            attempts=[
                {
                    "attempt": place,
                    "seal": buried[place].seal,
                    "merkle_root": buried[place].merkle_root,
                    "files": buried[place].files,
                    "bytes": buried[place].bytes,
                }
                for place in group
            ],
        )


def tell_restored(batch_dir: Path, back: Mapping[str, str], archive: str, archived_as: str = "") -> None:
    """Write that the files of buried attempts are back, after they are; the caller is the ledger's only writer.

    Args:
        back: place → seal.
        archive: where they came from.
        archived_as: the batch that has them there, where it is another.

    Raises:
        OSError: there is no space for it.
    """
    for some in batched(back.items(), _A_LINE):
        attempts = [{"attempt": place, "seal": seal} for place, seal in some]
        where = {"archive": archive, "archived_as": archived_as or None}
        ledger.append(batch_dir, RESTORED, by=ledger.person(), **where, attempts=attempts)


def left_of(attempt_dir: Path) -> list[str]:
    """Return what a buried attempt still has beside its records: names in its folder."""
    try:
        return sorted(name for name in os.listdir(attempt_dir) if not stays(name))
    except (FileNotFoundError, NotADirectoryError):  # it is packed
        return []


def strip(attempt_dir: Path, names: Iterable[str]) -> None:
    """Remove what a buried attempt still has; again after a crash, and beside another that does the same.

    Raises:
        OSError: something of it cannot be removed.
    """
    for name in names:
        walk.remove_tree(attempt_dir / name)


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep others from removing files of attempts, or bringing them back, within the block.

    Raises:
        UserError: somebody is at it.
    """
    lock = locks.hold(layout.gc_lock)
    if lock is None:
        raise UserError(
            "another gc is at work on this store, or what brings removed files back", fix="wait until it has ended"
        )
    try:
        yield
    finally:
        locks.release(lock)
