"""What two hosts say to each other through the files, and what each does there for the other to see.

    runners/.hosts/probe/<nonce>/ask.json      the asking host, A: who it is, and whether one answer is enough
    runners/.hosts/probe/<nonce>/answered      A's: whoever makes it by link() is the one that answers
    runners/.hosts/probe/<nonce>/<answerer>/   one conversation, with a host B
        say/a<n>.json  say/b<n>.json    what each says in turn:
                       b0 who B is   a1 begin   b1 looked   a2 race   b2 what B won and saw   a3 kill   a4 the outcome   b3 joined
        <kind>/a/  <kind>/b/            what each does for the other to see, kind by kind, and in rounds: A acts, B sees it and does
                                        the same, A sees that. So a round trip is measured by A's clock alone
        race/                           both link, and rename, the same hundred names at the same time: each has one winner
        lock.a                          A locks it: B must not get it
        lock.b                          a process of B's locks it: A must not, and must when B has killed that

B answers where it is another host than A, and once: its folder says so. A removes all of it at its end, and B what it made where A has
gone. Nothing in here is read by anything else; what is left of hosts that died may be deleted.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallelhassnes import walk
from parallelhassnes.store import atomic, members
from parallelhassnes.store.hosts import Told
from parallelhassnes.store.layout import Layout

ALL_SEC = 60.0
"""Time that a probe has, in all."""
CONVERSATION_SEC = 45.0
"""Time that two hosts have, of that."""
ROUNDS = 3
ROUNDS_SEC = 12.0
"""After so long no further round is begun: what takes so long is known well enough."""
RACES = 100
LOOK_SEC = 0.005
_REFRESH_SEC = 0.2


class Ask(Told):
    """``ask.json``."""

    schema_version: Literal[1] = 1
    boot_id: str
    name: str
    one: bool
    """One answer is enough."""


class Silent(Exception):
    """The other host does not go on, or what it did is not seen here."""


def probes(layout: Layout) -> Path:
    return layout.hosts / "probe"


def put_away(folder: Path) -> None:
    """Remove a probe that is over, and what earlier ones have left.

    A host that is just looking may still write there, and a file that is open on another host leaves one that cannot be removed
    until it is closed (``.nfs…``, ``.fuse_hidden…``): what stays is removed by a later probe.
    """
    folders = [folder]
    with contextlib.suppress(OSError):
        now = folder.stat().st_mtime
        others = [folder.with_name(name) for name in members.names(folder.parent) if name != folder.name]
        folders += [each for each in others if each.is_dir() and now - each.stat().st_mtime > 2 * ALL_SEC]
    for each in folders:
        with contextlib.suppress(OSError):
            walk.remove_tree(each)


# --- what is done, and seen ---------------------------------------------------------------------------


class Visible(NamedTuple):
    """One way in which files change."""

    text: str
    """What is seen, or is not."""
    prepare: Callable[[Path], None]
    act: Callable[[Path, int], None]
    """Do it for the n-th time, from 1 on."""
    seen: Callable[[Path, int], bool]


def _write(path: Path, text: str) -> None:
    atomic.write_text(path, text, durable=False)


def _read(path: Path) -> str:
    try:
        return atomic.read_bytes(path).decode("ascii", "replace")
    except (OSError, atomic.CorruptFile):
        return ""


def _is_stat(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_listed(folder: Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        return name in os.listdir(folder)
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _nothing(folder: Path) -> None:
    del folder


def _several(folder: Path) -> None:
    for number in range(1, ROUNDS + 1):
        _write(folder / str(number), "there")


KINDS: dict[str, Visible] = {
    "opened": Visible(
        "a new file, opened",
        _nothing,
        lambda folder, n: _write(folder / str(n), repr(time.time())),
        lambda folder, n: bool(_read(folder / str(n))),
    ),
    "stated": Visible(
        "a new file, looked at",
        _nothing,
        lambda folder, n: _write(folder / str(n), "there"),
        lambda folder, n: _is_stat(folder / str(n)),
    ),
    "listed": Visible(
        "a new file, listed",
        _nothing,
        lambda folder, n: _write(folder / str(n), "there"),
        lambda folder, n: _is_listed(folder, str(n)),
    ),
    "replaced": Visible(
        "a replaced file, opened",
        lambda folder: _write(folder / "it", "x"),
        lambda folder, n: _write(folder / "it", "x" * (n + 1)),
        lambda folder, n: len(_read(folder / "it")) == n + 1,
    ),
    "resized": Visible(
        "a replaced file, looked at",
        lambda folder: _write(folder / "it", "x"),
        lambda folder, n: _write(folder / "it", "x" * (n + 1)),
        lambda folder, n: _size(folder / "it") == n + 1,
    ),
    "removed": Visible(
        "a removed file",
        _several,
        lambda folder, n: (folder / str(n)).unlink(missing_ok=True),
        lambda folder, n: _is_gone(folder / str(n)),
    ),
}


class Talk:
    """One side of a conversation."""

    def __init__(self, folder: Path, me: Literal["a", "b"], end: float) -> None:
        """Args:
        end: when it is over, by the monotonic clock.
        """
        self.folder, self.me, self.end = folder, me, end
        self.other = "b" if me == "a" else "a"
        self.torn = 0
        """How often a file that is replaced was seen with neither its old nor its new content."""
        self._refreshed = 0.0

    def prepare(self) -> None:
        """Make this side's folders and what is in them."""
        (self.folder / "say").mkdir(exist_ok=True)
        (self.folder / "race").mkdir(exist_ok=True)
        for name, kind in KINDS.items():
            own = self.folder / name / self.me
            own.mkdir(parents=True, exist_ok=True)
            kind.prepare(own)

    def say(self, number: int, document: dict[str, Any]) -> None:
        _write(self.folder / "say" / f"{self.me}{number}.json", atomic.dumps(document))

    def heard(self, number: int) -> dict[str, Any] | None:
        """Tell what the other has said, where it is seen yet. Changing the folder has most file systems look at it anew."""
        now = time.monotonic()
        if now - self._refreshed > _REFRESH_SEC:
            self._refreshed = now
            scratch = self.folder / "say" / f".{self.me}"
            with contextlib.suppress(OSError):
                scratch.mkdir()
                scratch.rmdir()
        with contextlib.suppress(OSError, atomic.CorruptFile):
            document: dict[str, Any] = atomic.read_json(self.folder / "say" / f"{self.other}{number}.json")
            return document
        return None

    def hear(self, number: int) -> dict[str, Any]:
        """Tell what the other says.

        Raises:
            Silent: it says nothing until the end.
        """
        while (said := self.heard(number)) is None:
            self.pause("it has stopped answering, or what it says is not seen here")
        return said

    def pause(self, why: str) -> None:
        """Wait a moment.

        Raises:
            Silent: the time is up.
        """
        if time.monotonic() > self.end:
            raise Silent(why)
        time.sleep(LOOK_SEC)

    def act(self, kind: str, number: int) -> None:
        KINDS[kind].act(self.folder / kind / self.me, number)

    def sees(self, kind: str, number: int) -> bool:
        """Tell whether what the other did for the n-th time is seen."""
        folder = self.folder / kind / self.other
        if KINDS[kind].seen(folder, number):
            return True
        if kind == "replaced" and len(_read(folder / "it")) not in (number, number + 1):
            self.torn += 1
        return False

    def time_said(self, number: int) -> float | None:
        """Return the other's clock, as it stands in what it made in a round."""
        try:
            return float(_read(self.folder / "opened" / self.other / str(number)))
        except ValueError:
            return None


# --- races --------------------------------------------------------------------------------------------


class Won(Told):
    """What one side won."""

    links: tuple[int, ...]
    renames: tuple[int, ...]
    trouble: str = ""
    """What the file system refused."""


def prepare_races(folder: Path) -> None:
    """Make what is raced for, before anybody races."""
    (folder / "race").mkdir(exist_ok=True)
    for number in range(RACES):
        _write(folder / "race" / f"from.{number}", "there")


def race(talk: Talk) -> Won:
    """Link to, and rename away, each of the names that the other side goes for too."""
    folder = talk.folder / "race"
    own = folder / f"{talk.me}.own"
    _write(own, talk.me)
    links, renames = [], []
    try:
        for number in range(RACES):
            time.sleep(random.random() * 0.002)  # noqa: S311 - so that either is first
            try:
                os.link(own, folder / f"to.{number}")
                links.append(number)
            except FileExistsError:
                pass
            try:
                os.rename(folder / f"from.{number}", folder / f"{talk.me}.{number}")  # noqa: PTH104 - in a race
                renames.append(number)
            except FileNotFoundError:
                pass
    except OSError as error:
        return Won(links=tuple(links), renames=tuple(renames), trouble=error.strerror or type(error).__name__)
    return Won(links=tuple(links), renames=tuple(renames))


def judge_races(talk: Talk, mine: Won, theirs: Won) -> tuple[str, str]:
    """Tell what is wrong with link, and with rename; empty where each name had one winner."""
    folder = talk.folder / "race"
    if mine.trouble or theirs.trouble:
        return (mine.trouble or theirs.trouble,) * 2
    links = renames = ""
    winner = dict.fromkeys(theirs.links, talk.other) | dict.fromkeys(mine.links, talk.me)
    twice = len(set(mine.links) & set(theirs.links))
    wrong = sum(1 for number, side in winner.items() if _read(folder / f"to.{number}") != side)
    if twice or wrong:
        links = f"{twice} of {RACES} names were linked by both hosts, {wrong} hold what the loser wrote"
    twice, none = len(set(mine.renames) & set(theirs.renames)), RACES - len({*mine.renames, *theirs.renames})
    if twice or none:
        renames = f"{twice} of {RACES} files were renamed by both hosts, {none} by neither"
    return links, renames
