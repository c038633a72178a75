"""Every trial of a choice of batches as one row: what ``results``, ``compare`` and the report are made from.

Of each trial step the attempt counts that counts for its verdict (``steps.trial_data.facts``), so all numbers agree. What
is said of it stands in the ledger's lines of ended attempts, as the batch's fold keeps them; per batch a few files are
opened (``trial_plans`` has what its plan says). An attempt's own report is opened only for what its line lacks: whose trial it was, in lines of
older versions, and rewards whose names are too many for a line.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import names
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.gc_paused import bulk
from parallelhassnes.plan import BatchMeta, JobSpec
from parallelhassnes.refs import resolve
from parallelhassnes.results import trial_plans
from parallelhassnes.results.trial_plans import JobTrials
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.trial_data.facts import TrialFacts, TrialPlan
from parallelhassnes.steps.usage import NOTHING, UsageSum
from parallelhassnes.store import batches, index, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status
from parallelhassnes.views.batch_status import BatchStatus, StepStatus

EXPERIMENT, LABEL = "experiment:", "label:"
MOST_KEPT = 20_000
"""Trials whose rows a process keeps between looks."""


@dataclass(slots=True)
class TrialRow:
    """One trial step of a batch; never changed, as its facts."""

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

    reused: str = ""
    """The attempt of another batch that was taken over because its content is the same: ``batch_id/job_id/step_id/attempt``."""
    judges: str = ""
    """Of a regrade: the trial whose work it judges again, ``batch_id/job_id/step_id``."""

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
    labels: tuple[tuple[str, str], ...] = ()
    """Only trials that have each of these."""
    passed_over: tuple[str, ...] = ()
    """Batches that cannot be read, and are not among these; a line each."""
    several: bool = False
    """Nobody named one of them: one that cannot be read is passed over."""

    def takes(self, row: TrialRow) -> bool:
        """Tell whether a trial of these batches is meant."""
        return (
            self.agent in (None, row.facts.agent, row.import_path)
            and self.model in (None, row.facts.model)
            and all(row.labels.get(name) == value for name, value in self.labels)
        )

    @property
    def who(self) -> str:
        """Whose trials, as a side of a comparison names them; empty for everybody's."""
        return ",".join([*filter(None, (self.agent, self.model)), *(f"{n}={value}" for n, value in self.labels)])

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


class SideName(NamedTuple):
    """What a side of a comparison is called, taken apart: ``WHERE[@AGENT[,MODEL][,NAME=VALUE…]]``.

    ``WHERE`` is a batch, ``experiment:NAME``, or ``label:NAME=VALUE`` for all trials that have this label.
    """

    where: str
    agent: str = ""
    model: str = ""
    labels: tuple[str, ...] = ()
    """Each as ``NAME=VALUE``."""

    @classmethod
    def of(cls, text: str) -> "SideName":
        """Take a name apart. What has no ``=`` behind a label goes on with its value, which may have commas."""
        where, _, who = text.strip().partition("@")
        whose: list[str] = []
        labels: list[str] = []
        for part in who.split(",") if who else ():
            if "=" in part:
                labels.append(part)
            elif labels:
                labels[-1] += f",{part}"
            else:
                whose.append(part)
        agent, model = (*whose, "", "")[:2]
        return cls(where, agent.strip(), model.strip(), tuple(label.strip() for label in labels))

    def __str__(self) -> str:
        whose = [self.agent, self.model] if self.model else list(filter(None, [self.agent]))
        who = ",".join([*whose, *self.labels])
        return f"{self.where}@{who}" if who else self.where


def side(layout: Layout, text: str) -> Choice:
    """Return one side of a comparison, see ``SideName``.

    Raises:
        UnknownId: it names nothing.
        UserError: a label has no name.
    """
    name = SideName.of(text)
    labels = list(name.labels)
    if name.where.startswith(LABEL):
        labels.insert(0, name.where.removeprefix(LABEL))
        chosen = choose(layout)
    elif name.where.startswith(EXPERIMENT):
        chosen = choose(layout, experiment=name.where.removeprefix(EXPERIMENT))
    else:
        chosen = choose(layout, name.where)
    pairs = tuple((key, value) for key, _, value in (label.partition("=") for label in labels))
    if not all(key and f"{key}=" in label for (key, _), label in zip(pairs, labels, strict=True)):
        raise UserError(f"{text}: a label is written NAME=VALUE", fix=f"write {LABEL}tier=hard or @tier=hard")
    found = chosen._replace(agent=name.agent or None, model=name.model or None, labels=pairs)
    return found._replace(said=f"{chosen.said} {found.who}" if found.who else chosen.said)


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
        fix = names.did_you_mean(experiment, set(known.values()) - {""}, "see `parallelhassnes scoreboard`")
        raise UnknownId(f"there is no batch of experiment {experiment}", fix=fix)
    return found


@bulk
def read(
    layout: Layout,
    chosen: Choice,
    known: dict[str, list[TrialRow]] | None = None,
    statuses: dict[str, BatchStatus] | None = None,
) -> list[TrialRow]:
    """Return every trial of the choice, in the tables' order.

    Args:
        known: batch → all its trials, of batches that the caller has had read; those that are read now are added.
        statuses: batch → how its steps stand (``batch_status.read_told``), where the caller has it, or has a use for it; those that are
            read now are added.

    Raises:
        UnknownId: the agent or model that was asked for has no trial there.
    """
    rows: list[TrialRow] = []
    for batch_id in chosen.batch_ids:
        with chosen.apart(layout, batch_id):
            own = known.get(batch_id) if known is not None else None
            if own is None:
                look = _look(layout, batch_id, (statuses or {}).get(batch_id))
                own = look.rows
                if statuses is not None:
                    statuses[batch_id] = look.status
            if known is not None:
                known[batch_id] = own
            rows += own
    kept = [row for row in rows if chosen.takes(row)]
    if rows and not kept:
        raise _no_such_agent(rows, chosen)
    return told_apart(kept)


def each_once(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows without those whose agent's run stands among them already: of an attempt that was taken over, and of a regrade.

    Several batches together would else count a run twice, and with other tests. The first of them counts; on its own each batch is whole.
    """
    if not any(row.reused for row in rows) and len({row.batch_id for row in rows}) < 2:
        return list(rows)
    places, known, found = {row.step for row in rows}, set[str](), list[TrialRow]()
    for row in rows:
        run_id = names.run_id_of(row.facts.attempt.rpartition("/")[2]) if row.facts.attempt else ""
        if run_id not in known and row.judges not in places:
            found.append(row)
        if run_id:
            known.add(run_id)
    return found


def told_apart(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows; agents of several import paths and one name, which no batch's plan has told apart, by these paths."""
    if not any(row.import_path for row in rows):
        return list(rows)
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


class _ReadBatch(NamedTuple):
    """The rows of a batch, and what they were made from."""

    stamp: str
    plans: list[list[int] | None]
    status: BatchStatus
    made: "_Made"

    @property
    def rows(self) -> list[TrialRow]:
        return self.made.rows


class _Made(NamedTuple):
    """Rows with what each was made from, so that the next look makes those anew that are of something else."""

    meta: BatchMeta
    jobs: dict[str, JobTrials]
    entries: list[StepStatus]
    rows: list[TrialRow]


_looks: dict[Path, _ReadBatch] = {}
"""Folder of a batch → the last look at it, of those that were read last; for a process that stays."""
_keeping = threading.Lock()


def _look(layout: Layout, batch_id: str, status: BatchStatus | None) -> _ReadBatch:
    """Return the rows of a batch, those of the last look where nothing that they were made from has changed since."""
    batch_dir = layout.batch(batch_id)
    stamp = batch_status.stamp(layout, batch_id, batch_status.running_digest(layout, batch_id))
    last = _looks.get(batch_dir)
    if status is None and last is not None and last.stamp == stamp and last.plans == trial_plans.made_from(last.status):
        return last
    _looks.pop(batch_dir, None)
    status = status or batch_status.read_told(layout, batch_id)
    plans = trial_plans.made_from(status)
    before = last.made if last is not None and last.plans == plans else None
    del last  # of a large one only what is of use stays while the next is made
    with members.collecting() as damage:
        look = _ReadBatch(stamp, plans, status, _of_batch(layout, status, before))
    if not damage:
        with _keeping:
            _looks[batch_dir] = look
            while sum(len(each.rows) for each in _looks.values()) > MOST_KEPT:
                del _looks[next(iter(_looks))]
    return look


def _of_batch(layout: Layout, status: BatchStatus, before: _Made | None) -> _Made:
    """Make the rows of a batch; of the steps that stand as they did ``before``, by the same plans, these."""
    meta = batches.read_batch(status.batch_dir)
    same = before is not None and before.meta == meta
    jobs = before.jobs if before is not None and same else trial_plans.read(layout, status)
    known = dict(_by_step(before)) if before is not None and same else {}
    made = _Made(meta, jobs, [], [])
    judged = f"{meta.regrade.batch}/" if meta.regrade else ""
    for job_id, plan in jobs.items():
        labels: dict[str, str] | None = None
        for step in status.jobs[job_id]:
            if step.step_id not in plan.trials:
                continue
            entry = status.of(job_id, step)
            old = known.get((job_id, step.step_id))
            if old is not None and old[0] == entry:
                made.rows.append(old[1])
            else:
                labels = {**meta.labels, **plan.labels} if labels is None else labels
                made.rows.append(_row(meta, status, plan, entry, labels, judged))
            made.entries.append(entry)
    return made


def _by_step(made: _Made) -> Iterator[tuple[tuple[str, str], tuple[StepStatus, TrialRow]]]:
    for entry, row in zip(made.entries, made.rows, strict=True):
        yield (entry.job_id, entry.step.step_id), (entry, row)


def _row(
    meta: BatchMeta, status: BatchStatus, plan: JobTrials, entry: StepStatus, labels: dict[str, str], judged: str
) -> TrialRow:
    job_id, step_id = entry.job_id, entry.step.step_id
    own, settings = plan.trials[step_id]
    fact = of_step(status, entry, own)
    name = (fact.attempt or "").rpartition("/")[2]
    taken = status.fold.reused.get(f"{job_id}/{step_id}/{name}", "")
    judges = f"{judged}{job_id}/{step_id}" if judged else ""
    return TrialRow(meta.batch_id, meta.experiment, job_id, fact, labels, own.import_path, settings, taken, judges)


def of_batch(layout: Layout, status: BatchStatus) -> Iterator[tuple[str, JobTrials, dict[str, TrialFacts]]]:
    """Yield the jobs of a batch and the trials of each by their steps, in the table's order, as ``batch_status.read_told`` knows them.

    A job that cannot be read is passed over, and named.
    """
    for job_id, plan in trial_plans.read(layout, status).items():
        trials = (step for step in status.jobs[job_id] if step.step_id in plan.trials)
        yield (
            job_id,
            plan,
            {step.step_id: of_step(status, status.of(job_id, step), plan.trials[step.step_id].plan) for step in trials},
        )


def of_job(status: BatchStatus, job: JobSpec) -> dict[str, TrialFacts]:
    """Return the trials of a job by their steps, as ``statuses.read_told`` knows them."""
    return {
        step.step_id: of_step(status, status.of(job.job_id, index.of(step)), facts.plan_of(step))
        for step in job.steps
        if step.kind == "trial"
    }


def of_step(status: BatchStatus, entry: StepStatus, plan: TrialPlan) -> TrialFacts:
    """Return the facts of one trial step."""
    row, step_id = entry.row, entry.step.step_id
    if row is None or row.said is None:
        found = facts.of_trial(step_id, plan, None, NOTHING)
        if row is None and entry.state == "canceled":
            return replace(found, result="skipped" if entry.skipped else "canceled")
        return found
    place = f"steps/{step_id}/attempts/{row.counting}"
    others = UsageSum.restored(row.others) if row.others else NOTHING
    if not facts.is_whole(row.said):
        job_dir = status.batch_dir / entry.job_id
        chosen = facts.of_attempt(job_dir / place, batches.read_job(job_dir).step(step_id))
        if chosen is not None:
            return facts.of_trial(step_id, plan, replace(chosen, attempt=place), others)
    return facts.of_line(step_id, plan, row.said, place, others)


def _no_such_agent(rows: Sequence[TrialRow], chosen: Choice) -> UnknownId:
    whose = chosen._replace(labels=())
    batch = chosen.said.removesuffix(f" {chosen.who}")
    if chosen.labels and any(whose.takes(row) for row in rows):
        known = sorted({f"{name}={value}" for row in rows if whose.takes(row) for name, value in row.labels.items()})
        wanted = ",".join(f"{name}={value}" for name, value in chosen.labels)
        fix = names.suggestion(wanted, known, "its labels are") if known else "none of its trials has a label"
        return UnknownId(f"{batch} has no trial with {wanted}", fix=fix)
    known = sorted({",".join(filter(None, (row.agent, row.facts.model))) for row in rows})
    fix = names.did_you_mean(whose.who, known, f"there are {', '.join(known[:5])}", "@{}".format)
    return UnknownId(f"{batch} has no trial of {whose.who}", fix=fix)
