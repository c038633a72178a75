"""The rows of the hostile suite: each engine, as root and as an ordinary user.

As root, an ordinary user is one of a user namespace of its own: it may read what the tests may, and has no right over the host.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from probes import namespaces

TESTS = Path(__file__).resolve().parent.parent
_ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")


class Row:
    """An engine and who starts it."""

    def __init__(self, engine: str, who: str, folder: Path) -> None:
        self.engine, self.who, self._folder, self._count = engine, who, folder, 0
        ordinary = _ORDINARY if who == "user" and os.geteuid() == 0 else ()
        self.maker = subprocess.Popen(
            [*ordinary, sys.executable, "-m", "hostile.one_trial"],
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def next_folder(self) -> Path:
        """Where the next sandbox will have its trial."""
        return self._folder / str(self._count + 1)

    @property
    def last_folder(self) -> Path:
        """Where the last sandbox had its trial."""
        return self._folder / str(self._count)

    def run(self, *commands: str, **options) -> dict:
        """Run commands in a fresh sandbox: ``said`` by each, the ``record``, and what is ``left`` in the trial's folder."""
        self._count += 1
        place = self._folder / str(self._count)
        (place / "tmp").mkdir(parents=True)
        asked = {
            "folder": str(place),
            "env": {**os.environ, "TMPDIR": str(place / "tmp"), "HARBOR_TELEMETRY": "0"},
            "commands": commands,
            "options": {"engine": self.engine, **options},
        }
        assert self.maker.stdin
        assert self.maker.stdout
        self.maker.stdin.write(json.dumps(asked) + "\n")
        self.maker.stdin.flush()
        done = json.loads(self.maker.stdout.readline())
        assert "raised" not in done, done["raised"]
        return done


ROWS = [
    pytest.param((engine, who), id=f"{engine}-{who}", marks=marks)
    for engine, marks in (("bubblewrap", [pytest.mark.bubblewrap]), ("unshare", []))
    for who in ("root", "user")
]


@pytest.fixture(scope="session", params=ROWS)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    engine, who = request.param
    if who == "root" and os.geteuid() != 0:
        pytest.skip("root's sandboxes need root")
    if missing := namespaces():
        pytest.skip(missing.reason)
    row = Row(engine, who, tmp_path_factory.mktemp(f"{engine}-{who}"))
    yield row
    row.maker.communicate(timeout=60)


@pytest.fixture(scope="session")
def attacked(row: Row) -> dict:
    """What every attack of ``attacks.py`` came to, by its name, and under ``trial`` the trial around them."""
    program = (TESTS / "hostile/attacks.py").read_text()
    trial = row.run(f"cat >/tmp/a.py <<'END'\n{program}\nEND\n/usr/bin/python3 /tmp/a.py")
    assert trial["said"][0]["code"] == 0, trial["said"]
    return {**json.loads(trial["said"][0]["out"]), "trial": trial}


type Run = Callable[..., dict]
