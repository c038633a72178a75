"""Has the file system refuse some files, in this process and all that it forks: ``FAULTS`` is a list of [pattern, errno].

An audit hook raises what the kernel would at each open, listing, rename and removal of a path that the pattern is found in;
looks (``stat``), which no hook sees, are refused by functions in their place.
"""

import json
import os
import re
import sys
from typing import Any

_FAULTS = [(re.compile(pattern), number) for pattern, number in json.loads(os.environ["FAULTS"])]
_EVENTS = {
    "open": 1,
    "os.listdir": 1,
    "os.scandir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.chmod": 1,
    "os.utime": 1,
    "os.link": 2,
    "shutil.rmtree": 1,
}


def _refuse(*paths: Any) -> None:
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            text = os.fsdecode(path)
            for pattern, number in _FAULTS:
                if pattern.search(text):
                    raise OSError(number, os.strerror(number), text)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS:
        _refuse(*arguments[: _EVENTS[event]])
    if event == "os.chmod":
        _refuse(f"chmod {os.fsdecode(arguments[0])}")


def _refusing(look: Any) -> Any:
    def refused(path: Any, *more: Any, **named: Any) -> Any:
        _refuse(path)
        return look(path, *more, **named)

    return refused


os.stat, os.lstat = _refusing(os.stat), _refusing(os.lstat)
sys.addaudithook(_hook)
