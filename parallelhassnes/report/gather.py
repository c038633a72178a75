"""Everything that a report shows, read once; what was planned before a batch ran, and what deviates, from its ledger alone."""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.formatting import counted
from parallelhassnes.gc_paused import bulk
from parallelhassnes.plan import BatchMeta, Preregistration
from parallelhassnes.report import spans
from parallelhassnes.report.spans import KeyTime, Span
from parallelhassnes.results import aggregate, collect, error_groups
from parallelhassnes.results.aggregate import GroupLine, Results
from parallelhassnes.results.collect import Choice, TrialRow
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.steps.usage import UsageSum
from parallelhassnes.steps.verdict import discrimination, judge
from parallelhassnes.steps.verdict.flakiness import BASELINES
from parallelhassnes.store import atomic, batches, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import now_text
from parallelhassnes.version import __version__
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus
from parallelhassnes.views.scoreboard_models import BatchState, Counts

_WORDS = {
    "closed": "was closed",
    "reopened": "was reopened",
    "budget": "had its budget changed",
    "rejected": "had steps rejected",
    "retry": "had steps retried by hand",
    "canceled": "had steps canceled",
}


class Planned(NamedTuple):
    """One batch with a plan."""

    batch_id: str
    plan: Preregistration
    sha256: str
    at: str
    """When it was written down."""
    trials: dict[str, tuple[int, int, int]]
    """Agent → trials that were planned, that were started, that succeeded at last."""
    deviations: tuple[str, ...]
    """One line each; none where it ran as planned."""


def planned_of(layout: Layout, batch_id: str) -> Planned | None:
    """Return the plan of a batch against its ledger; None where it has none."""
    batch_dir = layout.batch(batch_id)
    plan = batches.read_batch(batch_dir).plan
    if plan is None:
        return None
    at, deviations = "", list[str]()
    wanted, labels, ends = Counter[str](), dict[str, str](), dict[str, str]()
    for _, line in ledger.read(batch_dir):
        event = line.get("event")
        if event == "planned":
            at = str(line.get("at"))
            if line.get("plan_sha256") != plan.sha256():
                deviations.append("the plan in batch_meta.json is not the one of the ledger")
        elif event == "submitted":
            wanted = Counter(line.get("trials") or {})
        elif event in ("launched", "carried") and line.get("label"):
            labels[f"{line['job_id']}/{line['step_id']}"] = str(line["label"])
        elif event == "added" and line.get("trials"):
            deviations.append(_deviation(line, _were(sum(line["trials"].values()), "added")))
        elif event in _WORDS:
            deviations.append(_deviation(line, f"the batch {_WORDS[event]}"))
        if event in ("ended", "carried"):
            ends[f"{line['job_id']}/{line['step_id']}"] = str(line.get("status"))
    return Planned(
        batch_id, plan, plan.sha256(), at, _trials(wanted, labels, ends), (*deviations, *_short(wanted, labels, ends))
    )


def _trials(wanted: Counter[str], labels: dict[str, str], ends: dict[str, str]) -> dict[str, tuple[int, int, int]]:
    started = Counter(labels.values())
    done = Counter(label for step, label in labels.items() if ends.get(step) == "succeeded")
    return {name: (wanted[name], started[name], done[name]) for name in {**wanted, **started}}


def _short(wanted: Counter[str], labels: dict[str, str], ends: dict[str, str]) -> list[str]:
    return [
        f"{name}: {_were(planned, 'planned')}, {started} {'was' if started == 1 else 'were'} started and {done} succeeded"
        for name, (planned, started, done) in _trials(wanted, labels, ends).items()
        if not planned == started == done
    ]


def _were(count: int, done: str) -> str:
    return f"{counted(count, 'trial')} {'was' if count == 1 else 'were'} {done}"


def _deviation(line: dict[str, Any], what: str) -> str:
    reason = f": {line['reason']}" if line.get("reason") else ""
    return f"{what} by {line.get('by')} at {line.get('at')}{reason}"


WORST_FIRST = ("broken", "needs_review", "unknown", "good")
MAX_TABLE_BYTES = 64 * 1024
MOST_TASKS = 500
"""Rows of the heat map, and verdicts; the worst come first, the page says how many were left out."""


class JobVerdict(NamedTuple):
    """The verdict of one job."""

    batch_id: str
    job_id: str
    verdict: dict[str, Any]
    """In the shape of this version."""

    @property
    def task(self) -> str:
        return self.verdict["task"]["name"] or self.job_id

    @property
    def quality(self) -> str:
        return str(self.verdict["task_quality"])


class ReportCell(NamedTuple):
    """One task and one agent."""

    mean_reward: float | None
    passes: int
    decided: int
    """Of the scored trials those of which it is known whether they passed."""
    scored: int
    n: int


class TaskLine(NamedTuple):
    """One task of the heat map."""

    task: str
    quality: str
    """Empty where it has no verdict."""
    cells: tuple[ReportCell | None, ...]


class Provenance(NamedTuple):
    """What the results come from."""

    metas: tuple[BatchMeta, ...]
    tables: dict[str, str]
    """batch_id → the launch table as submitted; cut where it is long."""
    harness: tuple[str, ...]
    """Versions of ParallelHassnes that ran attempts."""
    hosts: tuple[str, ...]
    configurations: dict[str, str]
    """SHA-256 → the configuration, as JSON."""
    agents: tuple[tuple[str, str, str], ...]
    """Name, version, model."""
    tasks: tuple[tuple[str, str, str], ...]
    """Name, checksum, source."""
    made_by: tuple[tuple[str, str], ...]
    """Program → version, of what made the report."""


class ReportedBatch(NamedTuple):
    """How one batch stands."""

    batch_id: str
    state: BatchState
    counts: Counts
    stand_in: bool
    goal: str
    warnings: tuple[str, ...]
    spent: UsageSum


@dataclass(frozen=True)
class Report:
    """All of it."""

    at: str
    title: str
    chosen: Choice
    boards: tuple[ReportedBatch, ...]
    plans: tuple[Planned, ...]
    """Of the batches that said before what they are to show."""
    rows: tuple[TrialRow, ...]
    results: Results
    """By agent and model."""
    trusted: Results | None
    """The same without the tasks that are broken; None where that leaves all tasks, or none."""
    agents: tuple[str, ...]
    """Columns of the heat map."""
    tasks: tuple[TaskLine, ...]
    tasks_left_out: int
    errors: Errors
    verdicts: tuple[JobVerdict, ...]
    """The worst first."""
    spans: tuple[Span, ...]
    keys: tuple[KeyTime, ...]
    provenance: Provenance


@bulk
def gather(layout: Layout, chosen: Choice) -> Report:
    """Return the report of the choice.

    Raises:
        UserError: there is nothing to report.
    """
    if not chosen.batch_ids:
        raise UserError("there is no batch to report", fix="run something first")
    boards, statuses = dict[str, ReportedBatch](), dict[str, BatchStatus]()
    for batch_id in chosen.batch_ids:
        with members.apart(layout.batch(batch_id)):
            meta = batches.read_batch(layout.batch(batch_id))
            status = batch_status.read_told(layout, batch_id)
            counts, fold = batch_status.group(status), status.fold
            statuses[batch_id] = status
            boards[batch_id] = ReportedBatch(
                batch_id, counts.state, counts.counts, fold.stand_in, meta.goal, meta.warnings, fold.spent
            )
    if not boards:
        raise UserError(f"nothing of {chosen.said} can be read", fix="see what `parallelhassnes doctor` says")
    chosen = chosen._replace(batch_ids=tuple(boards))
    rows = collect.read(layout, chosen, statuses=statuses)
    verdicts = _verdicts(layout, statuses)
    broken = {(each.batch_id, each.job_id) for each in verdicts if each.quality == "broken"}
    sound = [row for row in rows if (row.batch_id, row.job_id) not in broken]
    agents, tasks = heat(rows, verdicts)
    found = tuple(spans.of_batches(layout, statuses))
    return Report(
        at=now_text(),
        title=_title(layout, chosen),
        chosen=chosen,
        boards=tuple(boards.values()),
        plans=tuple(filter(None, (planned_of(layout, batch_id) for batch_id in chosen.batch_ids))),
        rows=tuple(rows),
        results=_results(rows, chosen),
        trusted=_results(sound, chosen) if sound and len(sound) < len(rows) else None,
        agents=agents,
        tasks=tasks[:MOST_TASKS],
        tasks_left_out=max(0, len(tasks) - MOST_TASKS),
        errors=error_groups.errors(layout, chosen, rows, statuses),
        verdicts=verdicts,
        spans=found,
        keys=tuple(spans.by_key(found)),
        provenance=_provenance(layout, chosen, rows, statuses),
    )


def is_baseline(group: GroupLine) -> bool:
    return group.key.get("agent") in BASELINES


def label(group: GroupLine) -> str:
    """Return ``agent · model``."""
    return " · ".join(value for value in group.key.values() if value)


def _title(layout: Layout, chosen: Choice) -> str:
    if len(chosen.batch_ids) > 1:
        return chosen.said
    meta = batches.read_batch(layout.batch(chosen.batch_ids[0]))
    return f"{meta.experiment} ({meta.batch_id})" if meta.experiment else meta.batch_id


def _results(rows: Sequence[TrialRow], chosen: Choice) -> Results:
    by = list(aggregate.DEFAULT_BY)
    groups = aggregate.grouped(rows, {name: aggregate.dimension(name) for name in by})
    return Results(
        at=now_text(), of=chosen.said, batches=list(chosen.batch_ids), by=by, unscored_as_zero=False, groups=groups
    )


def _verdicts(layout: Layout, statuses: Mapping[str, BatchStatus]) -> tuple[JobVerdict, ...]:
    found = [
        JobVerdict(batch_id, job_id, verdict)
        for batch_id, status in statuses.items()
        for job_id, steps in status.jobs.items()
        if any(step.kind == "verdict" for step in steps)
        if (verdict := judge.read(layout.job(batch_id, job_id))) is not None
    ]
    return tuple(sorted(found, key=lambda each: WORST_FIRST.index(each.quality)))


def heat(rows: Sequence[TrialRow], verdicts: Sequence[JobVerdict]) -> tuple[tuple[str, ...], tuple[TaskLine, ...]]:
    """Return the columns and lines: tasks by how seldom they are passed, the hardest first."""
    qualities = {(each.batch_id, each.job_id): each.quality for each in verdicts}
    groups: dict[str, dict[str, list[TrialRow]]] = {}
    worst: dict[str, int] = {}
    agents: dict[str, None] = {}
    for row in rows:
        who = " · ".join(filter(None, (row.agent, row.facts.model)))
        agents[who] = None
        groups.setdefault(row.task, {}).setdefault(who, []).append(row)
        quality = qualities.get((row.batch_id, row.job_id))
        if quality is not None:
            place = WORST_FIRST.index(quality)
            worst[row.task] = min(place, worst.get(row.task, place))
    lines = [
        TaskLine(
            task,
            WORST_FIRST[worst[task]] if task in worst else "",
            tuple(_cell(own[who]) if who in own else None for who in agents),
        )
        for task, own in groups.items()
    ]
    return tuple(agents), tuple(sorted(lines, key=_ease))


def _cell(rows: Sequence[TrialRow]) -> ReportCell:
    facts = [row.facts for row in rows]
    return ReportCell(
        discrimination.mean([fact.reward for fact in facts if fact.reward is not None]),
        sum(fact.passed is True for fact in facts),
        sum(fact.decided for fact in facts),
        sum(fact.result == "scored" for fact in facts),
        len(facts),
    )


def _ease(line: TaskLine) -> tuple[float, str]:
    known = [cell.mean_reward for cell in line.cells if cell and cell.mean_reward is not None]
    return (sum(known) / len(known) if known else -1.0, line.task)


# --- provenance ---------------------------------------------------------------------------------------


def _provenance(
    layout: Layout, chosen: Choice, rows: Sequence[TrialRow], statuses: Mapping[str, BatchStatus]
) -> Provenance:
    metas = [batches.read_batch(layout.batch(batch_id)) for batch_id in chosen.batch_ids]
    started = [origin for meta in metas for origin in batch_status.origins(statuses[meta.batch_id])]
    shas = sorted({sha for _, _, sha in started})
    facts = [row.facts for row in rows]
    return Provenance(
        metas=tuple(metas),
        tables={meta.batch_id: _table(layout.batch(meta.batch_id)) for meta in metas},
        harness=tuple(sorted({harness for harness, _, _ in started})),
        hosts=tuple(sorted({host for _, host, _ in started})),
        configurations={sha: _configuration(layout, sha) for sha in shas},
        agents=tuple(sorted({(f.agent or "", f.agent_version or "", f.model or "") for f in facts})),
        tasks=tuple(sorted({(row.task, row.facts.task_checksum or "", row.facts.task_source or "") for row in rows})),
        made_by=(
            ("ParallelHassnes", __version__),
            ("Harbor", version("harbor")),
            ("Python", platform.python_version()),
            *((("matplotlib", version("matplotlib")),) if find_spec("matplotlib") else ()),
        ),
    )


def _configuration(layout: Layout, sha: str) -> str:
    found = atomic.read_json_or_none(layout.system / "config_versions" / f"{sha}.json")
    return "" if found is None else json.dumps(found, indent=2, ensure_ascii=False)


def _table(batch_dir: Path) -> str:
    for name in ("launch_table.json", "launch_table.yaml"):
        try:
            with (batch_dir / name).open("rb") as stream:
                data = stream.read(MAX_TABLE_BYTES + 1)
        except FileNotFoundError:
            continue
        text = data[:MAX_TABLE_BYTES].decode("utf-8", "replace")
        if len(data) > MAX_TABLE_BYTES:
            return f"{text}\n… cut here; the whole is {name} in the batch's folder"
        return _indented(text)
    return ""


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:  # YAML
        return text
