"""How fast an attempt's files are looked at for secrets: MB per second of CPU time, by what is in them."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.results import Figure, Row
from benchmarks.setting import Setting
from parallelhassnes.config import Bounds
from parallelhassnes.execute.clean import Patience, clean
from parallelhassnes.execute.redact import Redactor

SIZE = 256 << 20
_SECRETS = {f"KEY_{number}": os.urandom(20).hex() + "-Zz" for number in range(5)}


class Speed(NamedTuple):
    """One kind of file."""

    what: str
    mb_per_sec: float


def _contents() -> dict[str, bytes]:
    prose = (Path(__file__).parent.parent / "CHANGELOG.md").read_bytes()
    line = json.dumps({"type": "item", "text": prose.decode()[:2000], "n": 1}).encode() + b"\n"
    secret = f"{next(iter(_SECRETS.values()))}\n".encode()
    return {
        "text": prose,
        "JSON lines": line,
        "random bytes": os.urandom(1 << 20),
        "text with a secret in every 4 KB": prose[:4096] + secret,
    }


def speeds(folder: Path, size: int = SIZE) -> list[Speed]:
    """Make a file of each kind below the folder, and clean it."""
    found = []
    for what, content in _contents().items():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "file"
            path.write_bytes(content * (size // len(content)))
            began = time.process_time()
            clean(Path(place), Redactor(_SECRETS), Bounds(), Patience(Bounds()))
            found.append(Speed(what, round(size / 1e6 / (time.process_time() - began))))
    return found


def redaction(setting: Setting) -> Row:
    """An attempt's files looked through for five secrets."""
    row = Row(name="redaction", work="files looked through for secrets")
    for speed in speeds(setting.work, SIZE >> 6 if setting.quick else SIZE):
        measure = f"CPU for a GB of {speed.what}"
        row.figures.append(Figure(measure=measure, unit="s", ours=1000 / speed.mb_per_sec, goal=5.0))
    return row


if __name__ == "__main__":
    for speed in speeds(Path.cwd()):
        print(f"{speed.what:36} {speed.mb_per_sec:6.0f} MB/s")
