"""The file that a verifier leaves its rewards in: read without following a link, and quoted where it holds none.

An agent can leave anything in ``/logs/verifier``. A link would be followed on the host by Harbor, which would take the
number in a file of the host for a reward, or put the file's words into its message.
"""

import json
import math
import stat
from pathlib import Path
from typing import Any

from parallelhassnes.steps import untrusted
from parallelhassnes.steps.trial_data.amounts import quoted

NAMES = ("reward.json", "reward.txt")
"""In the order in which Harbor looks for them."""
MAX_BYTES = 64 * 1024 * 1024
MAX_QUOTED = 200
EXCEPTIONS = frozenset(
    {"RewardFileNotFoundError", "RewardFileEmptyError", "VerifierOutputParseError"}
)
"""What Harbor raises where the files hold no reward; its message names a path that is gone by the time it is read."""


class NoReward(Exception):
    """The file holds no reward; the message says what it holds."""


class Empty(NoReward):
    """It holds nothing."""


def parse_json(path: Path) -> dict[str, float | int]:
    """The rewards of ``reward.json``: an object of finite numbers.

    Raises:
        NoReward: it holds anything else, or is a link.
    """
    data = _read(path)
    try:
        found = json.loads(data)
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
    """The reward of ``reward.txt``: one finite number.

    Raises:
        NoReward: it holds anything else, or is a link.
    """
    data = _read(path)
    try:
        value = float(data.decode())
    except ValueError:
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is no number") from None
    if not math.isfinite(value):
        raise NoReward(f"{_said(path)} holds {_quote(data)}, which is no finite number")
    return {"reward": value}


def problem(folder: Path) -> str | None:
    """Why a verifier's folder holds no reward, in one line; None where it seems to hold one."""
    present = [folder / name for name in NAMES if untrusted.size(folder / name) is not None]
    for path in present:
        try:
            parse_json(path) if path.suffix == ".json" else parse_text(path)
        except NoReward as error:
            return str(error)
        return None
    return "the verifier left neither reward.json nor reward.txt"


def link(folder: Path) -> str | None:
    """That one of the files is a link, in one line; None where none is."""
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
        raise NoReward(f"{_said(path)} cannot be read ({error.strerror})") from None
    if stat.S_ISLNK(mode):
        raise NoReward(f"{_said(path)} is a link, which is not followed: it is no reward")
    data = untrusted.read_bytes(path, MAX_BYTES + 1)
    if data is None:
        raise NoReward(f"{_said(path)} is no plain file")
    if len(data) > MAX_BYTES:
        raise NoReward(f"{_said(path)} has more than {MAX_BYTES} bytes")
    if not data.strip():
        raise Empty(f"{_said(path)} is empty")
    return data


def _said(path: Path) -> str:
    return f"verifier/{path.name}"


def _quote(data: bytes) -> str:
    """The start of the content on one line."""
    return quoted(data[: 4 * MAX_QUOTED].decode("utf-8", "replace").strip(), MAX_QUOTED)
