"""Names: safe ids, ids of batches and attempts, and the known word that an unknown one is near to.

Ids become file names, so they are checked here before they touch a path. Everything else that is
written as a file name, a queue key above all, is encoded by an injective function (``key_names``).
"""

import re
import string
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from parallelhassnes.errors import UserError

MAX_NAME = 128
"""Characters of the longest safe file name."""

BATCH_FILES = frozenset(
    {
        "batch_meta.json",
        "packed.tar.zst",
        "packed.seals.jsonl",
        "packed.json",
        "control.json",
        "index.json",
        "launch_table.json",
        "launch_table.yaml",
        "launch_table.yml",
        "ledger.jsonl",
        "scoreboard.batch.json",
        "scoreboard.shown.json",
        "spans.batch.json",
        "trials.batch.json",
    }
)
"""What lies in a batch's folder beside its jobs' folders, so that no job can be called so."""

CONFIG_NAME = "parallelhassnes.toml"
"""A root's settings."""
_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_BATCH_ID_ALPHABET = "234567" + string.ascii_lowercase
"""In the order in which file names sort."""
_PARTS = 32 * 32
"""Into which an id divides a second."""
_ARRIVAL = len("20261121T013645Z-k3")
_BATCH_ID = re.compile(r"\d{8}T\d{6}Z-(?![0-9a-f]{8}$)[2-7a-z]{8}", re.ASCII)
_RUN_ID_ALPHABET = string.ascii_lowercase + string.digits


# --- ids --------------------------------------------------------------------------------------------


def is_safe_id(text: object) -> bool:
    """Tell whether ``text`` can be a file name as it is: ``[A-Za-z0-9._-]``, 1–128 characters, no leading dot."""
    return isinstance(text, str) and _SAFE_ID.fullmatch(text) is not None


def check_id(text: object, what: str) -> str:
    """Return ``text`` itself, if it is a safe id; ``what`` is the noun for the message (``job id``).

    Raises UserError.
    """
    if isinstance(text, str) and is_safe_id(text):
        return text
    shown = repr(text) if len(repr(text)) <= 60 else repr(text)[:57] + "..."
    raise UserError(
        f"{shown} is not a {what}", fix="use 1 to 128 of the characters A-Z a-z 0-9 . _ - and no leading dot"
    )


def as_folder(text: str) -> str:
    """Tell what a name is to a file system that folds names: two ids that are alike here would share one folder somewhere.

    Case and Unicode's ways of writing one character (macOS, Windows), dots and spaces at the end (Windows, SMB).
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text).casefold())
    return folded.rstrip(". ") or folded


class Ids(Collection[str]):
    """Names that are taken, beside which one that differs by no more than a file system may fold is taken too."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._names.setdefault(as_folder(name), name)

    def like(self, name: str) -> str | None:
        """Return the name that is taken and that this one would share a folder with."""
        return self._names.get(as_folder(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and as_folder(name) in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._names)


def safe_id(text: str, taken: Ids | None = None) -> str:
    """Return a safe id for any text, the same one every time: ``org/name`` becomes ``org-name``.

    Long ones are cut and get a short hash of the whole; one that is in ``taken`` gets ``-2``, ``-3`` …
    """
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", text, flags=re.ASCII).lstrip(".-").rstrip("-")
    if not base:
        base = f"x{digest(text, 8)}"
    if len(base) > 96:
        base = f"{base[:87].rstrip('.-')}-{digest(text, 8)}"
    if taken is None or base not in taken:
        return base
    number = 2
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"


def new_batch_id(now: datetime | None = None, after: str = "") -> str:
    """Return ``20261121T013645Z-k3mzq7ab``: sorts by time to the millisecond, has no dot. ``now`` must be aware of its zone.

    The first two characters behind the dash are the part of the second, the other six (30 bits) are random.

    Args:
        after: ``arrival_of`` the newest batch that the store has: a clock that went back makes no id before it.
    """
    arrival = arrival_of(now or datetime.now(UTC))
    if arrival <= after:
        arrival = _next(after)
    import secrets

    return arrival + "".join(secrets.choice(_BATCH_ID_ALPHABET) for _ in range(6))


def arrival_of(moment: datetime) -> str:
    """Return the part of a batch's id that says when it arrived; these sort by time."""
    part = moment.microsecond * _PARTS // 1_000_000
    return f"{_stamp(moment)}-{_BATCH_ID_ALPHABET[part // 32]}{_BATCH_ID_ALPHABET[part % 32]}"


def arrival_in(batch_id: str) -> str | None:
    """Return the same part of an id; None where it is no id of this form, or one of an earlier version, which says when the table
    was last changed.
    """
    return batch_id[:_ARRIVAL] if _BATCH_ID.fullmatch(batch_id) else None


def _next(arrival: str) -> str:
    """Return the arrival that follows at once."""
    moment = datetime.strptime(arrival[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    high, low = (_BATCH_ID_ALPHABET.index(char) for char in arrival[17:_ARRIVAL])
    part = high * 32 + low + 1
    # In the middle of its part of the second, so that no rounding brings it back.
    moment += timedelta(microseconds=(2 * part + 1) * 1_000_000 // (2 * _PARTS))
    return arrival_of(moment)


def new_run_id() -> str:
    """Twelve lowercase letters and digits (62 bits): unique in the store and beyond, also in lowercase."""
    import secrets

    return "".join(secrets.choice(_RUN_ID_ALPHABET) for _ in range(12))


def attempt_name(run_id: str, now: datetime | None = None) -> str:
    """Return the name of an attempt's directory: ``20261121T013645Z_<run_id>``."""
    return f"{_stamp(now)}_{run_id}"


def begun(attempt: str) -> datetime:
    """Tell when an attempt was prepared, by the name of its directory, to the second."""
    return datetime.strptime(attempt.partition("_")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def run_id_of(attempt: str) -> str:
    """Return the run id in the name of an attempt's directory."""
    return attempt.partition("_")[2]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` was probably meant to be; None where there is none."""
    lowered: dict[str, str] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), candidate)
    import difflib

    meant = word.lower()[:200]
    hits = difflib.get_close_matches(meant, lowered, n=5, cutoff=0.6)
    # Their order is by letters in common, which calls n_trials as near to n_trails as n_tasks is.
    return lowered[min(hits, key=lambda hit: edits(meant, hit))] if hits else None


def edits(one: str, other: str) -> int:
    """Count the letters that are put in, left out, changed, or changed for the next one to make one word of another.

    The optimal string alignment distance: two neighbours that changed places count once.
    """
    before, last = list[int](), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            least = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and (letter, one[row - 2]) == (other[column - 2], wanted)
            line.append(min(least, before[column - 2] + 1) if swapped else least)
        before, last = last, line
    return last[-1]


def did_you_mean(word: str, known: Iterable[str], otherwise: str, shown: Callable[[str], str] = str) -> str:
    """Return what to do about an unknown word: "did you mean X?", else ``otherwise``.

    Args:
        shown: writes the known word, such as ``repr``.
    """
    near = nearest(word, known)
    return f"did you mean {shown(near)}?" if near else otherwise


def suggestion(word: str, known: Iterable[str], otherwise: str = "known are", most: int = 10) -> str:
    """Return what to do about an unknown word: "did you mean X?", else the words that are known.

    Args:
        otherwise: what stands before these words.
        most: words that are shown.
    """
    known = list(dict.fromkeys(known))
    shown = [*known[:most], *(["…"] if len(known) > most else [])]
    return did_you_mean(word, known, f"{otherwise} {', '.join(shown) or 'none'}")


def _stamp(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def digest(text: str, length: int) -> str:
    """Return so many characters of the hash of a text."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
