"""The last lines of a file of an attempt, and what follows."""

import asyncio
import os
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path

from parallelhassnes.attempt_data.safe_open import open_below
from parallelhassnes.store import attempts

_MOST = 4 << 20
_LOOK_SEC = 0.25


def last_lines(folder: Path, name: str, count: int) -> tuple[str, int]:
    """The last whole lines, of the last 4 MiB, and the offset behind them.

    Raises:
        UnknownId: it is gone.
    """
    with FileIO(open_below(folder, name)) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = max(0, size - _MOST)
        stream.seek(start)
        data = stream.read(size - start)
    end = data.rfind(b"\n") + 1
    lines = data[:end].splitlines(keepends=True)[-count:] if count else []
    return b"".join(lines).decode("utf-8", "replace"), start + end


async def follow(folder: Path, name: str, first: str, offset: int) -> AsyncIterator[str]:
    """The first text, then whole lines as they come, until the attempt is sealed."""
    yield first
    while True:
        over = attempts.is_sealed(folder)
        with FileIO(open_below(folder, name)) as stream:
            stream.seek(offset)
            data = stream.read(_MOST)
        whole = data if over else data[: data.rfind(b"\n") + 1]
        offset += len(whole)
        if whole:
            yield whole.decode("utf-8", "replace")
        elif over:
            return
        else:
            await asyncio.sleep(_LOOK_SEC)
