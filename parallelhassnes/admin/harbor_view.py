"""A folder made of links in which Harbor's own tools find a batch.

``export`` makes ``<target>/<job name>/`` as ``harbor run`` would have left it: a directory per trial,
whose files are hard links to those of the attempt, and Harbor's ``config.json``, ``result.json``,
``lock.json`` and ``job.log``. ``harbor view <target>`` shows every trial; ``harbor job resume -p
<target>/<job name>`` finds nothing to do, for what has a result. Hard links and not symbolic ones,
because the viewer refuses to read what lies outside of its folder. The trial's ``config.json`` alone is
written anew: in Harbor it names the folder that its trial lies in, and resuming compares it.

A Harbor job is agents times tasks times attempts with one set of settings. A batch that is no such
rectangle becomes several jobs. Everything is built beside its place and renamed into it at the end, so
that a crash leaves at most a folder whose name begins with a dot; files of the store are only read.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from parallelhassnes import formatting, packed, walk
from parallelhassnes.admin import harbor_export
from parallelhassnes.admin.harbor_export import FoundTrial
from parallelhassnes.errors import UserError
from parallelhassnes.steps.trial import preload
from parallelhassnes.store import atomic
from parallelhassnes.store.archives import unpacking
from parallelhassnes.store.evidence import removals

if TYPE_CHECKING:
    from harbor.models.job.config import JobConfig

OWN_FILES = frozenset({"config.json"})
"""Files of a trial directory that are not linked but written."""


class Export(NamedTuple):
    """What an export made."""

    jobs: tuple[Path, ...]
    """The folders of the Harbor jobs, all of them directly below the target."""
    trials: int
    skipped: tuple[str, ...]
    """One line per trial step that is not in it, with the reason."""


def export(batch_dir: Path, target: Path) -> Export:
    """Make the folder for ``batch_dir`` (``runs/<batch_id>``) below ``target``, which may exist.

    Raises ``UserError`` where a job's folder exists already, where a task is gone that Harbor needs for
    its lock, and where nothing in the batch has a result.
    """
    preload.set_harbor_environment(os.environ)
    found, skipped = harbor_export.find_trials(batch_dir)
    if not found:
        gone = next(iter(removals.of(batch_dir).values()), None)
        if gone is not None:
            raise UserError(f"no trial of {batch_dir.name} has what an export needs", fix=gone.line)
        raise UserError(f"no trial of {batch_dir.name} has a result yet", fix="run it first")
    target = target.resolve()
    groups = harbor_export.group(found)
    names = [batch_dir.name] if len(groups) == 1 else [f"{batch_dir.name}-{n}" for n in range(1, len(groups) + 1)]
    for name in names:
        if (target / name).exists():
            raise UserError(f"{target / name} exists already", fix="remove it or name another folder")
    target.mkdir(parents=True, exist_ok=True)
    metrics = harbor_export.metrics_of(batch_dir)
    deleted = harbor_export.deleted_elsewhere(batch_dir) if len(groups) == 1 else 0  # whose they were is not known
    for name, trials in zip(names, groups, strict=True):
        config = harbor_export.job_config(trials, target, name, metrics)
        _write_job(target, name, config, trials, deleted)
    return Export(tuple(target / name for name in names), len(found), tuple(skipped))


def _write_job(target: Path, name: str, config: "JobConfig", trials: Sequence[FoundTrial], deleted: int) -> None:
    from harbor.job_plan import JobPlan

    new = target / f".{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    identity = uuid5(NAMESPACE_URL, f"parallelhassnes:{name}")
    try:
        plan = asyncio.run(JobPlan.from_config(config, job_id=identity))
    except (OSError, ValueError) as error:
        new.rmdir()
        raise UserError(f"Harbor cannot plan the job {name}: {error}", fix="put the task back where it was") from error
    for trial in trials:
        place = new / trial.result.trial_name
        _link_trial(trial.directory, place)
        own = trial.config.model_copy(
            update={"trial_name": trial.result.trial_name, "trials_dir": target / name, "job_id": identity}
        )
        (place / "config.json").write_text(own.model_dump_json(indent=4, exclude_defaults=True))
    (new / "config.json").write_text(config.model_dump_json(indent=4, exclude_defaults=True))
    (new / "lock.json").write_text(plan.job_lock.model_dump_json(indent=4, exclude_none=True))
    results = [trial.result for trial in trials]
    # Harbor's own job times have no zone, and it subtracts them from each other.
    starts = [r.started_at.astimezone().replace(tzinfo=None) for r in results if r.started_at]
    ends = [r.finished_at.astimezone().replace(tzinfo=None) for r in results if r.finished_at]
    result = plan.aggregate(
        results,
        started_at=min(starts, default=None),
        finished_at=max(ends, default=None),
        n_retries=deleted + sum(trial.retries for trial in trials),
    )
    (new / "result.json").write_text(result.model_dump_json(indent=4, exclude={"trial_results"}))
    (new / "job.log").write_text(f"Exported by parallelhassnes: {formatting.counted(len(trials), 'trial')}.\n")
    new.rename(target / name)


def _link_trial(source: Path, target: Path) -> None:
    """Link a trial's files but for its own ``config.json``; those of a packed one are brought back, beside, and linked from there."""
    found = None if source.is_dir() else packed.find(source)
    if found is None:
        _link_tree(source, target, without=OWN_FILES)
        return
    pack, place = found
    fresh = atomic.temp_path(target.parent)
    fresh.mkdir()
    try:
        unpacking.extract(pack, fresh, ["/".join(Path(place).parts[:5])])
        _link_tree(fresh / place, target, without=OWN_FILES)
    finally:
        walk.remove_tree(fresh)


def _link_tree(source: Path, target: Path, without: frozenset[str] = frozenset()) -> None:
    """Hard links of all files below ``source``; copies where the file system makes no such link.

    Symbolic links stay what they are, so that none leads out of the target which did not before; pipes,
    sockets and devices are left out.

    Args:
        without: names directly below ``source`` that are left out.
    """
    target.mkdir()
    for entry in source.iterdir():
        place = target / entry.name
        if entry.name in without:
            continue
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            _link_tree(entry, place)
        elif entry.is_file():
            _link(entry, place)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
