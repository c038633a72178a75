"""Ingest: from a table in ``incoming/`` to a batch with tickets. Under ``ingest.lock``.

    incoming/<name>                        a table, put there by rename
    incoming/<name>.submit                 what ``submit`` knows besides: batch id, base directories

    by_sha256/<sha> ─▶ runs/<batch_id>/launch_table.*  ─▶ index.json ─▶ <job_id>/job.json … ─▶ ledger
    ─▶ additions and attempts taken over (``rerun``, ``import``) ─▶ batch_meta.json ─▶ tickets ─▶ accepted/<batch_id>.ack.json ─▶ companion removed ─▶ table to accepted/

``batch_meta.json`` makes the batch one; before it the folder is garbage that the redo writes over. A crash
anywhere leaves the table in ``incoming/``. ``by_sha256`` says from the start which batch these bytes make, the
ack that it is made: bytes whose batch has no ack yet, be it the same file or one submitted again after a
crash, complete that batch instead of making another. A bad table goes to ``rejected/`` with every error; one that
breaks us does too, and neither holds up another.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from parallelhassnes import names
from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.plan import BatchMeta, JobSpec, Plan
from parallelhassnes.schedule.additions import add_steps, carry_over, similar_steps
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.job_state import ticket_of
from parallelhassnes.schedule.rebuild import requeue_batch, write_ack
from parallelhassnes.schedule.rules import plan_fits
from parallelhassnes.store import atomic, batches, clocks, decider, index, locks, members, rooted
from parallelhassnes.store.evidence import ledger, seal
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import notices, tickets
from parallelhassnes.store.records import Control, now_text

if TYPE_CHECKING:
    from parallelhassnes.tables.expand import TableDefaults

COMPANION = ".submit"
_TABLE_ENDINGS = (".json", ".yaml", ".yml")
_YOUNG_SEC = 2.0
_SETTLING_SEC = 10.0
_ABANDONED_SEC = 3600.0
_LONGEST = 200
"""Bytes of a table's name behind which ``.error.json`` and a counter still fit."""


class Submission(BaseModel):
    """The companion of a table that came by ``submit``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    schema_version: int = 1
    batch_id: str
    source_name: str
    base_dirs: list[str]
    again: bool = False
    rerun_of: str = ""
    """The batch that is run again."""
    carry: dict[str, str] = {}
    """``job_id/step_id`` → name of the attempt of that batch which is taken over instead of being made anew; of one that is reused
    ``batch_id/job_id/step_id/attempt``, of any batch."""
    imported: bool = False
    """The batch's attempts were made aside by ``import``: ``schedule.additions.carry_over``."""
    variables: dict[str, str] | None = None
    """What the environment of ``run`` holds for the batch: see ``Control.variables``."""
    by: str | None = None
    """Who submitted it, where that is not the owner of the file."""


class Ingested(NamedTuple):
    """What became of one table."""

    name: str
    batch_id: str | None
    """None where it was rejected."""
    duplicate: bool = False
    """The same bytes had been accepted before; ``batch_id`` is that batch."""
    problems: tuple[Problem, ...] = ()
    left: bool = False
    """Neither accepted nor rejected: it stays where it is, and the next tick looks again."""


def ingest_incoming(ctx: Context) -> list[Ingested]:
    """Ingest every table that is whole; nothing where somebody else is at it."""
    waiting = list(_tables(ctx))
    if not waiting:
        return []
    lock = locks.hold(ctx.layout.ingest_lock)
    if lock is None:
        return []
    done: list[Ingested] = []
    try:
        for path in waiting:
            with members.apart(path, partial(_leave, done, path)):
                made = ingest_file(ctx, path)
                if made is not None:
                    done.append(made)
    finally:
        locks.release(lock)
    return done


def _leave(done: list[Ingested], path: Path, error: Exception) -> None:
    """Note a table that cannot be read or moved: whatever the file system says of it is its own."""
    fix = f"{atomic.advice(error)}; the next tick tries again"
    problem = Problem(path.name, "", atomic.describe_damage(error), fix)
    done.append(Ingested(path.name, None, problems=(problem,), left=True))


def defaults(ctx: Context) -> "TableDefaults":
    """Tell what the configuration says about tables that leave it open."""
    from parallelhassnes.tables.expand import TableDefaults

    return TableDefaults(
        environment=ctx.config.environment,
        aliases=ctx.config.aliases,
        secrets=ctx.config.secrets,
        max_steps=ctx.config.max_steps,
    )


def ingest_file(ctx: Context, path: Path, plan: Plan | None = None) -> Ingested | None:
    """Ingest one table of ``incoming/``; the caller holds ``ingest.lock``.

    Args:
        plan: the table's expansion, where the caller has made it from the same bytes.

    Returns:
        What became of it; None where it is gone or not whole yet.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    from parallelhassnes.tables.expand import expand

    try:
        submission = _companion(path)
    except UserError as error:
        _reject(ctx, path, [problem := Problem(path.name + COMPANION, "", error.message)])
        return Ingested(path.name, None, problems=(problem,))
    digest = hashlib.sha256(data).hexdigest()
    again = submission is not None and submission.again
    known = known_batch(ctx, digest)
    if known is not None and not again:
        _accept(ctx, path, known, duplicate=True)
        return Ingested(path.name, known, duplicate=True)
    try:
        if plan is None:
            plan = expand(data, name=path.name, base_dirs=_base_dirs(ctx, submission), defaults=defaults(ctx))
            plan_fits.check(ctx, plan, path.name)
    except InvalidInput as error:
        if submission is None and _still_growing(path, data):
            return None
        _reject(ctx, path, error.problems)
        return Ingested(path.name, None, problems=tuple(error.problems))
    except Exception as error:  # noqa: BLE001 - a table that breaks us must not hold up the others
        log = ctx.layout.system / "ingest-errors.log"
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{now_text()} {path.name}\n{traceback.format_exc()}\n")
        problem = Problem(path.name, "", f"could not be read: {type(error).__name__}", f"see {log}")
        _reject(ctx, path, [problem])
        return Ingested(path.name, None, problems=(problem,))
    batch_id = submission.batch_id if submission else new_batch_id(ctx.layout)
    if not again:
        batch_id = _claimed(ctx, digest) or batch_id
    atomic.write_json(ctx.layout.tables_by_sha / digest, {"batch_id": batch_id})
    _write_batch(ctx, batch_id, path, data, digest, submission, plan)
    _accept(ctx, path, batch_id, duplicate=False)
    return Ingested(path.name, batch_id)


def known_batch(ctx: Context, digest: str) -> str | None:
    """Return the newest batch that was made, to the last ticket, from these bytes."""
    batch_id = _claimed(ctx, digest)
    if batch_id is None or not (ctx.layout.accepted / f"{batch_id}.ack.json").exists():
        return None
    return batch_id if (ctx.layout.batch(batch_id) / batches.META).exists() else None


def _claimed(ctx: Context, digest: str) -> str | None:
    """Return the batch that these bytes make, whether or not it is whole."""
    document = atomic.read_json_or_none(ctx.layout.tables_by_sha / digest)
    return str(document["batch_id"]) if document else None


# --- what is waiting ----------------------------------------------------------------------------------


def _tables(ctx: Context) -> Iterator[Path]:
    listed = sorted(os.listdir(ctx.layout.incoming))
    for name in listed:
        path = ctx.layout.incoming / name
        errors: list[Exception] = []
        is_one = False
        with members.apart(path, errors.append):
            is_one = _is_table(ctx, path, listed)
        if is_one or errors:  # what cannot be looked at is told by whoever reads it
            yield path


def _is_table(ctx: Context, path: Path, listed: list[str]) -> bool:
    """Tell whether it is a whole table; anything else is removed, or stays for its owner."""
    name = path.name
    if path.suffix == COMPANION and name.removesuffix(COMPANION) not in listed:
        if _age_sec(path) > _ABANDONED_SEC:  # its submitter died before the table came
            path.unlink(missing_ok=True)
        return False
    if name[0] == "." or path.suffix == COMPANION or not stat.S_ISREG(path.stat().st_mode):
        return False
    if path.suffix in _TABLE_ENDINGS:
        return not _is_being_written(ctx, path)
    if _age_sec(path) > _SETTLING_SEC:
        _reject(ctx, path, [Problem(name, "", "is not a .json, .yaml or .yml file", "rename it")])
    return False


def _is_being_written(ctx: Context, path: Path) -> bool:
    """Tell whether some process has the file open for writing; where no leases are given, whether it is very young."""
    try:
        _take_lease(path)
    except BlockingIOError:
        if _gives_leases(ctx):
            return True
    except (OSError, AttributeError):
        pass
    else:
        return False
    return _age_sec(path) < _YOUNG_SEC


def _gives_leases(ctx: Context) -> bool:
    """Tell whether leases are given here at all: NFS refuses them all in the words that others have for a file that is being written."""
    probe = atomic.temp_path(ctx.layout.temp)
    try:
        probe.touch()
        _take_lease(probe)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


def _take_lease(path: Path) -> None:
    """Take a lease that only a file has which nobody may write to, and let go of it."""
    with path.open("rb") as stream:
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _still_growing(path: Path, data: bytes) -> bool:
    """Tell whether a table that does not parse may be the first part of one: it just stops, and is young."""
    if _age_sec(path) > _SETTLING_SEC:
        return False
    if path.suffix != ".json":
        return not data.strip()
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return False
    return False


def _age_sec(path: Path) -> float:
    try:
        return clocks.age(path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _companion(path: Path) -> Submission | None:
    """Tell what ``submit`` says of the table; None where it came otherwise.

    Raises:
        CorruptFile: it cannot be understood.
        UserError: it names a batch as no batch can be called.
    """
    companion = path.with_name(path.name + COMPANION)
    try:
        document = atomic.read_json_or_none(companion)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a name so long that none can lie beside it
            return None
        raise
    if document is None:
        return None
    submission = atomic.parse(Submission, document, companion)
    names.check_id(submission.batch_id, "batch id")
    return submission


def _base_dirs(ctx: Context, submission: Submission | None) -> list[Path]:
    found = [Path(folder) for folder in submission.base_dirs] if submission else []
    return [*found, ctx.layout.root]


def new_batch_id(layout: Layout) -> str:
    """Return the id of a batch that arrives now: after every batch that the store has, whatever the clock says.

    A redo finds the id under ``by_sha256``.
    """
    newest = layout.newest_batch()
    return names.new_batch_id(after="" if newest is None else layout.arrivals()[newest])


# --- what becomes of it -------------------------------------------------------------------------------


def _write_batch(
    ctx: Context, batch_id: str, path: Path, data: bytes, digest: str, submission: Submission | None, plan: Plan
) -> None:
    batch_dir = ctx.layout.batch(batch_id)
    if (batch_dir / batches.META).exists():
        requeue_batch(ctx, batch_id)
        _sync_everything()
        return
    batch_dir.mkdir(exist_ok=True)
    jobs = [job.model_copy(update={"batch_id": batch_id}) for job in plan.jobs]
    atomic.write_bytes(batch_dir / f"launch_table{path.suffix}", data)
    index.write(batch_dir, jobs)
    hashes = _write_jobs(ctx, batch_dir, jobs)
    said = submission or Submission(batch_id=batch_id, source_name=path.name, base_dirs=[])
    extra, left_out = similar_steps.again(ctx.layout, jobs, said.rerun_of) if said.rerun_of else ({}, [])
    by = said.by or ledger.person(path.stat().st_uid)
    meta = BatchMeta(
        batch_id=batch_id,
        created_at=now_text(),
        table_sha256=digest,
        source_name=said.source_name,
        base_dir=said.base_dirs[0] if said.base_dirs else "",
        base_dirs=tuple(said.base_dirs),
        rerun_of=said.rerun_of,
        job_ids=tuple(job.job_id for job in jobs),
        steps_total=sum(len(job.steps) for job in jobs),
        warnings=(*plan.warnings, *left_out),
        imported=plan.imported if said.imported else None,  # else its table runs here
        **{
            name: value
            for name, value in plan
            if name in BatchMeta.model_fields and name not in ("warnings", "imported")
        },
    )
    about = rooted.dumps(meta.model_dump(mode="json", exclude_none=True), ctx.layout.root)
    if plan.plan is not None:  # before all else: its hash may stand somewhere already
        planned = plan.plan.model_dump(mode="json")
        ledger.append(batch_dir, "planned", by=by, plan=planned, plan_sha256=plan.plan.sha256())
    ledger.append(
        batch_dir,
        "submitted",
        by=by,
        table_sha256=digest,
        jobs_sha256=hashlib.sha256(hashes).hexdigest(),
        meta_sha256=hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest(),
        batch_id=batch_id,
        jobs=len(jobs),
        steps=meta.steps_total,
        rerun_of=meta.rerun_of or None,
        trials=add_steps.trials(step for job in jobs for step in job.steps),
    )
    if extra:
        add_steps.add_at_ingest(batch_dir, extra, by)
        jobs = [batches.read_job(batch_dir / job.job_id) for job in jobs]
        index.write(batch_dir, jobs)
    carried = carry_over.take_over(ctx.layout, batch_id, jobs, said.rerun_of, said.carry)
    if said.imported:
        carry_over.take_in(ctx.layout, batch_id, jobs, by)
    if said.variables is not None:
        batches.write_control(ctx.layout, batch_id, Control(variables=said.variables))
        ledger.append(batch_dir, "bound", by=by, variables=sorted(said.variables))
    _sync_everything()
    atomic.write_text(batch_dir / batches.META, about)
    _queue(ctx, batch_id, jobs, carried=carried or said.imported)
    _sync_everything()


def _write_jobs(ctx: Context, batch_dir: Path, jobs: Sequence[JobSpec]) -> bytes:
    """Write each ``job.json``, and the file of their hashes; what that holds."""
    hashes = b""
    for job in jobs:
        (batch_dir / job.job_id).mkdir(exist_ok=True)
        written = rooted.dumps(_slim(job), ctx.layout.root)
        hashes += seal.job_line(job.job_id, written.encode("utf-8", "surrogateescape"))
        atomic.write_text(batch_dir / job.job_id / batches.JOB, written, durable=False)
    atomic.write_bytes(batch_dir / batches.JOB_HASHES, hashes)
    return hashes


def _queue(ctx: Context, batch_id: str, jobs: Sequence[JobSpec], *, carried: bool) -> None:
    """Make the first tickets of a batch; where ended attempts were taken over, by what these came to."""
    if carried:
        with decider.deciding(ctx.layout):
            requeue_batch(ctx, batch_id)
        return
    for job in jobs:
        for step in job.steps:
            if not step.depends_on and step.gate:
                notices.note_gate(ctx.layout, ctx.config.notify, batch_id, job.job_id, step.step_id)
            elif not step.depends_on:
                ticket, name = ticket_of(job, step)
                tickets.put_ready(ctx.layout, ticket, name, durable=False)


def _slim(job: BaseModel) -> dict[str, Any]:
    """Return ``job.json`` without what is at its default anyway: a batch may have 100,000 of them."""
    return job.model_dump(mode="json", exclude_defaults=True) | {"schema_version": 1}


def _sync_everything() -> None:
    if atomic.is_durable():
        os.sync()


def _accept(ctx: Context, path: Path, batch_id: str, *, duplicate: bool) -> None:
    # The companion goes first: the table without it is known by its bytes, it without the table would stay.
    if duplicate:
        _drop_companion(path)
        path.unlink(missing_ok=True)
    else:
        write_ack(ctx, batches.read_batch(ctx.layout.batch(batch_id)))
        _drop_companion(path)
        path.rename(ctx.layout.accepted / f"{batch_id}{path.suffix}")


def _reject(ctx: Context, path: Path, problems: list[Problem]) -> None:
    name, counter = _short(path), 1
    while members.is_there(ctx.layout.rejected / name):
        counter += 1
        name = f"{Path(_short(path)).stem}.{counter}{path.suffix}"
    atomic.write_json(
        ctx.layout.rejected / f"{name}.error.json",
        {
            "schema_version": 1,
            "rejected_at": now_text(),
            "source_name": path.name,
            "errors": [problem._asdict() | {"line": problem.line()} for problem in problems],
        },
    )
    with contextlib.suppress(PermissionError, FileNotFoundError):  # another user's table
        path.chmod(0o600)  # one reason for a rejection is a secret written out
    with contextlib.suppress(FileNotFoundError):
        path.rename(ctx.layout.rejected / name)
    _drop_companion(path)


def _short(path: Path) -> str:
    """Return the table's name, cut where nothing could be put behind it any more."""
    return path.name if len(os.fsencode(path.name)) <= _LONGEST else names.safe_id(path.stem) + path.suffix


def _drop_companion(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is not there, or its name would be too long to be
        path.with_name(path.name + COMPANION).unlink()


def new_submission(
    layout: Layout,
    source_name: str,
    base_dirs: list[Path],
    *,
    again: bool,
    rerun_of: str = "",
    carry: Mapping[str, str] = MappingProxyType({}),
    variables: dict[str, str] | None = None,
    imported: bool = False,
) -> Submission:
    """Return the companion of a table about to be submitted, with its batch id."""
    return Submission(
        batch_id=new_batch_id(layout),
        source_name=source_name,
        base_dirs=[str(folder) for folder in base_dirs],
        again=again,
        rerun_of=rerun_of,
        carry=dict(carry),
        imported=imported,
        variables=variables,
        by=ledger.speaker(),
    )
