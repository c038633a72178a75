"""``env_file`` of the configuration: the values of keys for processes that cron starts, as python-dotenv reads them."""

import functools
import io
import re
from collections.abc import Mapping
from pathlib import Path

from parallelhassnes.errors import UserError


class BadEnvFile(UserError):
    """The ``env_file`` cannot be read, or one of its lines."""


def read_env_file(path: Path) -> dict[str, str]:
    """Read an env file as python-dotenv does, and nothing in the place of ``${NAME}``: a value is what is written.

    Raises:
        BadEnvFile: the file cannot be read, or a line of it (whose number is named, never its text).
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would hold up every pass
            raise BadEnvFile(f"env_file {path}: is no regular file", fix="name a file")
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadEnvFile(f"env_file {path}: cannot be read ({error})") from None
    return dict(_parsed(str(path), text))


@functools.lru_cache(maxsize=2)
def _parsed(path: str, text: str) -> Mapping[str, str]:
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    for each in parse_stream(io.StringIO(text)):
        name, written = each.key, each.original
        bare = name is not None and each.value is None  # ``export NAME`` sets nothing
        if each.error or "\0" in written.string or "=" in (name or "") or (bare and not (name or "").isidentifier()):
            blank = len(written.string) - len(written.string.lstrip())
            number = written.line + len(re.findall(r"\r\n|\n|\r", written.string[:blank]))
            raise BadEnvFile(
                f"env_file {path} line {number}: is not NAME=value",
                fix="quote a value that has several lines, quotes or #",
            )
        if name is not None and each.value is not None:
            values[name] = each.value
    return values
