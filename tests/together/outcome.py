"""What came of a batch, without what differs from one run to the next: times, durations, ids and places.

What is left must be the same whoever started the steps, and however often: every step's attempts with status, exit code
and failure, every report, analysis and verdict whole, and how often each event of a step stands in the ledger.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.store import attempts, batches, currents
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.batch_scoreboard import batch_scoreboard

type Outcome = dict[str, Any]

_LEFT_OUT = frozenset({"host_uid", "timings_sec", "duration_sec", "facts"})
"""``facts`` of an analysis: which trials of its task had ended when it looked, which is a matter of order."""
_DOCUMENTS = ("final.json", "analysis.json")


def outcome(layout: Layout, batch_id: str, label: str) -> Outcome:
    """Place → what stands there.

    Args:
        label: what the table was labelled with; it does not count.
    """
    found: Outcome = {}
    names = _Names(layout, batch_id, label)
    for job_dir in batches.job_dirs(layout, batch_id):
        current = currents.read(job_dir)
        found[f"{job_dir.name}/dead"] = current.dead
        found[f"{job_dir.name}/verdict"] = names.document(job_dir / "verdict.json")
        for step in batches.read_job(job_dir).steps:
            step_dir = job_dir / "steps" / step.step_id
            ref = f"{job_dir.name}/{step.step_id}"
            now = current.steps.get(step.step_id)
            if now is not None:
                facts = (now.status, now.number, now.settled, now.because, now.unmet)
                found[f"{ref}/now"] = facts
            for number, name in enumerate(attempts.names(step_dir), 1):
                folder = step_dir / "attempts" / name
                state = attempts.read_state(folder)
                found[f"{ref}/{number}"] = (
                    state.status,
                    state.exit_code,
                    state.shut_down,
                    state.failure and (state.failure.failure_class, names.scrub(state.failure.line)),
                    [names.document(folder / document) for document in _DOCUMENTS],
                )
    found["counts"] = dict(batch_scoreboard(layout, batch_id).counts)
    return found | {f"ledger: {event}": n for event, n in _events(layout.batch(batch_id)).items()}


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Where two outcomes differ, a line each."""
    return [
        f"{place}: {one.get(place, 'nothing')} instead of {other.get(place, 'nothing')}"
        for place in sorted(one.keys() | other.keys())
        if one.get(place) != other.get(place)
    ]


class _Names:
    """The names that a run has made up, to be taken out of its documents."""

    def __init__(self, layout: Layout, batch_id: str, label: str) -> None:
        run_ids = [path.name.partition("_")[2] for path in layout.batch(batch_id).glob("*/steps/*/attempts/*")]
        self._run_ids = re.compile("|".join(run_ids) or r"(?!)")
        self._fixed = {batch_id: "BATCH", str(layout.root): "ROOT", label: "LABEL"}

    def scrub(self, text: str) -> str:
        for name, instead in self._fixed.items():
            text = text.replace(name, instead)
        return re.sub(r"\d{8}T\d{6}Z_RUN", "ATTEMPT", self._run_ids.sub("RUN", text))

    def document(self, path: Path) -> Any:
        """A JSON document; None where there is none."""
        return _timeless(json.loads(self.scrub(path.read_text()))) if path.exists() else None


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _LEFT_OUT}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _events(batch_dir: Path) -> dict[str, int]:
    """What happened to the steps, and how often; an operator's words about the batch are not among it."""
    lines = [line for _, line in ledger.read(batch_dir) if "step_id" in line or line["event"] == "submitted"]
    return Counter(
        " ".join(str(line.get(key, "")) for key in ("event", "job_id", "step_id", "number", "status")) for line in lines
    )


class Ran(NamedTuple):
    """One attempt in time."""

    began: float
    ended: float
    key: str
    batch_id: str


def over_limit(layout: Layout, concurrency: int, limits: Mapping[str, int]) -> list[str]:
    """Where more attempts were live at once than allowed, by when each was made and had ended.

    Args:
        concurrency: live attempts at most.
        limits: queue key → live attempts at most; beside these, what each table says of itself.
    """
    ran = sorted(_ran(layout))
    metas = {batch_id: batches.read_batch(layout.batch(batch_id)) for batch_id in layout.batch_ids()}
    wrong: list[str] = []
    live: list[Ran] = []
    for each in ran:
        live = [other for other in live if other.ended > each.began] + [each]
        same_key = [other for other in live if other.key == each.key]
        allowed = [limits.get(each.key)]
        allowed += [metas[other.batch_id].limits.get(each.key) for other in same_key]
        own = sum(other.batch_id == each.batch_id for other in live)
        for what, n, most in (
            ("in all", len(live), concurrency),
            (each.key, len(same_key), min((n for n in allowed if n is not None), default=None)),
            (each.batch_id, own, metas[each.batch_id].concurrency),
        ):
            if most is not None and n > most:
                wrong.append(f"limits: {n} live instead of {most} {what}, at {each.began:.6f}")
    return wrong


def most_at_once(layout: Layout) -> int:
    """The most attempts that were live at one time: a limit that was never reached proves nothing."""
    ran = list(_ran(layout))
    steps = sorted([(each.began, 1) for each in ran] + [(each.ended, -1) for each in ran])
    return max(itertools.accumulate(step for _, step in steps), default=0)


def _ran(layout: Layout) -> Iterator[Ran]:
    for path in layout.runs.glob("*/*/steps/*/attempts/*"):
        meta, state = attempts.read_meta(path), attempts.read_state(path)
        ended = parse_time(state.ended_at) if state.ended_at else float("inf")
        yield Ran(parse_time(meta.created_at), ended, meta.queue_key, meta.batch_id)
