"""A folder as a zip, in pieces: nothing of it is kept in memory or on disk."""

import io
import os
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from parallelhassnes import walk
from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.errors import UnknownId

_CHUNK = 1 << 16
_FIRST_YEAR = 1980
"""A zip knows no time before it."""


class _Sink(io.RawIOBase):
    """Takes what the zip writes until it is fetched; cannot be sought in, so the zip is written front to back."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._data += piece
        return len(piece)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def zip_pieces(folder: Path, name: str) -> Iterator[bytes]:
    """Yield the zip of all regular files below the folder, under ``name/``; links are left out.

    A file that grows meanwhile is taken as far as it is when it is read.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for relative in _files(folder):
            try:
                stream = io.FileIO(open_below(folder, relative))
            except UnknownId:  # gone, or a link by now
                continue
            with stream:
                info = os.fstat(stream.fileno())
                moment = time.gmtime(info.st_mtime)[:6]
                entry = zipfile.ZipInfo(
                    f"{name}/{relative}", moment if moment[0] >= _FIRST_YEAR else (1980, 1, 1, 0, 0, 0)
                )
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = stat.S_IMODE(info.st_mode) << 16
                with made.open(entry, "w", force_zip64=True) as target:
                    while data := stream.read(_CHUNK):
                        target.write(data)
                        yield sink.take()
            yield sink.take()
    yield sink.take()


def _files(folder: Path) -> Iterator[str]:
    for relative, _ in walk.files(folder):
        if not relative.rpartition("/")[2].startswith(".tmp-"):
            yield relative
