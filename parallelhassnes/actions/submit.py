"""``validate`` and ``submit``: from a table's bytes to a batch in the queue.

A submission is handed over by rename into ``incoming/``; from then on it survives everything. The batch is
made at once, so that it can be looked at; should we die before that, the next tick makes it.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel

from parallelhassnes.actions import outline, preflight
from parallelhassnes.admin.doctor import docker_trouble
from parallelhassnes.errors import UserError
from parallelhassnes.plan import Plan, is_sandbox
from parallelhassnes.sandbox.image import dockerfile
from parallelhassnes.schedule import ingest
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining import check_host
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.rules import plan_fits
from parallelhassnes.store import atomic, batches, decider, locks
from parallelhassnes.tables.expand import expand
from parallelhassnes.tables.formats.request import RunRequest, table_for
from parallelhassnes.views.scoreboard_models import View

_INGEST_SEC = 60.0
"""Far longer than the host that decides takes to take in a table."""


class Submitted(View):
    """The answer to a submission."""

    ok: bool = True
    batch_id: str
    duplicate: bool = False
    """The same bytes were submitted before; this is the batch that they made then."""
    table_format: str
    jobs: int
    steps: int
    experiment: str = ""
    plan_sha256: str | None = None
    """Of the table's ``plan``; line 0 of the ledger has both."""
    warnings: list[str] = []
    reused: str = ""
    """How many trials are taken over from other batches, and from which; empty where that was not asked for."""


class Validated(BaseModel):
    """What a table would run."""

    ok: bool = True
    table_format: str
    outline: str = ""
    """What it amounts to, in a line: ``72 trials = 9 tasks × 4 agents × 2; keys needed: …; at most 8 at once``."""
    jobs: int
    steps: int
    kinds: dict[str, int]
    """Kind of step → how many."""
    queue_keys: dict[str, int]
    """Queue key → how many steps count towards its limit."""
    secrets: list[str]
    plan_sha256: str | None = None
    """Of the table's ``plan``, to be published before anything runs."""
    warnings: list[str]


def read_table(path: Path) -> bytes:
    """Return the bytes of a table.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except IsADirectoryError:
        fix = f"run its tasks with `parallelhassnes run {path}`, or name a file"
        raise UserError(f"{path}: is a folder, not a table", fix=fix) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix="name a table file") from None


def table_of(ctx: Context, request: RunRequest) -> bytes:
    """Return the table that a request amounts to, with the configured environment in it: the same table runs the same elsewhere.

    Raises:
        UserError: no task is named.
    """
    document = table_for(request)
    environment = document["sweep"].setdefault("environment", ctx.config.environment)
    if isinstance(environment, dict):
        environment.setdefault("type", ctx.config.environment)
    return atomic.dumps(document).encode()


def base_dirs(table: Path | None) -> list[Path]:
    """Tell where a table's relative paths are looked for: the current directory, then the table's own folder."""
    found = [Path.cwd()]
    if table is not None and table.absolute().parent not in found:
        found.append(table.absolute().parent)
    return found


def plan_table(ctx: Context, data: bytes, *, name: str, folders: list[Path], here: bool = False) -> Plan:
    """Expand a table; InvalidInput lists everything that is wrong with it.

    Args:
        here: it is to run on this host at once.
    """
    plan = expand(data, name=name, base_dirs=[*folders, ctx.layout.root], defaults=ingest.defaults(ctx))
    plan_fits.check(ctx, plan, name)
    plan.warnings = (*plan.warnings, *sandbox_refusals(plan), *preflight.check(ctx, plan, name, here=here))
    return plan


def validate(ctx: Context, data: bytes, *, name: str, folders: list[Path]) -> Validated:
    """Check a table and say what it would run, without leaving anything behind."""
    plan = plan_table(ctx, data, name=name, folders=folders)
    kinds: dict[str, int] = {}
    keys: dict[str, int] = {}
    for job in plan.jobs:
        for step in job.steps:
            kinds[step.kind] = kinds.get(step.kind, 0) + 1
            keys[step.queue_key] = keys.get(step.queue_key, 0) + 1
    return Validated(
        table_format=plan.table_format,
        outline=outline.of(ctx, plan),
        jobs=len(plan.jobs),
        steps=sum(kinds.values()),
        kinds=kinds,
        queue_keys=dict(sorted(keys.items())),
        secrets=list(plan.secrets),
        warnings=list(plan.warnings),
        plan_sha256=plan.plan.sha256() if plan.plan else None,
    )


def check_environments(plan: Plan) -> None:
    """Refuse a plan whose trials this host cannot run for lack of Docker.

    Raises:
        UserError: with what is missing and the alternative.
    """
    needs_docker = any(
        step.kind == "trial" and _is_docker(step.spec.get("config", {}).get("environment", {}))
        for job in plan.jobs
        for step in job.steps
    )
    trouble = docker_trouble() if needs_docker else None
    if trouble is not None:
        raise UserError(f"these trials run in Docker: {trouble}", fix="or run them without it: -e sandbox")


def sandbox_refusals(plan: Plan) -> list[str]:
    """Return one line per task that the sandbox will refuse to build, each task once."""
    lines: dict[str, str] = {}
    for job in plan.jobs:
        for step in job.steps:
            config = step.spec.get("config", {}) if step.kind == "trial" else {}
            environment, path = config.get("environment", {}), config.get("task", {}).get("path")
            if not is_sandbox(environment.get("import_path")) or not path or path in lines:
                continue
            if environment.get("kwargs", {}).get("unsupported") != "skip":
                found = dockerfile.check(Path(path) / "environment")
                lines[path] = f"{path}: {found[0].line_of()}; {dockerfile.WAY_OUT}" if found else ""
    return [line for line in lines.values() if line]


def _is_docker(environment: dict[str, object]) -> bool:
    return not environment.get("import_path") and environment.get("type") in (None, "docker")


def known(ctx: Context, data: bytes) -> str | None:
    """Return the batch that these bytes have made already; None where there is none."""
    return ingest.known_batch(ctx, hashlib.sha256(data).hexdigest())


def submit(
    ctx: Context,
    data: bytes,
    *,
    name: str,
    folders: list[Path],
    again: bool = False,
    here: bool = False,
    rerun_of: str = "",
    carry: Mapping[str, str] = MappingProxyType({}),
    reuse: bool = False,
    told: Callable[[str], None] = lambda _: None,
    found_good: Callable[[], None] = lambda: None,
) -> Submitted:
    """Validate a table and put it into the queue.

    Args:
        data: the table, JSON or YAML.
        name: its file name; the ending tells the format, and messages name it.
        folders: where relative paths are looked for, before the root.
        again: make a new batch even if these bytes made one before.
        here: it is to run on this host at once, so refuse what this host cannot run; its attempts get what this process's
            environment holds (``schedule.limits.credentials``).
        rerun_of: the batch that it runs again.
        carry: ``job_id/step_id`` → the attempt of that batch which is taken over instead of being made anew.
        reuse: take over attempts of any batch that the store has scored by the same content (``actions.reuse``).
        told: is given the line of what the table amounts to, before anything of it is queued.
        found_good: is called before anything is written.
    """
    check_host.check(ctx)
    made = None if again else known(ctx, data)
    if made is not None:
        return _describe(ctx, made, duplicate=True)
    plan = plan_table(ctx, data, name=name, folders=folders, here=here)
    variables = None
    if here:
        check_environments(plan)
    told(outline.of(ctx, plan))
    taken = ""
    if reuse:
        from parallelhassnes.actions import reuse as stored

        carry = {**stored.find(ctx, plan), **carry}
        taken = stored.said(carry, plan)
        told(taken)
    found_good()
    if here:
        steps = (step for job in plan.jobs for step in job.steps)
        variables = credentials.of_environment(ctx, steps, plan.secrets)
    submission = ingest.new_submission(
        ctx.layout, name, folders, again=again, rerun_of=rerun_of, carry=carry, variables=variables
    )
    return put_in(ctx, submission, data, name, plan).model_copy(update={"reused": taken})


def put_in(ctx: Context, submission: ingest.Submission, data: bytes, name: str, plan: Plan) -> Submitted:
    """Put a table with its companion where ingest finds it, and have it ingested; ``plan`` was made from the same bytes."""
    ending = Path(name).suffix.lower()
    path = ctx.layout.incoming / f"{submission.batch_id}{ending if ending in ('.yaml', '.yml') else '.json'}"
    atomic.write_json(path.with_name(path.name + ingest.COMPANION), submission.model_dump(mode="json"))
    atomic.write_bytes(path, data)
    done = None
    with decider.deciding_if_free(ctx.layout) as is_ours:
        if is_ours:
            with locks.held(ctx.layout.ingest_lock):
                done = ingest.ingest_file(ctx, path, plan)
    if not is_ours:
        _wait_for_ingest(ctx, path)
    if done is None or done.batch_id is None:  # a tick was faster
        own = submission.batch_id
        if not (ctx.layout.batch(own) / batches.META).exists():
            digest = hashlib.sha256(data).hexdigest()
            return _describe(ctx, ingest.known_batch(ctx, digest) or own, duplicate=True)
        return _describe(ctx, own, duplicate=False)
    return _describe(ctx, done.batch_id, duplicate=done.duplicate)


def _wait_for_ingest(ctx: Context, path: Path) -> None:
    """Wait until the host that decides has taken in a table."""
    deadline = time.monotonic() + _INGEST_SEC
    while path.exists():
        if time.monotonic() > deadline:
            found = decider.right(ctx.layout)
            raise UserError(
                f"{found.runner if found else 'the host'} that decides on this root has not taken in the table for "
                f"{_INGEST_SEC:g} s; it stays in {path}",
                fix="run `parallelhassnes tick` there, or on another host that has joined",
            )
        time.sleep(0.05)


def _describe(ctx: Context, batch_id: str, *, duplicate: bool) -> Submitted:
    meta = batches.read_batch(ctx.layout.batch(batch_id))
    return Submitted(
        batch_id=batch_id,
        duplicate=duplicate,
        table_format=meta.table_format,
        jobs=len(meta.job_ids),
        steps=meta.steps_total,
        experiment=meta.experiment,
        warnings=list(meta.warnings),
        plan_sha256=meta.plan.sha256() if meta.plan else None,
    )
