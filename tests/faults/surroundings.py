"""The clock and the package's files of a soak: both can be changed under the processes that run.

``live_in`` starts a program anew whose clock is libfaketime's and whose package is a copy. Every process below reads its
clock's offset from a file, whose name its environment holds, at each look: a fork lives by another clock at once, and the
clock of one that runs is set by writing the file. The monotonic clock goes on.

    PLACE/clocks/host          the clock of everything that has no other
    PLACE/clocks/<n>           another, by which one tick and all that descends from it live
    PLACE/lib/parallelhassnes  → one of PLACE/versions/<n>, which an upgrade swaps in one act

The copies are the same code and call themselves ever later versions.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import probes
import stores

PACKAGE = "parallelhassnes"
_PLACE = "SOAK_PLACE"
_CLOCK = "FAKETIME_TIMESTAMP_FILE"
_COPIES = 2
_SPAWNING = 0.3
_LONGEST_AWAY_SEC = 2.0
_SLEEP = """import select
import time

time.sleep = lambda seconds: (select.select((), (), (), seconds), None)[1]
"""
"""libfaketime breaks ``time.sleep`` where a clock is set."""
_OFFSETS = ("+0s", "+90s", "-90s", "+3h", "-3h", "+2d", "-2d", "+400d", "-400d")


def live_in(module: str, arguments: list[str]) -> int:
    """Run a module of the tests in such surroundings; its exit code."""
    library = probes.faketime_library()
    if library is None:
        raise SystemExit("soak: no libfaketime: apt-get install libfaketime, or leave --disturb out")
    place = Path(tempfile.mkdtemp(prefix="soak-around-"))
    try:
        for name in ("clocks", "versions", "lib"):
            (place / name).mkdir()
        for number in range(_COPIES):
            shutil.copytree(stores.CHECKOUT / PACKAGE, place / "versions" / str(number))
        (place / "lib" / PACKAGE).symlink_to(place / "versions" / "0")
        _put(place / "clocks" / "host", "+0s")
        (place / "lib" / "sitecustomize.py").write_text(_SLEEP)
        path = (place / "lib", stores.SUPPORT["PYTHONPATH"])
        environment = os.environ | {
            _PLACE: str(place),
            _CLOCK: str(place / "clocks" / "host"),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "LD_PRELOAD": str(library),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return subprocess.run([sys.executable, "-P", "-m", module, *arguments], env=environment).returncode
    finally:
        shutil.rmtree(place, ignore_errors=True)


def are_there() -> bool:
    """Whether this process lives in such surroundings."""
    return _PLACE in os.environ


class Surroundings:
    """What of them one round changes."""

    def __init__(self) -> None:
        place = Path(os.environ[_PLACE])
        self._clocks, self._versions = place / "clocks", sorted((place / "versions").iterdir())
        self._live = place / "lib" / PACKAGE
        self._upgrades = 0
        self._away: tuple[Path, Path, float] | None = None

    def another_clock(self, chance: random.Random) -> Path:
        """A clock that is hours or days ahead or behind."""
        clock = self._clocks / str(len(list(self._clocks.iterdir())))
        _put(clock, chance.choice(_OFFSETS))
        return clock

    def live_by(self, clock: Path) -> None:
        """Have this process, and those that descend from it, live by the clock."""
        os.environ[_CLOCK] = str(clock)

    def jump(self, chance: random.Random) -> None:
        """Set one of the clocks."""
        _put(chance.choice(sorted(self._clocks.iterdir())), chance.choice(_OFFSETS))

    def upgrade(self) -> None:
        """Put a later version in the place of the package's files, in one act."""
        self._restore()
        now = self._versions.index(self._live.resolve())
        later = self._versions[(now + 1) % _COPIES]
        self._upgrades += 1
        path = later / "version.py"
        path.write_text(re.sub(r'(?m)^__version__ = ".*"', f'__version__ = "99.0.{self._upgrades}"', path.read_text()))
        link = self._live.with_name("next")
        link.symlink_to(later)
        link.replace(self._live)

    def tick_of_files(self, root: Path, chance: random.Random) -> None:
        """Become a tick of the package as its files are now; some start supervisors as fresh interpreters, too."""
        if chance.random() < _SPAWNING:
            os.environ["PARALLELHASSNES_START"] = "spawn"
        program = [sys.executable, "-P", "-m", PACKAGE, "tick", "--quiet", "--root", str(root)]
        os.dup2(2, 1)
        os.execv(program[0], program)

    def take_away(self, chance: random.Random, now: float) -> None:
        """Take the package's files, or a part of them, away for a while."""
        self._restore()
        whole = self._live
        path = chance.choice([whole, *(folder for folder in whole.iterdir() if (folder / "__init__.py").exists())])
        away = path.with_name(f"{path.name}.away")
        path.rename(away)
        self._away = (away, path, now + chance.uniform(0.1, _LONGEST_AWAY_SEC))

    def put_back(self, now: float) -> None:
        """Put back what has been away for long enough."""
        if self._away is not None and now >= self._away[2]:
            self._restore()

    def over(self) -> None:
        """Undo all of it; the package stays the version that it has become."""
        self._restore()
        for clock in self._clocks.iterdir():
            _put(clock, "+0s")

    def _restore(self) -> None:
        if self._away is not None:
            away, path, _ = self._away
            away.rename(path)
            self._away = None


def _put(clock: Path, offset: str) -> None:
    """Write whole: who reads it half written has no clock."""
    half = clock.parent.with_name("clock.half")
    half.write_text(offset)
    half.replace(clock)
