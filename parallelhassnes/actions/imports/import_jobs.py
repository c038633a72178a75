"""``import``: the trials of Harbor job folders, and of exports of Oddish, as batches of the store, each trial a sealed attempt like any other.

    read the source ─▶ stage sealed attempts (``stage_attempt``) ─▶ a new batch: its table with its companion to ``incoming/``, ingest
                                                                 ─▶ a known one: attempts into its steps, under ``tick.lock`` (``add_steps``)

All under ``import.lock``. What a source is and which of its trials are known stands in the batches alone: ``imported`` in
``batch_meta.json`` has the source's job id, ``imported`` in an attempt's ``meta.json`` the trial's name and the hash of its result. So a
second import adds nothing, whatever the folder is called by then, and a job that has grown adds what is new: a trial that had not run
goes into its step, one that Harbor has run again into the same step as a further attempt, one that nobody had planned into a
batch of its own.

A crash leaves: staged attempts (the next import removes them); a table in ``incoming/`` (any tick, or the next import, makes the batch
of it and of what is staged); attempts in their steps under the mark of ``store.additions`` (any tick gives them their lines).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parallelhassnes import walk
from parallelhassnes.actions.imports import import_table, sources, stage_attempt
from parallelhassnes.actions.imports.import_table import Slot
from parallelhassnes.actions.imports.source_jobs import Source, SourceJob, SourceTrial
from parallelhassnes.actions.submit import put_in
from parallelhassnes.errors import UserError
from parallelhassnes.execute.redact import Redactor
from parallelhassnes.plan import JobSpec, Plan, StepSpec
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.steps import safe_read
from parallelhassnes.store import atomic, attempts, batches, decider, locks, members
from parallelhassnes.tables.expand import expand
from parallelhassnes.views.scoreboard_models import View

_MOST_NAMED = 5


class ImportedFolder(View):
    """What became of one job folder, or of one experiment in an export of Oddish."""

    path: str
    job_id: str
    """Harbor's, or ``oddish-…`` of an experiment there."""
    job_name: str
    batch_id: str | None = None
    """The batch that has its trials; None in a dry run that would make one, and where there is nothing to import yet."""
    more_batches: list[str] = []
    """Batches with trials of it that it had not planned at first."""
    trials: int = 0
    """Imported now, or to be imported."""
    unfinished: int = 0
    """Of these without a result: stopped there, or still running."""
    known: int = 0
    """Imported before."""
    not_run: int = 0
    """Planned there, with nothing of it there."""
    notes: list[str] = []


class ImportResult(View):
    """What came of it."""

    ok: bool = True
    """False where a folder could not be imported."""
    dry_run: bool = False
    jobs: list[ImportedFolder] = []
    problems: list[str] = []
    """A line for each path or folder that could not be imported."""


type Placed = tuple[JobSpec, StepSpec, SourceTrial]


def import_jobs(
    ctx: Context,
    paths: Sequence[Path],
    *,
    experiment: str | None = None,
    dry_run: bool = False,
    found_good: Callable[[], None] = lambda: None,
) -> ImportResult:
    """Import Harbor job folders and exports of Oddish; a path is one, or a folder of several.

    Args:
        experiment: of the new batches; None for the name of each job.
        dry_run: say what would be imported, change nothing.
        found_good: is called before anything is written, where there is a job to import.

    Raises:
        UserError: this host may not work on the root.
    """
    done = ImportResult(dry_run=dry_run)
    folders: dict[Path, None] = {}
    for path in paths:
        try:
            folders |= dict.fromkeys(sources.find(path))
        except (UserError, OSError) as error:
            done.problems.append(_line(path, error))
    if dry_run:
        _each(ctx, folders, experiment, done)
    elif folders:
        found_good()
        check_host.check(ctx)
        ctx.layout.imports.mkdir(exist_ok=True)
        with locks.held(ctx.layout.import_lock):
            _clear_up(ctx)
            _each(ctx, folders, experiment, done)
            _clear_up(ctx)
        pass_and_wake(ctx)
    done.ok = not done.problems
    return done


def _each(ctx: Context, folders: Iterable[Path], experiment: str | None, done: ImportResult) -> None:
    known = _known_batches(ctx)
    for folder in folders:
        try:
            jobs = sources.read(folder)
            if not jobs:
                raise UserError(f"{folder} has no trials", fix="name an export that has, or pull it again")
            for job in jobs:
                done.jobs.append(_Import(ctx, job, experiment, known, dry_run=done.dry_run).run())
        except (UserError, OSError) as error:
            done.problems.append(_line(folder, error))


def _line(path: Path, error: Exception) -> str:
    said = str(error)
    if isinstance(error, OSError):
        said = f"{error.filename or path}: {error.strerror}; {atomic.advice(error)}"
    return said if str(path) in said else f"{path}: {said}"


def _clear_up(ctx: Context) -> None:
    """Complete what an earlier import has begun, as a tick would, and remove what it staged for nothing."""
    with decider.deciding_if_free(ctx.layout) as is_ours:
        if is_ours:
            ingest.ingest_incoming(ctx)
            with locks.held(ctx.layout.tick_lock):
                add_steps.complete(ctx)
    for name in members.names(ctx.layout.imports):
        if not (ctx.layout.incoming / f"{name}.json").exists():
            walk.remove_tree(ctx.layout.imports / name)


type KnownBatches = dict[Source, dict[str, list[str]]]
"""By source and job id: the batches that were imported from it, oldest first."""


def _known_batches(ctx: Context) -> KnownBatches:
    found: KnownBatches = {"harbor": {}, "oddish": {}}
    for batch_id in ctx.layout.batch_ids():
        with members.apart(ctx.layout.batch(batch_id)):
            imported = batches.read_about(ctx.layout.batch(batch_id)).get("imported")
            if isinstance(imported, dict) and imported.get("source") in found:
                found[imported["source"]].setdefault(str(imported.get("job_id")), []).append(batch_id)
    return found


class _Import:
    """One folder."""

    def __init__(
        self, ctx: Context, job: SourceJob, experiment: str | None, known: KnownBatches, *, dry_run: bool
    ) -> None:
        self.ctx, self.job, self.experiment, self.dry_run = ctx, job, experiment, dry_run
        self.known = known[job.source]
        self.batch_ids = self.known.get(job.job_id, [])
        self.redactor = Redactor(_secrets(ctx))
        self.said = ImportedFolder(
            path=str(job.folder),
            job_id=job.job_id,
            job_name=job.name,
            batch_id=self.batch_ids[0] if self.batch_ids else None,
            more_batches=self.batch_ids[1:],
            notes=list(job.passed_over),
        )

    def run(self) -> ImportedFolder:
        """Do it, or say what would be done.

        Raises:
            UserError: nothing of it can be imported, now or later.
        """
        self._check_has_trials()
        here = [entry for batch_id in self.batch_ids for entry in self._steps_of(batch_id)]
        have = {(own["trial"], own["result_sha256"]) for entry in here for own in entry.imported.values()}
        elsewhere = self._elsewhere()
        have |= {(trial, result) for trial, result in elsewhere if result}
        names = {name for name, _ in have}
        new = [
            trial
            for trial in self.job.trials
            if (trial.name, trial.result_sha256) not in have and (trial.result_sha256 or trial.name not in names)
        ]
        self.said.trials, self.said.known = len(new), len(self.job.trials) - len(new)
        self.said.unfinished = sum(not trial.result_sha256 for trial in new)
        self._tell_changed(here, {trial.name for trial in new})
        rest = new
        if self.batch_ids:
            placed, rest = _placed(new, here, {trial.name for trial in self.job.trials})
            for batch_id in self.batch_ids if not self.dry_run else ():
                self._add(batch_id, [own for own in placed if own[0].batch_id == batch_id])
            filled = {(job.job_id, step.step_id) for job, step, _ in placed}
            self.said.not_run = sum(
                not entry.names and (entry.job.job_id, entry.step.step_id) not in filled for entry in here
            )
        if self.batch_ids:
            slots = [Slot(trial.key, trial, None) for trial in rest]
        else:
            known = {trial.key for trial in self.job.trials} - {trial.key for trial in new}
            slots = [slot for slot in import_table.slots_of(self.job) if slot.key not in known or slot.trial in new]
        if rest:
            self._new_batch(slots)
        elif not self.batch_ids and elsewhere:
            self.said.batch_id = min(elsewhere.values())
        elif not self.batch_ids:
            self.said.notes.append("it has no trials yet")
        return self.said

    def _check_has_trials(self) -> None:
        """Refuse what has no trial of which anything can be read, and will get none: it has ended, or is an export, which only another pull changes."""
        why = list(self.job.passed_over)
        if self.job.trials or not (self.job.ended or (why and self.job.source == "oddish")):
            return
        first = why[0] if why else "it has ended without one"
        more = f", and {len(why) - 1} more like it" if len(why) > 1 else ""
        raise UserError(
            f"{self.job.folder}: {self.job.name} has no trial that can be imported ({first}{more})",
            fix="name one that has",
        )

    def _elsewhere(self) -> dict[tuple[str, str], str]:
        """Return the trials of other jobs of the source that are this one's, too: of Oddish, where one was pulled alone first."""
        if self.job.source == "harbor":
            return {}
        own = {trial.name for trial in self.job.trials}
        return {
            (imported["trial"], imported["result_sha256"]): batch_id
            for job_id, batch_ids in self.known.items()
            for batch_id in batch_ids
            if job_id != self.job.job_id
            for entry in self._steps_of(batch_id)
            for imported in entry.imported.values()
            if imported["trial"] in own
        }

    def _tell_changed(self, here: "Sequence[_Step]", new: set[str]) -> None:
        """Say of which known trials the source has other files than were imported; what was imported stays."""
        there = {
            (own["trial"], own["result_sha256"]): entry.dir / "attempts" / name
            for entry in here
            for name, own in entry.imported.items()
        }
        for trial in self.job.trials:
            folder = there.get((trial.name, trial.result_sha256))
            if folder is None or trial.name in new or not attempts.is_sealed(folder):
                continue
            changed = stage_attempt.changed_since(self.job.folder / trial.place, folder)
            if changed:
                more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
                self.said.notes.append(
                    f"{trial.name}: not as it was imported: {', '.join(changed[:_MOST_NAMED])}{more}; what was imported stays"
                )

    # --- a new batch ------------------------------------------------------------------------------------

    def _new_batch(self, slots: Sequence[Slot]) -> None:
        document = import_table.document_of(self.job, slots, self.experiment)
        data = import_table.data_of(document)
        name = f"{self.job.name}.json"
        base_dirs = [self.ctx.layout.root]
        plan = expand(data, name=name, base_dirs=base_dirs, defaults=ingest.defaults(self.ctx))
        self.said.notes += plan.warnings
        if not self.batch_ids:
            self.said.not_run = sum(slot.trial is None for slot in slots)
        if self.dry_run:
            return
        submission = ingest.new_submission(self.ctx.layout, name, [], again=True, imported=True)
        self._stage(submission.batch_id, _wanted(plan, submission.batch_id, slots))
        made = put_in(self.ctx, submission, data, name, plan)
        if self.batch_ids:
            self.said.more_batches.append(made.batch_id)
        else:
            self.said.batch_id = made.batch_id
        self.known.setdefault(self.job.job_id, []).append(made.batch_id)

    def _stage(self, batch_id: str, wanted: Sequence[Placed], earlier: Mapping[str, list[str]] | None = None) -> None:
        for job, step, trial in wanted:
            folder = self.ctx.layout.imports / batch_id / job.job_id / step.step_id
            names = (earlier or {}).get(f"{job.job_id}/{step.step_id}", [])
            stage_attempt.stage(self.ctx, folder, (job, step), (self.job, trial), self.redactor, names)

    # --- a batch that is there --------------------------------------------------------------------------

    def _steps_of(self, batch_id: str) -> Iterator["_Step"]:
        for job_dir in batches.job_dirs(self.ctx.layout, batch_id):
            job = batches.read_job(job_dir)
            for step in job.steps:
                if step.kind == "trial":
                    yield _Step(job, step, job_dir / "steps" / step.step_id)

    def _add(self, batch_id: str, placed: Sequence[Placed]) -> None:
        if not placed:
            return
        layout = self.ctx.layout
        before = {
            f"{job.job_id}/{step.step_id}": attempts.names(layout.step(batch_id, job.job_id, step.step_id))
            for job, step, _ in placed
        }
        self._stage(batch_id, placed, before)
        with decider.deciding(layout):
            staged: list[tuple[Path, Path]] = []
            for job, step, trial in placed:
                key, step_dir = f"{job.job_id}/{step.step_id}", layout.step(batch_id, job.job_id, step.step_id)
                if attempts.names(step_dir) != before[key]:
                    self.said.notes.append(f"{trial.name}: {key} was attempted meanwhile; import again")
                    continue
                aside = layout.imports / batch_id / job.job_id / step.step_id
                staged += [(aside / "attempts" / name, step_dir) for name in attempts.names(aside)]
            add_steps.add_attempts(self.ctx, batch_id, staged)


class _Step:
    """A trial step of a batch that was imported."""

    def __init__(self, job: JobSpec, step: StepSpec, folder: Path) -> None:
        self.job, self.step, self.dir = job, step, folder
        self.names = attempts.names(folder)
        self.imported: dict[str, dict[str, Any]] = {}
        """Attempt → what its ``meta.json`` says of its source."""
        for name in self.names:
            meta = safe_read.read_object(folder / "attempts" / name / attempts.META) or {}
            if isinstance(meta.get("imported"), dict):
                self.imported[name] = meta["imported"]

    @property
    def is_over(self) -> bool:
        """Nothing of it lives."""
        return not self.names or attempts.is_sealed(self.dir / "attempts" / self.names[-1])

    def waits_for(self, trial: SourceTrial, there: set[str]) -> int | None:
        """Tell how well a trial of the source fits as a (further) attempt, the least best; None where it is not one of the step's.

        Args:
            there: names of all trials that the source has now.
        """
        if self.step.spec.get("source_key") != trial.key or not self.is_over:
            return None
        if not self.names:
            return 1
        newest = self.imported.get(self.names[-1])
        if newest is None:  # it was run here
            return None
        if newest["trial"] == trial.name:
            return 0
        return 2 if newest["trial"] not in there and not newest["result_sha256"] else None


def _placed(
    new: Sequence[SourceTrial], here: Sequence[_Step], there: set[str]
) -> tuple[list[Placed], list[SourceTrial]]:
    """Return the new trials with the steps that they belong to, and those that belong to none."""
    placed: list[Placed] = []
    rest: list[SourceTrial] = []
    free = list(here)
    for trial in new:
        fitting = [(fit, place) for place, e in enumerate(free) if (fit := e.waits_for(trial, there)) is not None]
        if not fitting:
            rest.append(trial)
            continue
        entry = free.pop(min(fitting)[1])
        placed.append((entry.job, entry.step, trial))
    return placed, rest


def _wanted(plan: Plan, batch_id: str, slots: Sequence[Slot]) -> list[Placed]:
    """Return the trials that are to be staged for a new batch, with the jobs and steps that the plan gives them."""
    by_name = {slot.trial.name: slot.trial for slot in slots if slot.trial is not None}
    jobs = [job.model_copy(update={"batch_id": batch_id}) for job in plan.jobs]
    return [
        (job, step, by_name[name]) for job in jobs for step in job.steps if (name := step.spec.get("source_trial", ""))
    ]


def _secrets(ctx: Context) -> dict[str, str]:
    """Return the values that nobody is to read in the store's files, as far as they are at hand."""
    known = ctx.secrets()
    return {name: known[name] for name in ctx.config.secrets if known.get(name)}
