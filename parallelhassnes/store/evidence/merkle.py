"""The Merkle tree over the files of a sealed attempt (RFC 6962, section 2.1), whose root stands in ``seal.json`` and in
the ledger's line of the attempt's end: a proof can show one file of an attempt without any of the others.

A leaf is ``["<path>",<what the seal says of it>]`` as compact ASCII JSON with sorted keys; leaves are in the order of their
paths. ``leaf = SHA-256(00 ‖ JSON)``, ``node = SHA-256(01 ‖ left ‖ right)``; the last node of an odd row moves up as it is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def root(files: Mapping[str, Any]) -> str:
    """Return the root over a seal's ``files``, hexadecimal; the hash of nothing where there are none."""
    row = [_leaf(name, files[name]) for name in sorted(files)]
    if not row:
        return hashlib.sha256(b"").hexdigest()
    while len(row) > 1:
        row = _above(row)
    return row[0].hex()


def path(files: Mapping[str, Any], name: str) -> list[str]:
    """Tell what leads from the leaf of ``name`` to the root: ``L<hash>`` and ``R<hash>``, the sibling on that side, upwards.

    Raises:
        KeyError: there is no such file.
    """
    names = sorted(files)
    place = names.index(name) if name in files else -1
    if place < 0:
        raise KeyError(name)
    row, found = [_leaf(each, files[each]) for each in names], []
    while len(row) > 1:
        if place % 2:
            found.append(f"L{row[place - 1].hex()}")
        elif place + 1 < len(row):
            found.append(f"R{row[place + 1].hex()}")
        row, place = _above(row), place // 2
    return found


def _leaf(name: str, facts: Any) -> bytes:
    text = json.dumps([name, facts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"\0" + text.encode()).digest()


def _above(row: Sequence[bytes]) -> list[bytes]:
    pairs = zip(row[::2], row[1::2], strict=False)
    made = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
    return [*made, row[-1]] if len(row) % 2 else made
