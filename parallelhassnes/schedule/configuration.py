"""The configuration in force: the root's file as it is now or, while that cannot be used, the last one that could.

    parallelhassnes.toml                 the user's; edited whenever somebody likes
    _system/harness_config.json   A      what passes went by last; written before anything starts under it

Every pass looks at the file's stamp (times, size, inode), reads it where that moved, and parses it where its bytes are
others. An attempt goes on under what it was started under, which its ``meta.json`` names. A file that cannot be used
changes nothing: ``health`` tells of it until it is mended.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError

from parallelhassnes import file_stamp
from parallelhassnes.config import Config, parse_config
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.store import atomic, hosts
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

_WRITING_SEC = 1.0
"""An empty file, or none, is taken for one that somebody is writing until it is so for that long."""

"""None where there is no file."""


class InForce(NamedTuple):
    """What passes go by."""

    config: Config
    trouble: str = ""
    """Why the file as it is now is not in force, in one line; empty where it is."""


class _Seen(NamedTuple):
    stamp: FileStamp | None
    digest: str
    found: InForce


_seen: dict[str, _Seen] = {}
"""Path → what this process has read there; forked processes begin with it."""
_kept: dict[str, tuple[FileStamp | None, Config]] = {}
"""Path of a snapshot → its stamp, and what this process knows to be in it: another process may have written it since."""


def in_force(layout: Layout) -> InForce:
    """Return the configuration that passes of this root go by; the same object for as long as the file is the same.

    Raises:
        UserError: the file cannot be used, and there is no earlier one.
    """
    path = f"{layout.root}/{CONFIG_NAME}"
    known = _seen.get(path)
    try:
        stamp = file_stamp.at(path)
        if known is not None and stamp == known.stamp:
            return known.found
        data = b"" if stamp is None else atomic.read_bytes(path)
    except FileNotFoundError:  # taken away just then
        stamp, data = None, b""
    except (OSError, atomic.CorruptFile) as error:
        return _instead(layout, UserError(atomic.describe_damage(error)))
    if not data and _is_writing(layout, stamp):
        return known.found if known else InForce(_earlier(layout) or Config())
    digest = hashlib.sha256(data).hexdigest()
    if known is None or digest != known.digest:
        known = _Seen(stamp, digest, _read(layout, data))
    _seen[path] = known._replace(stamp=stamp)
    return known.found


def trouble(layout: Layout) -> str:
    """Tell why the file as it is now is not in force, in one line with what to do; empty where it is, or nothing ever was."""
    try:
        return in_force(layout).trouble
    except UserError:
        return ""


def names_runner(layout: Layout) -> str:
    """Tell why the file, which all hosts of a root read, keeps them from having names of their own; empty where it does not."""
    found = in_force(layout)
    if found.trouble or "runner_id" not in found.config.model_fields_set:
        return ""
    return (
        f"runner_id stands in {layout.root}/{CONFIG_NAME}, which all hosts of this root read; remove the line there: a host's "
        f"name is {hosts.NAME_VARIABLE}, or runner in its user's configuration, or its host name"
    )


def keep(layout: Layout, config: Config) -> None:
    """Write down what is about to be gone by: the snapshot, and its version. The caller holds ``tick.lock``."""
    current = layout.configured
    stamp, known = _kept.get(str(current), (None, None))
    if known is config and stamp is not None and stamp == file_stamp.at(current):
        return
    digest = config.sha256()
    if atomic.read_derived(current).get("sha256") != digest:
        document = config.model_dump(mode="json")
        ledger.replace_json(layout.system, f"config_versions/{digest}.json", document)
        both = {"sha256": digest, "config": document}
        ledger.replace_json(layout.system, current.name, both)
        ledger.append(layout.system, "configured", config_sha256=digest)
    _kept[str(current)] = file_stamp.at(current), config


def _is_writing(layout: Layout, stamp: FileStamp | None) -> bool:
    """Tell whether a file without content has been so for a moment only: editors empty it, or move it away, before they write."""
    since = stamp or file_stamp.at(layout.root)
    return since is not None and 0 <= time.time() - since[0] / 1e9 < _WRITING_SEC


def _read(layout: Layout, data: bytes) -> InForce:
    try:
        return InForce(parse_config(data, layout.root / CONFIG_NAME))
    except InvalidInput as error:
        return _instead(layout, error)


def _instead(layout: Layout, error: UserError) -> InForce:
    """Tell what is in force instead of a file that cannot be used.

    Raises:
        UserError: there is nothing; what is wrong with the file.
    """
    config = _earlier(layout)
    if config is None:
        raise error from None
    first, *more = error.lines()
    also = f" (and {len(more)} more)" if more else ""
    return InForce(config, f"{first}{also}; what it said before stays in force until it is mended")


def version(layout: Layout, sha256: str) -> Config | None:
    """Return the configuration of that digest, which attempts name; None where it is not there any more."""
    return _made(layout, f"config_versions/{sha256}.json", lambda document: document)


def _earlier(layout: Layout) -> Config | None:
    """Tell what passes went by last; None where there has been no pass."""
    return _made(layout, layout.configured.name, lambda document: document["config"])


def _made(layout: Layout, name: str, of: Callable[[Any], Any]) -> Config | None:
    """Tell what ``keep`` wrote; None where a version did that knew other settings."""
    try:
        return Config.model_validate(of(atomic.read_json(layout.system / name)))
    except (OSError, atomic.CorruptFile, KeyError, ValidationError):
        return None
