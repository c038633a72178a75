"""Opening a file below a folder that others may write to, for somebody else to read.

No part of the path may be a symbolic link, ``..`` or anything but a folder on the way to a regular file; each is opened
relative to the one before, so that nothing can be swapped in between.
"""

import errno
from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer

from parallelhassnes import walk
from parallelhassnes.errors import UnknownId
from parallelhassnes.store.evidence import removals

FileName = Annotated[
    str, PlainSerializer(lambda name: name.encode("utf-8", "replace").decode(), return_type=str, when_used="json")
]
"""The name of a file that an agent may have made: bytes that are no text open it here, and are question marks in JSON."""


def open_below(folder: Path, relative: str) -> int:
    """Return a descriptor of the regular file.

    Raises:
        UnknownId: there is no such file, or it is not one that is shown.
    """
    try:
        return walk.open_below(folder, relative)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise UnknownId(f"{relative[:200]!r} is not a file in it") from None
        gone = removals.of_attempt(folder) if isinstance(error, FileNotFoundError) else None
        if gone is not None:
            raise UnknownId(f"{relative[:200]}: is not there: {gone.line}") from None
        why = "there is no such file" if isinstance(error, FileNotFoundError) else "it is not shown"
    raise UnknownId(f"{relative[:200]}: {why}", fix="the list of files has what there is")
