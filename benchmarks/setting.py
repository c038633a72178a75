"""What every row is given: where to work, how much of it, and the programs that are measured."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.meter import measure
from benchmarks.results import Row, Side
from parallelhassnes.admin.init import init
from parallelhassnes.store.layout import Layout

CHECKOUT = Path(__file__).resolve().parent.parent
HARBOR = "harbor run"
SANDBOX = {"import_path": "parallelhassnes.sandbox.environment:SandboxEnvironment"}

type Make = Callable[[Path], list[str]]
"""Prepares a fresh folder and returns the command that works in it."""
type Check = Callable[[Path], None]
"""Raises where the work in the folder was not done."""


@dataclass(frozen=True)
class Setting:
    """One run of the benchmarks."""

    work: Path
    """Stores and logs of the measured programs."""
    quick: bool
    """Small sizes, one run each: shows that it works, says nothing about speed."""
    pairs: int | None = None
    """Runs of each side, where the row's own number is not wanted."""

    def runs(self, usual: int) -> int:
        return 1 if self.quick else self.pairs or usual

    def fresh(self, name: str) -> Path:
        """A new, empty folder. Earlier ones stay till the end: ext4 is slow to make files just after many were removed."""
        return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.work))

    def root(self, name: str) -> Path:
        """A fresh folder with an empty store of ours."""
        folder = self.fresh(name)
        init(folder)
        return folder


def bring_to_rest(setting: Setting, root: Path) -> None:
    """Tick twice, so that the next tick is an idle one: the first writes a new store's configuration, the second notes the rest.

    Raises:
        ValueError: there is something to do in the store.
    """
    for _ in range(2):
        measure(ours("tick", "--quiet", "--root", str(root)), setting.work / "rest.log", environment())
    if not Layout(root).at_rest.exists():
        raise ValueError(f"{root}: no tick was idle")


_NOT_USUAL = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Without compiled files kept, every start of a checkout compiles it anew, which no user has."""


def environment(**more: str) -> dict[str, str]:
    """The environment of every measured program, ours and others'."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_USUAL}
    return {
        **inherited,
        "PYTHONPATH": str(CHECKOUT),
        "HARBOR_TELEMETRY": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }


def ours(*arguments: str) -> list[str]:
    """A command line of this project, as a user types it."""
    return [sys.executable, "-m", "parallelhassnes", *arguments]


def harbor() -> str | None:
    """The installed program ``harbor``: the one beside our interpreter, else the one on PATH."""
    beside = Path(sys.executable).with_name("harbor")
    return str(beside) if beside.exists() else shutil.which("harbor")


def write_json(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return path


def alternate(
    setting: Setting,
    row: Row,
    programs: dict[str, tuple[Make, Check]],
    runs: int,
    environ: dict[str, str],
    *,
    memory: bool = True,
) -> dict[str, Side]:
    """Run the programs in turn, A B A B, then each once more for its memory; the sides also go into the row."""
    sides: dict[str, Side] = {}
    for number in range(runs + int(memory)):
        for name, (make, check) in programs.items():
            slug = f"{row.name}-{name.replace(' ', '-').replace(',', '')}"
            folder = setting.fresh(slug)
            command = make(folder)
            sampled = number == runs
            usage = measure(command, setting.work / f"{slug}.log", environ, memory=sampled)
            check(folder)
            side = sides.setdefault(name, Side(name=name, command=command))
            if sampled:
                side.memory = usage
            else:
                side.runs.append(usage)
                print(
                    f"  {row.name}: {name}: {usage.wall_sec:.2f} s, CPU {usage.cpu_sec:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
    row.sides = list(sides.values())
    return sides
