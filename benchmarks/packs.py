"""What a finished trial takes on disk, as it ran and packed, and what packing costs."""

import os
from pathlib import Path

from benchmarks import setting as s
from benchmarks.meter import measure
from benchmarks.results import OURS, Figure, Row, Side
from benchmarks.setting import CHECKOUT, Setting
from parallelhassnes.packed import FILES


def packs(setting: Setting) -> Row:
    """Oracle trials in the sandbox, then packed, then unpacked."""
    count = 4 if setting.quick else 400
    row = Row(name="packs", work=f"{count} oracle trials in the sandbox, packed")
    folder = setting.root("packs")
    task = str(CHECKOUT / "examples/tasks/hello")
    _call(setting, row, folder, "run", task, "-a", "oracle", "-k", str(count), "-n", "4", "-e", "sandbox")
    (batch_dir,) = folder.glob("runs/[0-9]*")
    before = [weight(steps) for steps in batch_dir.glob("*/steps")]
    inodes, size = (sum(each[at] for each in before) for at in (0, 1))
    _call(setting, row, folder, "pack", "latest")
    packed = sum((batch_dir / name).lstat().st_blocks * 512 for name in FILES)
    left = weight(batch_dir)[0]
    _call(setting, row, folder, "unpack", "latest")
    row.figures = [
        Figure(measure="a trial on disk: files and folders", unit="count", ours=inodes / count),
        Figure(measure="a trial on disk", unit="MB", ours=size / count / 1e6),
        Figure(measure="files of the archive, a trial", unit="ratio", ours=len(FILES) / count, goal=0.05),
        Figure(measure="files with those of ledger and job, a trial", unit="ratio", ours=left / count),
        Figure(measure="bytes packed / as it ran", unit="ratio", ours=packed / size, goal=0.05),
        *(
            Figure(measure=f"{side.name.rpartition(' ')[2]}: CPU", unit="s", ours=side.runs[0].cpu_sec)
            for side in row.sides[1:]
        ),
    ]
    return row


def _call(setting: Setting, row: Row, folder: Path, name: str, *arguments: str) -> None:
    command = s.ours(name, *arguments, "--root", str(folder))
    usage = measure(command, setting.work / f"packs-{name}.log", s.environment())
    row.sides.append(Side(name=f"{OURS}: {name}", command=command, runs=[usage]))


def weight(top: Path) -> tuple[int, int]:
    """Files and folders below a folder, and the bytes that they take on disk."""
    count = size = 0
    for above, folders, files in os.walk(top):
        for name in (*folders, *files):
            count += 1
            size += Path(above, name).lstat().st_blocks * 512
    return count, size
