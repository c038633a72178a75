"""What an ended attempt has to give to others: its report, its text, how it ended."""

from pathlib import Path
from typing import Any

from parallelhassnes.steps import safe_read
from parallelhassnes.store import attempts

MAX_TEXT = 1 << 20


def of(attempt_dir: Path) -> dict[str, Any]:
    """``report``, ``text`` and ``status`` of an ended attempt, as templates and conditions see them.

    ``report`` is the run report with the agent's own report laid over it, so that a key of the step's schema is
    found at the top.
    """
    report = safe_read.read_object(attempt_dir / attempts.FINAL) or {}
    own = safe_read.mapping(safe_read.mapping(report.get("agent")).get("report"))
    text = safe_read.read_bytes(attempt_dir / attempts.FINAL_TEXT, MAX_TEXT) or b""
    return {
        "report": {**report, **own},
        "text": text.decode("utf-8", "replace").rstrip("\n"),
        "status": report.get("status"),
    }
