"""Files of attempts: whole, a range of one, a zip of all of them.

What an agent wrote is shown to a browser of somebody who is logged in, so it is never a page: text is text, nothing of
it runs, and its length is what it was when the answer began, however it grows meanwhile.
"""

import os
import re
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from fastapi import Depends, Header
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from parallelhassnes import file_stamp
from parallelhassnes.api.http.responses import KnownAnswers, KnownHere
from parallelhassnes.attempt_data import pictures
from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.attempt_data.zip_stream import zip_pieces

_CHUNK = 1 << 17
_KINDS = {".json": "application/json", **pictures.ENDINGS}
_BINARY = frozenset(
    {
        ".gz",
        ".zip",
        ".tar",
        ".xz",
        ".zst",
        ".bz2",
        ".pdf",
        ".parquet",
        ".sqlite",
        ".mp4",
        ".webm",
        ".bin",
        ".whl",
        ".so",
    }
)
INERT = {"Content-Security-Policy": "default-src 'none'; sandbox", "Accept-Ranges": "bytes"}


class ByteRange(NamedTuple):
    """How much of a file is asked for."""

    known: KnownAnswers
    range: str | None
    if_range: str | None


async def _wanted(
    known: KnownHere,
    range_: Annotated[str | None, Header(alias="Range", description="As `bytes=0-99`; one range.")] = None,
    if_range: Annotated[str | None, Header(description="The `ETag` that the range is of.")] = None,
) -> ByteRange:
    return ByteRange(known, range_, if_range)


WantedHere = Annotated[ByteRange, Depends(_wanted)]


def media_type(path: str) -> str:
    """Tell what a browser is told; nothing that it would run."""
    ending = PurePosixPath(path).suffix.lower()
    if ending in _BINARY:
        return "application/octet-stream"
    return _KINDS.get(ending, "text/plain; charset=utf-8")


def send_file(wanted: ByteRange, folder: Path, relative: str) -> Response:
    """Return the file below the folder, or the range of it that was asked for.

    Raises:
        UnknownId: there is none that is shown.
        HTTPException: 416.
    """
    stream = FileIO(open_below(folder, relative))
    info = os.fstat(stream.fileno())
    # What comes out of an archive has a file of its own for every reader: only what the archive says of it is known again.
    parts = file_stamp.of(info) if info.st_nlink else (info.st_mtime_ns, info.st_size)
    size, tag = info.st_size, f'"{"-".join(f"{part:x}" for part in parts)}"'
    headers = {**INERT, "ETag": tag}
    try:
        is_known = wanted.known.has(tag)
        part = None if is_known else _range(wanted, size, tag)
    except HTTPException:
        stream.close()
        raise
    if is_known:
        stream.close()
        return Response(status_code=304, headers=headers)
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(_pieces(stream, start, end), 206 if part else 200, headers, media_type(relative))


def _range(wanted: ByteRange, size: int, tag: str) -> tuple[int, int] | None:
    """Return the one range that was asked for, as start and end; None for the whole.

    Raises:
        HTTPException: 416.
    """
    said = wanted.range
    if said is None or wanted.if_range not in (None, tag):
        return None
    match = re.fullmatch(r"(?i:bytes)=[ \t]*(\d{0,100})-(\d{0,100})[ \t]*", said.strip(), re.ASCII)
    if match is None or not any(match.groups()):  # several, or another unit: may be left alone
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):  # invalid: to be left alone
        return None
    if not first and int(last) and not size:  # the end of nothing is the whole of it
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        headers = {"Content-Range": f"bytes */{size}"}
        raise HTTPException(416, f"the file has {size} bytes", headers)
    return start, end


async def _pieces(stream: FileIO, start: int, end: int) -> AsyncIterator[bytes]:
    with stream:
        stream.seek(start)
        while start < end:
            data = await run_in_threadpool(stream.read, min(_CHUNK, end - start))
            if not data:  # it was cut: the promised length cannot be kept
                raise OSError("the file was cut while it was sent")
            start += len(data)
            yield data


def send_zip(folder: Path, name: str) -> Response:
    """Return a zip of everything below the folder, made while it is sent."""
    headers = {**INERT, "Content-Disposition": f'attachment; filename="{name}.zip"'}
    del headers["Accept-Ranges"]
    return StreamingResponse(zip_pieces(folder, name), 200, headers, "application/zip")
