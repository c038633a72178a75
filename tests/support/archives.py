"""Folders as the archives that clients send; batches that are kept in archives elsewhere."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

from stores import idle, program, put, table, wait_for

from parallelhassnes.store import batches

LEAVES = r"""
cd "$PARALLELHASSNES_ATTEMPT_DIR"; mkdir -p agent/artifacts/out/a/b; cd agent/artifacts/out
echo deep > a/b/deep.txt; : > empty; ln -s /etc/passwd link; mkfifo pipe; printf x > "$(printf 'no\377text')"
truncate -s 3M holes; printf end >> holes; head -c 300000 /dev/urandom > noise; chmod 6755 empty
"""


def zipped(folder, top: str = "") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder)}")
    return made.getvalue()


def tarred(folder, top: str = ".") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(folder, arcname=top)
    return made.getvalue()


def ended(ctx, *jobs, **more):
    """A batch that has ended."""
    batch_id = put(ctx, table(*jobs, **more))
    program(ctx.layout.root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(ctx.layout.root, "tick")
    return batch_id


def contents(folder, *, ledger=True):
    """What is in a folder's files, and when each but the ledger was changed."""
    found = {}
    for above, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            path = os.path.join(above, name)
            kind = os.lstat(path).st_mode & 0o170000
            data = Path(os.fsdecode(path)).read_bytes() if kind == 0o100000 else b""
            at = 0 if name == b"ledger.jsonl" else os.lstat(path).st_mtime_ns
            found[os.path.relpath(path, os.fsencode(folder))] = (kind, at, data)
    derived = set(map(os.fsencode, batches.DERIVED))
    return {path: said for path, said in found.items() if path not in derived and (ledger or path != b"ledger.jsonl")}
