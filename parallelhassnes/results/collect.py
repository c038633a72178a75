"""Every trial of a choice of batches as one row: what ``results``, ``compare`` and the report are made from.

Of each trial step the attempt counts that counts for its verdict (``steps.trial_data.facts``), so all numbers agree. What
is said of it stands in the ledger's lines of ended attempts, as the batch's fold keeps them; per batch a few files are
opened, and per job its plan. An attempt's own report is opened only for what its line lacks: whose trial it was, in lines of
older versions, and rewards whose names are too many for a line.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from parallelhassnes import names
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.gc_paused import bulk
from parallelhassnes.plan import SANDBOX, JobSpec, StepSpec, is_sandbox
from parallelhassnes.refs import resolve
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial_data import facts, rewards
from parallelhassnes.steps.trial_data.facts import TrialFacts
from parallelhassnes.steps.usage import NOTHING, UsageSum
from parallelhassnes.store import batches, index, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus, StepStatus

EXPERIMENT = "experiment:"
RULE_OF_PASSING = "pass_rule"
"""The setting that says when a trial has passed."""


@dataclass(frozen=True)
class TrialRow:
    """One trial step of a batch."""

    batch_id: str
    experiment: str
    job_id: str
    facts: TrialFacts
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of the batch, and over them those of the job."""
    import_path: str | None = None
    """Of the agent's code, where it is none of Harbor's."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the plan says of how the trial is run: timeouts, limits, caps, arguments of the agent; for comparisons."""

    @property
    def task(self) -> str:
        return self.facts.task_name or self.job_id

    @property
    def agent(self) -> str:
        return self.facts.agent or "(no agent)"

    @property
    def step(self) -> str:
        """``batch_id/job_id/step_id``."""
        return f"{self.batch_id}/{self.job_id}/{self.facts.step_id}"

    @property
    def attempt(self) -> str | None:
        """Folder of the attempt that counts, relative to the root; None where none has finished."""
        if self.facts.attempt is None:
            return None
        return f"runs/{self.batch_id}/{self.job_id}/{self.facts.attempt}"

    @property
    def scored(self) -> bool:
        return self.facts.result == "scored"


class Choice(NamedTuple):
    """Which trials: of which batches, and of whom."""

    batch_ids: tuple[str, ...]
    said: str
    """What the user asked for, in words."""
    agent: str | None = None
    model: str | None = None
    passed_over: tuple[str, ...] = ()
    """Batches that cannot be read, and are not among these; a line each."""
    several: bool = False
    """Nobody named one of them: one that cannot be read is passed over."""

    def apart(self, layout: Layout, batch_id: str) -> members.apart:
        """Tell what is done with one of the batches; one that was named and cannot be read is an error."""
        return members.apart(layout.batch(batch_id), None if self.several else _refuse)


def _refuse(error: Exception) -> None:
    raise error


def choose(layout: Layout, batch: str | None = None, experiment: str | None = None) -> Choice:
    """Return one batch, those of an experiment, or all; of several those that can be read.

    Raises:
        CorruptFile: the one that was asked for cannot be read.
        UnknownId: there is no such batch, or no batch of that experiment.
        UserError: both are given.
    """
    if batch is not None and experiment is not None:
        raise UserError("both a batch and --experiment are given", fix="give one")
    if batch is None:
        with members.collecting() as lines:
            known = _experiments(layout)
            ids = tuple(known) if experiment is None else _of_experiment(known, experiment)
        said = "all batches" if experiment is None else f"experiment {experiment}"
        return Choice(ids, said, passed_over=tuple(lines), several=True)
    found = resolve(layout, batch).batch_id
    batches.read_batch(layout.batch(found))
    return Choice((found,), found)


def side(layout: Layout, text: str) -> Choice:
    """Return one side of a comparison: ``BATCH`` or ``experiment:NAME``, then perhaps ``@AGENT`` or ``@AGENT,MODEL``.

    Raises:
        UnknownId: it names nothing.
    """
    where, _, who = text.partition("@")
    if where.startswith(EXPERIMENT):
        chosen = choose(layout, experiment=where.removeprefix(EXPERIMENT))
    else:
        chosen = choose(layout, where)
    agent, _, model = who.partition(",")
    said = f"{chosen.said} {who}" if who else chosen.said
    return chosen._replace(said=said, agent=agent or None, model=model or None)


def _experiments(layout: Layout) -> dict[str, str]:
    """Return batch → its experiment, of all that can be read."""
    known = {}
    for batch_id in layout.batch_ids():
        with members.apart(layout.batch(batch_id)):
            known[batch_id] = batches.read_batch(layout.batch(batch_id)).experiment
    return known


def _of_experiment(known: Mapping[str, str], experiment: str) -> tuple[str, ...]:
    found = tuple(batch_id for batch_id, name in known.items() if experiment and name == experiment)
    if not found:
        near = names.nearest(experiment, set(known.values()) - {""})
        raise UnknownId(
            f"there is no batch of experiment {experiment}",
            fix=f"did you mean {near}?" if near else "see `parallelhassnes scoreboard`",
        )
    return found


@bulk
def read(layout: Layout, chosen: Choice) -> list[TrialRow]:
    """Return every trial of the choice, in the tables' order.

    Raises:
        UnknownId: the agent or model that was asked for has no trial there.
    """
    rows: list[TrialRow] = []
    for batch_id in chosen.batch_ids:
        with chosen.apart(layout, batch_id):
            rows += _of_batch(layout, batch_id)
    kept = [
        row
        for row in rows
        if chosen.agent in (None, row.facts.agent, row.import_path) and chosen.model in (None, row.facts.model)
    ]
    if rows and not kept:
        raise _no_such_agent(rows, chosen)
    return told_apart(kept)


def told_apart(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows; agents of several import paths and one name, which no batch's plan has told apart, by these paths."""
    paths: dict[str, set[str | None]] = {}
    for row in rows:
        name = row.agent if row.agent != row.import_path else row.agent.rsplit(":", 1)[-1]
        paths.setdefault(name, set()).add(row.import_path)
    return [
        replace(row, facts=replace(row.facts, agent=row.import_path))
        if row.import_path and len(paths.get(row.agent, ())) > 1
        else row
        for row in rows
    ]


def _of_batch(layout: Layout, batch_id: str) -> list[TrialRow]:
    meta = batches.read_batch(layout.batch(batch_id))
    return [
        TrialRow(
            batch_id,
            meta.experiment,
            job.job_id,
            found,
            {**meta.labels, **job.labels},
            facts.import_path_of(step),
            settings_of(step),
        )
        for job, step, found in of_batch(layout, batch_id)
    ]


def of_batch(layout: Layout, batch_id: str) -> Iterator[tuple[JobSpec, StepSpec, TrialFacts]]:
    """Yield every trial of a batch, in the table's order; a job that cannot be read is passed over, and named."""
    status = batch_status.read_told(layout, batch_id)
    for job_id in status.jobs:
        with members.apart(layout.job(batch_id, job_id)):
            job = batches.read_job(layout.job(batch_id, job_id))
            found = of_job(status, job)
            yield from ((job, step, found[step.step_id]) for step in job.steps if step.step_id in found)


def of_job(status: BatchStatus, job: JobSpec) -> dict[str, TrialFacts]:
    """Return the trials of a job by their steps, as ``statuses.read_told`` knows them."""
    return {
        step.step_id: of_step(status, status.of(job.job_id, index.of(step)), step)
        for step in job.steps
        if step.kind == "trial"
    }


def of_step(status: BatchStatus, entry: StepStatus, step: StepSpec) -> TrialFacts:
    """Return the facts of one trial step."""
    row = entry.row
    if row is None or row.said is None:
        found = facts.of_trial(step, None, NOTHING)
        if row is None and entry.state == "canceled":
            return replace(found, result="skipped" if entry.skipped else "canceled")
        return found
    place = f"steps/{step.step_id}/attempts/{row.counting}"
    chosen = None
    if not facts.is_whole(row.said):
        chosen = facts.of_attempt(status.batch_dir / entry.job_id / place, step)
    chosen = chosen or facts.expanded(row.said, step)
    others = UsageSum.restored(row.others) if row.others else NOTHING
    return facts.of_trial(step, replace(chosen, attempt=place), others)


_OTHER = frozenset({"task", "name", "import_path", "model_name", "env", "trial_name", "trials_dir", "job_id"})
"""Parts of a trial's configuration that say what is tried and where, or may hold what nobody is to read."""
_MOST_TEXT = 100


def settings_of(step: StepSpec) -> dict[str, str]:
    """Tell how a trial is run, by its plan: ``agent.kwargs.max_turns`` → ``20``; what is at its default is not there.

    When it has passed is always told: the default says one thing, and another rule may say the same.
    """
    found: dict[str, str] = {}
    open_parts: list[tuple[str, Any]] = [("", safe_read.mapping(step.spec.get("config")))]
    while open_parts:
        place, value = open_parts.pop()
        if isinstance(value, Mapping):
            inner = [(f"{place}.{key}".strip("."), part) for key, part in value.items()]
            open_parts += [
                (name, part)
                for name, part in inner
                if name.rpartition(".")[2] not in _OTHER or name == "environment.import_path"
            ]
        elif value is not None:
            value = SANDBOX if place == "environment.import_path" and is_sandbox(value) else value
            found[place] = json.dumps(value, ensure_ascii=False).strip('"')[:_MOST_TEXT]
    if step.timeout_sec is not None:
        found["timeout_sec"] = f"{step.timeout_sec:g}"
    found[RULE_OF_PASSING] = rewards.said(rewards.rule_of(step.spec))
    return dict(sorted(found.items()))


def _no_such_agent(rows: Sequence[TrialRow], chosen: Choice) -> UnknownId:
    known = sorted({",".join(filter(None, (row.agent, row.facts.model))) for row in rows})
    wanted = ",".join(filter(None, (chosen.agent, chosen.model)))
    near = names.nearest(wanted, known)
    fix = f"did you mean @{near}?" if near else f"there are {', '.join(known[:5])}"
    return UnknownId(f"{chosen.said} has no trial of {wanted}", fix=fix)
