"""What is inside a compressed file, as bytes to be searched: gzip, bzip2, xz, zstd, zlib (git's loose objects) and members of zips.

One layer is undone: what is compressed twice, or encrypted, is not seen. Nothing is written.
"""

import bz2
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

_CHUNK = 1 << 20
_ZIP = b"PK\x03\x04"


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the interface of the others; concatenated streams of gzip are one."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._made = zlib.decompressobj(window)

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        data = self._made.unconsumed_tail + data
        if self._made.eof:
            data = self._made.unused_data.lstrip(b"\0") + data
            if not data:
                return b""
            self._made = zlib.decompressobj(self._window)
        return self._made.decompress(data, max(0, max_length))


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:  # no wheel for this machine
        return None
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)


def pieces(handle: int, beginning: bytes) -> Iterator[bytes]:
    """Tell what the file holds once it is decompressed, piece by piece; nothing where it is not compressed.

    Of what cannot be decompressed to its end, the part before the fault is given. Pieces of a member follow each other; a zip's members are
    given one after the other.

    Args:
        beginning: the file's first bytes.
    """
    if beginning.startswith(_ZIP):
        yield from _members(handle)
    elif beginning.startswith(b"\x1f\x8b"):
        yield from _stream(handle, _Zlib(31))
    elif beginning.startswith(b"BZh"):
        yield from _stream(handle, bz2.BZ2Decompressor())
    elif beginning.startswith(b"\xfd7zXZ\0"):
        yield from _stream(handle, lzma.LZMADecompressor())
    elif beginning.startswith(b"\x28\xb5\x2f\xfd"):
        if (made := _zstd()) is not None:
            yield from _stream(handle, made)
    elif len(beginning) > 2 and beginning[0] == 0x78 and int.from_bytes(beginning[:2]) % 31 == 0:
        yield from _stream(handle, _Zlib(15))


def _stream(handle: int, made: _Decompressor) -> Iterator[bytes]:
    offset = 0
    is_bounded = not hasattr(made, "unused_data") or isinstance(made, bz2.BZ2Decompressor | lzma.LZMADecompressor)
    try:
        while data := os.pread(handle, _CHUNK if is_bounded else 1 << 14, offset):
            offset += len(data)
            out = made.decompress(data, _CHUNK) if is_bounded else made.decompress(data)
            while out:
                yield out
                out = made.decompress(b"", _CHUNK) if is_bounded else b""
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError, RuntimeError):
        return
    except Exception as error:
        if type(error).__module__.split(".")[0] != "zstandard":
            raise


def _members(handle: int) -> Iterator[bytes]:
    try:
        with os.fdopen(os.dup(handle), "rb") as stream, zipfile.ZipFile(stream) as opened:
            for info in opened.infolist():
                yield info.filename.encode("utf-8", "replace") + b"\n"
                try:
                    with opened.open(info) as member:
                        while data := member.read(_CHUNK):
                            yield data
                except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError):
                    continue  # encrypted, broken, or packed in a way that nobody here undoes
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        return
