"""The life of the process that owns one attempt: run it (or end a dead one), free its slot, run a pass.

    … seal.json ─▶ running/<ticket> → ended/<ticket> ─▶ step.lock let go ─▶ settle and the next launches

A crash after the seal leaves a running ticket whose step is sealed and free: repair only moves it on. A crash after the move
leaves an ended ticket, which any pass settles.
"""

import contextlib
import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from parallelhassnes.config import PASSED_IF_SET, Bounds, RetryConfig
from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher, logs, own_files, processes
from parallelhassnes.execute.finish import finish
from parallelhassnes.execute.secret_forms import is_public, looks_secret, url_password
from parallelhassnes.execute.set_apart import set_apart
from parallelhassnes.execute.supervisor import Timing, supervise
from parallelhassnes.names import begun, run_id_of
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule import configuration, ephemeral_secrets, health
from parallelhassnes.schedule.context import ENTRY_POINTS, Context, Options
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.steps.registry import kind as kind_of
from parallelhassnes.steps.step_types import Kind, StepAttempt, WorkerEnd
from parallelhassnes.store import atomic, attempts, batches, locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.store.records import AttemptMeta, AttemptState, Credential, dump, now_text
from parallelhassnes.version import __version__

type Then = Callable[[Context], None]


class Assignment(BaseModel):
    """What such a process is told; it crosses the border of processes, and of hosts, which may be of other versions."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    root: str
    batch_id: str
    job_id: str
    step_id: str
    attempt: str
    key_dir: str
    ticket: str
    dead: bool = False
    """The attempt's processes are gone: end it instead of running it."""
    fenced: bool = False
    """They may live on a host that is silent: what is sealed is a copy, which they cannot reach."""
    spared: bool = False
    """It uses no attempt of its step: it had not begun, or the cluster has taken its node away."""
    out_of_time: bool = False
    """The cluster's job that it was in was out of time."""
    options: Options = Options()

    def attempt_dir(self, layout: Layout) -> Path:
        return layout.attempt(self.batch_id, self.job_id, self.step_id, self.attempt)


def run(
    ctx: Context, assignment: Assignment, lock: int, then: Then, is_out_of_time: Callable[[], bool] = lambda: False
) -> None:
    """Own the attempt; this process holds ``step.lock`` and nothing else that matters.

    Args:
        is_out_of_time: of a job of a cluster that is told to end: whether that is because its time is up.
    """
    ledger.acting_as("supervisor")
    ephemeral_secrets.keep_only(batches.read_batch(ctx.layout.batch(assignment.batch_id)).secrets)
    name = f"{assignment.batch_id}/{assignment.job_id}/{assignment.step_id} in {assignment.root}"
    processes.set_title(f"supervisor of {name}")
    if assignment.fenced:
        assignment = assignment.model_copy(update={"attempt": set_apart(assignment.attempt_dir(ctx.layout))})
    directory = assignment.attempt_dir(ctx.layout)
    if assignment.dead and attempts.is_sealed(directory):  # by another one, who was asked too
        _leave_it(ctx, assignment, lock, then, "ended by another host")
        return
    job_dir = ctx.layout.job(assignment.batch_id, assignment.job_id)
    step = batches.read_job(job_dir).step(assignment.step_id)
    meta = _meta(ctx, assignment, step)
    attempt = StepAttempt(
        dir=directory,
        job_dir=job_dir,
        batch_id=assignment.batch_id,
        job_id=assignment.job_id,
        run_id=meta.run_id,
        number=meta.number,
        step=step,
        stand_in=meta.stand_in,
    )
    kind = kind_of(step.kind)
    retry = partial(_retry_now, ctx)
    if assignment.dead:
        state, secrets = attempts.read_state(directory), secrets_of(ctx, attempt)
        end_dead(
            attempt,
            kind,
            state.model_copy(update={"shut_down": True}) if assignment.spared else state,
            secrets,
            ctx.config.max_log_mb << 20,
            ctx.config.bounds,
            retry,
            lacking(meta, secrets),
            out_of_time=assignment.out_of_time,
        )
    else:
        timing = Timing(
            ctx.config.heartbeat_sec,
            ctx.config.grace_sec,
            ctx.config.stuck_after_sec,
            ctx.config.on_stuck == "retry",
            ctx.config.max_log_mb << 20,
            ctx.config.bounds,
        )
        if ctx.layout.runner:
            is_fenced = partial(attempts.is_fenced, directory.parents[1], meta.run_id)
            timing = timing._replace(is_fenced=is_fenced, is_out_of_time=is_out_of_time)
        try:
            given = credentials.given(ctx, attempt.batch_id)
            secrets = secrets_of(ctx, attempt, given.values)
            supervise(attempt, kind, environment(given, attempt), lock, timing, secrets, retry)
        except attempts.Fenced:
            _leave_it(ctx, assignment, lock, then)
            return
    logs.go_on_in(health.log_of(ctx.layout))
    if ctx.layout.runner and _is_taken_over(directory, meta.run_id, assignment):
        _leave_it(ctx, assignment, lock, then)
        return
    if not ctx.layout.runner:
        locks.queue_up(
            ctx.layout.tick_waiting
        )  # before anybody sees the end: a pass that finds it can leave the next start to us
    # Under the lock: were this process to stand still in between, others would end the ticket, start the step's next attempt,
    # whose ticket has the same name, and lose that one to this process when it goes on.
    tickets.end_running(ctx.layout, assignment.key_dir, assignment.ticket)
    if ctx.layout.runner:
        for name in {meta.runner_id, ctx.layout.runner}:
            handed.let_go(ctx.layout, name, assignment.ticket)
    os.close(lock)
    then(ctx)


def _is_taken_over(directory: Path, run_id: str, assignment: Assignment) -> bool:
    """Tell whether another host has given the attempt up, or has ended it and started the next, whose ticket has the same name."""
    newest = attempts.newest(directory.parents[1])
    if newest is None or newest.name != directory.name:
        return True
    return not assignment.dead and attempts.wait_until_told(partial(attempts.is_fenced, directory.parents[1], run_id))


def _leave_it(
    ctx: Context, assignment: Assignment, lock: int, then: Then, why: str = "given up by the host that decides"
) -> None:
    """End as the process of an attempt that another host has given up, or ended: the ticket is not ours any more."""
    logs.go_on_in(health.log_of(ctx.layout))
    logs.say(f"{assignment.batch_id}/{assignment.job_id}/{assignment.step_id}: {why}")
    handed.let_go(ctx.layout, ctx.layout.runner, assignment.ticket)
    os.close(lock)
    then(ctx)


def lacking(meta: AttemptMeta, known: Mapping[str, str]) -> dict[str, str]:
    """Of the secrets that an attempt was given, those that this process has no value of: name → why it looks for none."""
    given = meta.credential.variables if meta.credential is not None else ()
    return {name: f"its value is not known on {platform.node()}" for name in given if name not in known}


def _retry_now(ctx: Context) -> RetryConfig:
    """Tell what the configuration says of retries now; what it said at the start where that cannot be told."""
    try:
        return configuration.in_force(ctx.layout).config.retry
    except UserError:
        return ctx.config.retry


def _meta(ctx: Context, assignment: Assignment, step: StepSpec) -> AttemptMeta:
    """Return the attempt's ``meta.json``; made anew, as far as it can be, where a dead worker has spoilt it."""
    directory = assignment.attempt_dir(ctx.layout)
    try:
        return attempts.read_meta(directory)
    except (atomic.CorruptFile, FileNotFoundError) as error:
        logs.say(f"{atomic.describe_damage(error)}; made anew from what else is known")
    number = attempts.names(directory.parents[1]).index(assignment.attempt) + 1
    meta = AttemptMeta(
        run_id=run_id_of(assignment.attempt),
        batch_id=assignment.batch_id,
        job_id=assignment.job_id,
        step_id=step.step_id,
        kind=step.kind,
        queue_key=step.queue_key,
        number=number,
        created_at=now_text(begun(assignment.attempt)),
        runner_id=ctx.runner_id,
        host=platform.node(),
        harness_version=__version__,
        config_sha256=ctx.config.sha256(),
        ticket=assignment.ticket,
        stand_in=step.kind == "agent" and assignment.options.no_codex,
        credential=_credential(ctx, assignment, step),
    )
    own_files.take_back(directory)
    attempts.put_back_meta(directory, atomic.dumps(dump(meta)).encode())
    return meta


def _credential(ctx: Context, assignment: Assignment, step: StepSpec) -> Credential | None:
    with contextlib.suppress(BadEnvFile):  # the env_file cannot be read
        return credentials.of_step(ctx, credentials.given(ctx, assignment.batch_id), step)
    return None


def end_dead(
    attempt: StepAttempt,
    kind: Kind,
    state: AttemptState,
    secrets: Mapping[str, str],
    log_ceiling: int,
    bounds: Bounds,
    retry: Callable[[], RetryConfig] = RetryConfig,
    lacking: Mapping[str, str] = MappingProxyType({}),
    *,
    out_of_time: bool = False,
) -> None:
    """Kill what a dead supervisor left, take what its worker had finished, seal."""
    if state.worker_pid and state.worker_lives():
        processes.kill_group(state.worker_pid)
    processes.kill_run(attempt.run_id)
    canceled = attempts.is_asked_to_end(attempt.dir, attempt.run_id)
    end = WorkerEnd(None, "canceled" if canceled else "job_time_limit" if out_of_time else "lost")
    finish(attempt, kind, end, state, secrets, log_ceiling, bounds, retry=retry, lacking=lacking)


def environment(given: credentials.Given, attempt: StepAttempt) -> dict[str, str]:
    """Return the worker's whole environment: the common variables, the named secrets, the step's own, ours."""
    known, names = given.values, (*PASSED_IF_SET, *given.named)
    return {
        **{name: known[name] for name in names if name in known},
        **{name: credentials.resolve(value, known) for name, value in attempt.step.env.items()},
        "TMPDIR": str(attempt.dir / "tmp"),
        processes.RUN_ID_VARIABLE: attempt.run_id,
        "PARALLELHASSNES_BATCH_ID": attempt.batch_id,
        "PARALLELHASSNES_JOB_ID": attempt.job_id,
        "PARALLELHASSNES_STEP_ID": attempt.step.step_id,
        "PARALLELHASSNES_ATTEMPT_DIR": str(attempt.dir),
    }


def secrets_of(ctx: Context, attempt: StepAttempt, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name → value of what the attempt was given and must not be readable in its files.

    The named secrets, whatever the step's environment takes from elsewhere or calls a key, and passwords of proxies.
    An ``env_file`` that is gone leaves those of the process itself: a dead attempt must still be ended. What is not at hand
    as the batch has it is looked for as this process has it.

    Args:
        given: the values that its batch is given, where they are known.
    """
    try:
        known = {**os.environ, **(credentials.given(ctx, attempt.batch_id).values if given is None else given)}
    except BadEnvFile as error:
        known = dict(os.environ)
        logs.say(f"{error}: its values are not looked for in this attempt's files")
    named = (*ctx.config.secrets, *batches.read_batch(ctx.layout.batch(attempt.batch_id)).secrets)
    values = {name: known[name] for name in named if name in known}
    for name, text in attempt.step.env.items():
        if "${" in text or looks_secret(name):
            values.setdefault(name, credentials.resolve(text, known))
    passed = {name: known[name] for name in PASSED_IF_SET if name in known}
    public = passed | {name: value for name, value in values.items() if is_public(name)}
    secret = {name: value for name, value in values.items() if name not in public}
    passwords = {name: found for name, value in public.items() if (found := url_password(value))}
    return secret | passwords


def spawn(assignment: Assignment, lock: int, log: Path) -> None:
    """Start the process as a fresh interpreter that inherits the locked descriptor."""
    launcher.start_module(
        ENTRY_POINTS,
        "supervisor",
        assignment.model_dump_json(),
        str(lock),
        log=log,
        cwd=Path(assignment.root),
        keep=(lock,),
    )
