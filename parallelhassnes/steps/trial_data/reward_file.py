"""The file that a verifier leaves its rewards in: read without following a link, and quoted where it holds none.

An agent can leave anything in ``/logs/verifier``. A link would be followed on the host by Harbor, which would take the
number in a file of the host for a reward, or put the file's words into its message.
"""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.usage import quoted

NAMES = ("reward.json", "reward.txt")
"""In the order in which Harbor looks for them."""
MAX_BYTES = 64 * 1024 * 1024
MAX_QUOTED = 200
EXCEPTIONS = frozenset({"RewardFileNotFoundError", "RewardFileEmptyError", "VerifierOutputParseError"})
"""What Harbor raises where the files hold no reward; its message names a path that is gone by the time it is read."""


class NoReward(Exception):
    """The file holds no reward; the message says what it holds."""


class Empty(NoReward):
    """It holds nothing."""


class RewardUnreadableError(Exception):
    """The file could not be read, for a reason that does not lie in it."""


_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
"""A plain decimal, with an exponent or without: no ``1_0``, which Python takes for 10."""
_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM)
"""Errors of reading that a verifier can bring about."""


def parse_json(path: Path) -> dict[str, float | int]:
    """Return the rewards of ``reward.json``: an object of finite numbers.

    Raises:
        NoReward: it holds anything else, or is a link.
        RewardUnreadableError: it could not be read.
    """
    data = _read(path)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise NoReward(f"{_said(path)} has {quoted(name)} more than once: it is no reward")
            names.add(name)
        return dict(pairs)

    try:
        found = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is not JSON") from None
    if not isinstance(found, dict) or not found:
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is no object of rewards by name")
    for name, value in found.items():
        if not isinstance(value, int | float) or not _is_finite(value):
            raise NoReward(
                f"{_said(path)} has {quoted(value, MAX_QUOTED)} as {quoted(name)}, which is no finite number"
            )
    return found


def parse_text(path: Path) -> dict[str, float | int]:
    """Return the reward of ``reward.txt``: one finite number.

    Raises:
        NoReward: it holds anything else, or is a link.
        RewardUnreadableError: it could not be read.
    """
    data = _read(path)
    text = data.decode("utf-8", "replace")
    if not _NUMBER.fullmatch(text):
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is no number")
    value = float(text)
    if not math.isfinite(value):
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is no finite number")
    return {"reward": value}


def problem(folder: Path, removed: Mapping[str, object]) -> str | None:
    """Tell why a verifier's folder holds no reward, in one line; None where it seems to hold one.

    Args:
        removed: what a sandbox has taken from the folder, name → what it was.
    """
    present = [folder / name for name in NAMES if safe_read.size(folder / name) is not None]
    for path in present:
        try:
            parse_json(path) if path.suffix == ".json" else parse_text(path)
        except (NoReward, RewardUnreadableError) as error:
            return str(error)
        return None
    for name in NAMES:
        if name in removed:
            how = "which is not followed" if removed[name] == "link" else "which is not read"
            kind = safe_read.text(removed[name], 20)
            return f"verifier/{name} was a {kind}, {how}: it is no reward"
    return "the verifier left neither reward.json nor reward.txt"


def link(folder: Path) -> str | None:
    """That one of the files is a link, in one line; None where there is no link."""
    for name in NAMES:
        if (folder / name).is_symlink():
            return f"verifier/{name} is a link, which is not followed: it is no reward"
    return None


def guard_harbor() -> None:
    """Have Harbor's verifier read its reward files as this module does."""
    from harbor.verifier import verifier

    def guarded(parse: Any, path: str) -> Any:
        def read(self: Any) -> dict[str, float | int]:
            try:
                rewards: dict[str, float | int] = parse(getattr(self.trial_paths, path))
            except Empty as error:
                raise verifier.RewardFileEmptyError(str(error)) from None
            except NoReward as error:
                raise verifier.VerifierOutputParseError(str(error)) from None
            return rewards

        return read

    for name, parse, path in (
        ("_parse_reward_json", parse_json, "reward_json_path"),
        ("_parse_reward_text", parse_text, "reward_text_path"),
    ):
        if hasattr(verifier.Verifier, name):
            setattr(verifier.Verifier, name, guarded(parse, path))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _read(path: Path) -> bytes:
    # Harbor reaches the trial's folder by a short link of ours; below that no link is followed.
    path = path.parents[1].resolve() / path.parent.name / path.name
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise _unread(path, error) from None
    if stat.S_ISLNK(mode):
        raise NoReward(f"{_said(path)} is a link, which is not followed: it is no reward")
    if not stat.S_ISREG(mode):
        raise NoReward(f"{_said(path)} is no plain file")
    try:
        with os.fdopen(safe_read.open_file(path), "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unread(path, error) from None
    if len(data) > MAX_BYTES:
        raise NoReward(f"{_said(path)} has more than {MAX_BYTES} bytes")
    if not data.strip():
        raise Empty(f"{_said(path)} is empty")
    return data


def _unread(path: Path, error: OSError) -> Exception:
    kind = NoReward if error.errno in _OF_THE_FILE else RewardUnreadableError
    return kind(f"{_said(path)} cannot be read ({error.strerror})")


def _said(path: Path) -> str:
    return f"verifier/{path.name}"


def _quote(data: bytes) -> str:
    """Return the start of the content on one line."""
    return quoted(data[: 4 * MAX_QUOTED].decode("utf-8", "replace").strip(), MAX_QUOTED)
