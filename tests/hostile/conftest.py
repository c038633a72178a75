"""The rows of the hostile suite: each engine, started by root and by an ordinary account of the host that has no right over it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import account
from probes import namespaces

TESTS = Path(__file__).resolve().parent.parent


class Maker:
    """A process of one user that makes sandboxes: with Harbor imported once, for all rows."""

    def __init__(self, who: str) -> None:
        becomes = who == "user" and os.geteuid() == 0
        self.uid = account.NUMBER if becomes else os.geteuid()
        # Not below pytest's own folder, which other accounts do not reach.
        self.folder = Path(tempfile.mkdtemp(prefix=f"hostile-{who}-", dir="/tmp"))
        self.give(self.folder)
        script = [str(TESTS / "hostile/account.py")] if becomes else ["-m"]
        self.process = subprocess.Popen(
            [sys.executable, *script, "hostile.one_trial"],
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}:{TESTS / 'support'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def give(self, path: Path) -> None:
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.uid)

    def end(self) -> None:
        self.process.communicate(timeout=60)
        shutil.rmtree(self.folder)


class Row:
    """An engine and who starts it."""

    def __init__(self, engine: str, who: str, maker: Maker) -> None:
        self.engine, self.who, self.uid, self._maker, self._count = engine, who, maker.uid, maker, 0
        self._folder = maker.folder / engine
        self._folder.mkdir()
        maker.give(self._folder)

    @property
    def next_folder(self) -> Path:
        """Where the next sandbox will have its trial."""
        return self._folder / str(self._count + 1)

    @property
    def last_folder(self) -> Path:
        """Where the last sandbox had its trial."""
        return self._folder / str(self._count)

    def run(self, *commands: str, path: str = os.environ["PATH"], **options) -> dict:
        """Run commands in a fresh sandbox: ``said`` by each, the ``record``, and what is ``left`` in the trial's folder.

        Args:
            path: the ``PATH`` of who starts it.
        """
        self._count += 1
        place = self._folder / str(self._count)
        for folder in (place, place / "tmp"):
            folder.mkdir()
            self._maker.give(folder)
        asked = {
            "folder": str(place),
            "env": {**os.environ, "PATH": path, "TMPDIR": str(place / "tmp"), "HARBOR_TELEMETRY": "0"},
            "commands": commands,
            "options": {"engine": self.engine, **options},
        }
        assert self._maker.process.stdin
        assert self._maker.process.stdout
        self._maker.process.stdin.write(json.dumps(asked) + "\n")
        self._maker.process.stdin.flush()
        done = json.loads(self._maker.process.stdout.readline())
        assert "raised" not in done, done["raised"]
        return done


ROWS = [
    pytest.param((engine, who), id=f"{engine}-{who}", marks=marks)
    for engine, marks in (("bubblewrap", [pytest.mark.bubblewrap]), ("unshare", []))
    for who in ("root", "user")
]


@pytest.fixture(scope="session")
def made() -> Iterator[dict]:
    """What has been made for rows: kept here, because tests of different rows come in any order."""
    found: dict = {}
    yield found
    for maker in [value for value in found.values() if isinstance(value, Maker)]:
        maker.end()


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest, made: dict) -> Row:
    engine, who = request.param
    if who == "root" and os.geteuid() != 0:
        pytest.skip("root's sandboxes need root")
    if missing := namespaces():
        pytest.skip(missing.reason)
    if who not in made:
        made[who] = Maker(who)
    if (engine, who) not in made:
        made[engine, who] = Row(engine, who, made[who])
    return made[engine, who]


@pytest.fixture
def attacked(row: Row, made: dict) -> dict:
    """What every attack of ``attacks.py`` came to, by its name, and under ``trial`` the trial around them."""
    if ("attacked", row) not in made:
        program = (TESTS / "hostile/attacks.py").read_text()
        trial = row.run(f"cat >/tmp/a.py <<'END'\n{program}\nEND\n/usr/bin/python3 /tmp/a.py")
        assert trial["said"][0]["code"] == 0, trial["said"]
        made["attacked", row] = {**json.loads(trial["said"][0]["out"]), "trial": trial}
    return made["attacked", row]
