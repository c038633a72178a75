"""The numbers of ended attempts, read from each ``final.json`` once and kept in the batch's fold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.control.fold import Fold
from parallelhassnes.control.status import BatchStatus
from parallelhassnes.steps.verdict.versions import QUALITY_OF_1
from parallelhassnes.store import atomic
from parallelhassnes.store.attempts import FINAL


class TrialNumbers(NamedTuple):
    """What a trial's report says in numbers; None where it says nothing."""

    reward: float | None = None
    cost_usd: float | None = None
    input: int | None = None
    """Input tokens, those from the cache included."""
    cache: int | None = None
    output: int | None = None
    seconds: float | None = None
    """Wall time of the whole trial."""
    exception: str | None = None
    """Type of the exception beside, or instead of, the reward."""


class VerdictNumbers(NamedTuple):
    """A job's verdict in short."""

    task_broken: bool | None = None
    scored: int = 0
    passes: int = 0
    steps: int = 0
    task_quality: str | None = None
    """None where an older version wrote it."""


SPENT = ("cost_usd", "input", "cache", "output")


def trial(numbers: list[Any] | None) -> TrialNumbers | None:
    """The numbers of a row of a trial; None where they were not read."""
    return None if numbers is None else TrialNumbers(*numbers)


def cost_of(numbers: list[Any] | None) -> float | None:
    """What an attempt of any kind has cost; a verdict's numbers, which are fewer, say nothing of that."""
    if numbers is None or len(numbers) != len(TrialNumbers._fields):
        return None
    return TrialNumbers(*numbers).cost_usd


def verdict(numbers: list[Any] | None) -> VerdictNumbers | None:
    """The numbers of a row of a verdict; None where they were not read, or it gave none."""
    if not numbers:
        return None
    found = VerdictNumbers(*numbers)
    if found.task_quality is not None:
        return found
    return found._replace(task_quality=QUALITY_OF_1[found.task_broken])


def reward_of(attempt_dir: Path) -> float | None:
    """Reward of one ended trial attempt; None where it has none."""
    return TrialNumbers(*_of_report("trial", _report(attempt_dir))).reward


def take_in(status: BatchStatus) -> int:
    """Read every report that ended since the last look; how many."""
    fold, count = status.fold, 0
    for key, attempt in _unread(status):
        row, step = fold.steps[key], status.steps.get(key)
        job_id, _, step_id = key.partition("/")
        report = _report(status.batch_dir / job_id / "steps" / step_id / "attempts" / attempt)
        numbers = _of_report(step.kind if step else "", report)
        paid_before = fold.carried.get(key) == attempt
        if step is not None and step.kind != "verdict" and not paid_before:
            _spend(fold, step.kind, TrialNumbers(*numbers))
        if row.attempt == attempt:
            fold.steps[key] = row._replace(numbers=numbers)
        count += 1
    fold.unread.clear()
    return count


def _unread(status: BatchStatus) -> list[tuple[str, str]]:
    def every() -> Iterator[tuple[str, str]]:
        for key, attempt in status.fold.unread:
            yield key, attempt
        for key, row in status.fold.steps.items():
            if row.numbers is None and row.status != "running":
                yield key, row.attempt

    wanted = {"trial", "agent", "analysis", "verdict"}
    return [
        (key, attempt)
        for key, attempt in every()
        if (step := status.steps.get(key)) and step.kind in wanted
    ]


def _report(attempt_dir: Path) -> dict[str, Any]:
    """The report; empty where an attempt left none that can be read."""
    try:
        document = atomic.read_json_or_none(attempt_dir / FINAL)
    except (atomic.CorruptFile, OSError):
        return {}
    return document if isinstance(document, dict) else {}


def _of_report(kind: str, report: dict[str, Any]) -> list[Any]:
    if kind == "verdict":
        found = report.get("verdict")
        if not isinstance(found, dict):
            return []
        return [found.get(name) for name in VerdictNumbers._fields]
    found = report.get(kind if kind in ("agent", "analysis") else "trial")
    part: dict[str, Any] = found if isinstance(found, dict) else {}
    tokens, timings, exception = (
        part.get(name) or {} for name in ("tokens", "timings_sec", "exception")
    )
    return list(
        TrialNumbers(
            reward=part.get("reward") if report.get("status") == "succeeded" else None,
            cost_usd=part.get("cost_usd"),
            input=tokens.get("input"), cache=tokens.get("cache"), output=tokens.get("output"),
            seconds=part.get("seconds") if kind == "agent" else timings.get("total"),
            exception=exception.get("type"),
        )
    )  # fmt: skip


def _spend(fold: Fold, kind: str, numbers: TrialNumbers) -> None:
    known = {name: getattr(numbers, name) for name in SPENT if getattr(numbers, name) is not None}
    for name, value in known.items():
        fold.spent[name] = fold.spent.get(name, 0) + value
    if kind == "analysis" and not known:  # by rules alone, which cost nothing
        return
    counter = "known" if known else "unknown"
    fold.spent[counter] = fold.spent.get(counter, 0) + 1
