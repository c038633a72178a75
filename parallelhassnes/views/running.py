"""Live attempts and whether they live: the small part of a view that no ledger holds."""

import socket
import time
from pathlib import Path
from typing import Any

from parallelhassnes import places
from parallelhassnes.states import TERMINAL
from parallelhassnes.store import atomic, process_identity
from parallelhassnes.store.attempts import STATE
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.batch_status import BatchStatus, StepStatus
from parallelhassnes.views.scoreboard_models import RunningStep


class HeartbeatWatch:
    """Remembers heartbeats between looks, so that another host's are judged by this one's clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._host = socket.gethostname()

    def is_here(self, host: str) -> bool:
        return host == self._host

    def age_sec(self, run_id: str, count: int, at: str, host: str) -> float | None:
        """Return the seconds since the counter last moved; None for another host's at the first look."""
        if self.is_here(host):
            return max(0.0, time.time() - parse_time(at))
        now = time.monotonic()
        seen, since = self._seen.get(run_id, (None, 0.0))
        if seen != count:
            self._seen[run_id] = (count, now)
            return None if seen is None else 0.0
        return now - since


def attempt_path(batch_id: str, key: str, attempt: str) -> str:
    """Folder of an attempt of a step (``job/step``), relative to the root."""
    return f"runs/{batch_id}/{places.step_key(key).attempt(attempt)}"


def describe(root: Path, status: BatchStatus, step: StepStatus, watch: HeartbeatWatch) -> RunningStep:
    """Return one live attempt from its ``state.json``; copes with one that is only starting or just over."""
    row = step.row
    who = RunningStep(
        step=step.key,
        label=step.step.label or step.step.step_id,
        queue_key=step.step.queue_key,
        number=row.number if row else 1,
        phase="starting",
        age_sec=None,
        heartbeat_age_sec=None,
        alive=None,
        host="",
        attempt=attempt_path(status.batch_dir.name, step.key, row.attempt if row else ""),
    )
    return look_again(root, who, watch)


def look_again(root: Path, shown: RunningStep, watch: HeartbeatWatch) -> RunningStep:
    """Return the same live attempt as it is now."""
    state = _state(root / shown.attempt)
    started = state.get("started_at")
    heartbeat = state.get("heartbeat") or {}
    host = str(state.get("host", ""))
    pid = state.get("pid")
    over = state.get("status") in TERMINAL
    live = state.get("live") or {}
    counts = [n for n in (live.get("input_tokens"), live.get("output_tokens")) if n is not None]
    return RunningStep(
        step=shown.step,
        label=shown.label,
        queue_key=shown.queue_key,
        number=shown.number,
        phase="ended" if over else str(state.get("phase") or "starting"),
        item=live.get("item"),
        tokens=sum(counts) if counts else None,
        cost_usd=live.get("cost_usd"),
        age_sec=max(0.0, time.time() - parse_time(started)) if started else None,
        heartbeat_age_sec=(
            watch.age_sec(state["run_id"], heartbeat["count"], heartbeat["at"], host)
            if heartbeat and not over
            else None
        ),
        alive=process_identity.lives(pid, state.get("pid_start"), state.get("pid_table"), host) if pid else None,
        host=host,
        stuck_since=state.get("stuck_since"),
        attempt=shown.attempt,
    )


def _state(attempt_dir: Path) -> dict[str, Any]:
    try:
        document = atomic.read_json_or_none(attempt_dir / STATE)
    except (atomic.CorruptFile, OSError):
        return {}
    return document if isinstance(document, dict) else {}
