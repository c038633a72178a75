"""The face for Python: open a store, run trials, wait, and get typed results or pandas frames.

    import parallelhassnes as ph
    store = ph.open_store("root", create=True)
    batch = store.run(["tasks/hello"], agents=["oracle", "nop"], n=2, environment="sandbox")
    batch.results(by=["agent"]).to_dict()
    ph.trials_df(batch)                             # frames.py

Everything here calls the functions that the command line and the HTTP server call, and holds nothing between two calls:
the files under ``runs/`` are the state. Attempts are started by a child process (``parallelhassnes tick``), never by a fork
of the caller, so a notebook or a program with threads is safe, and may end at any time: attempts go on without it.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from parallelhassnes.actions import submit as submission
from parallelhassnes.actions.analyze import analyze as start_analyses
from parallelhassnes.actions.cancel_retry import Only, Operated
from parallelhassnes.actions.cancel_retry import cancel as cancel_target
from parallelhassnes.actions.cancel_retry import retry as retry_target
from parallelhassnes.actions.imports.import_jobs import ImportResult
from parallelhassnes.actions.imports.import_jobs import import_jobs as import_harbor_jobs
from parallelhassnes.actions.run_until_idle import Ticked, until_idle
from parallelhassnes.admin.init import ensure, init
from parallelhassnes.errors import InvalidInput as InvalidTable
from parallelhassnes.errors import Problem, StoreBusy, UnknownId, UserError
from parallelhassnes.refs import Found, newest_attempt, resolve
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import DEFAULT_BY, Results
from parallelhassnes.results.aggregate import results as results_of
from parallelhassnes.results.analysis_list import Analysed, analyses
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.compare import Comparison
from parallelhassnes.results.compare import compare as compare_sides
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.store import identity
from parallelhassnes.store.atomic import advice, describe_damage, dumps
from parallelhassnes.store.layout import Layout, find_root
from parallelhassnes.tables.expanders.analyses import part_of
from parallelhassnes.tables.formats.request import RunRequest
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.run_report import run_reports
from parallelhassnes.views.scoreboard_models import BatchScoreboard

__all__ = [
    "Attempt",
    "Batch",
    "InvalidTable",
    "Store",
    "StoreBusy",
    "UnknownId",
    "UserError",
    "analyze",
    "compare",
    "open_store",
]

_PICKED = frozenset({"failed", "unscored", "lost"})


def open_store(root: str | os.PathLike[str] | None = None, *, create: bool = False) -> "Store":
    """Open the store of a root.

    Args:
        root: the folder with ``runs/``; None means the nearest one upwards of the current folder that has a
            ``parallelhassnes.toml``.
        create: make the folder, ``runs/`` and a commented ``parallelhassnes.toml`` where they are missing.

    Raises:
        UserError: there is no store and ``create`` is not set; or the configuration is invalid.
    """
    with _typed():
        folder = find_root(Path.cwd()) if root is None else Path(root).absolute()
    if create:
        with _typed():
            init(folder)
    elif not Layout(folder).system.is_dir():
        raise UserError(f"{folder}: has no store", fix="open it with create=True to make one")
    store = Store(folder)
    with opened(store) as ctx:
        ensure(ctx, look=True)
    return store


class Store:
    """One root: its queue and its batches. Open it with ``open_store``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        """The folder with ``runs/``, absolute."""

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def run(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        *,
        agents: str | Sequence[str] = (),
        models: str | Sequence[str] = (),
        n: int | None = None,
        environment: str | None = None,
        wait: bool = True,
        timeout: float | None = None,
        reuse: bool = False,
        **options: Any,
    ) -> "Batch":
        """Run tasks with agents, like ``parallelhassnes run``, and wait for the end.

        One text where several may be named is one of them: ``agents="oracle"``.

        Args:
            paths: task folders, or folders of tasks.
            agents: names that Harbor knows, or ``module:Class``; none means ``oracle``.
            models: each agent runs with each model; ``oracle`` and ``nop`` run once, without.
            n: trials per task and agent; None means 1.
            environment: ``docker``, ``sandbox`` or another that Harbor knows; None means the configured one.
            wait: False returns as soon as the batch is queued and a first tick has run.
            timeout: seconds to wait at most; None means no limit.
            reuse: take over trials that a batch of the store has scored by the same content, instead of running them.
            options: any other field of ``RunRequest``: ``dataset``, ``n_valid``, ``experiment``, ``priority``,
                ``concurrency``, ``limits``, ``secrets``, ``agent_env``, ``agent_kwargs``, ``timeout_multiplier``,
                ``max_attempts``, ``analyses``, ``task_names``, ``exclude_task_names``, ``n_tasks``, ``passing``.

        Raises:
            InvalidTable: a task, agent or option cannot be used; every problem is listed.
            TimeoutError: the batch goes on after ``timeout`` seconds; nothing is canceled.
        """
        request = _request(
            options,
            paths=tuple(map(os.fspath, several(paths))),
            agents=several(agents),
            models=several(models),
            n_trials=n,
            environment=environment,
        )
        with opened(self) as ctx:
            data = submission.table_of(ctx, request)
            folders = submission.base_dirs(None)
            done = submission.submit(ctx, data, name="run.json", folders=folders, again=True, here=True, reuse=reuse)
        batch = Batch(self, done.batch_id)
        if wait:
            return batch.wait(timeout)
        self.tick()
        return batch

    def submit(
        self, table: Mapping[str, Any] | str | os.PathLike[str], *, again: bool = False, reuse: bool = False
    ) -> "Batch":
        """Put a launch table into the queue; nothing starts before a tick, or ``Batch.wait``.

        Args:
            table: the table as a mapping, or the path of a JSON or YAML file.
            again: make a new batch even where the same table made one before.
            reuse: as in ``run``.

        Raises:
            InvalidTable: the table is wrong; every problem is listed with its place.
        """
        with opened(self) as ctx:
            if isinstance(table, Mapping):
                data, name, folders = _bytes(table), "table.json", submission.base_dirs(None)
            else:
                path = Path(table)
                data, name = submission.read_table(path), str(path)
                folders = submission.base_dirs(path)
            done = submission.submit(ctx, data, name=name, folders=folders, again=again, reuse=reuse)
        return Batch(self, done.batch_id)

    def import_jobs(self, *paths: str | os.PathLike[str], dry_run: bool = False) -> ImportResult:
        """Bring Harbor job folders, or the jobs in such folders, in as batches; what was imported before is not imported again.

        Raises:
            UserError: this host may not work on the store. What is wrong with a folder is in ``problems``.
        """
        with opened(self) as ctx:
            done = import_harbor_jobs(ctx, [Path(path) for path in paths], dry_run=dry_run)
        if not dry_run:
            self.tick()
        return done

    def tick(self, *, concurrency: int | None = None, limits: Mapping[str, int] | None = None) -> Ticked:
        """Ingest what waits, repair what died, start what may start; waits for no attempt.

        Args:
            concurrency: live attempts on this host at most; None means as configured.
            limits: queue key → live attempts at most.

        Raises:
            UserError: the configuration is invalid, or another process holds the store for too long.
        """
        more = [] if concurrency is None else ["--concurrency", str(concurrency)]
        for key, number in (limits or {}).items():
            more += ["--limit", f"{key}={number}"]
        command = [sys.executable, "-P", "-m", "parallelhassnes", "tick", "--json", "--root", str(self.root), *more]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, process_group=0, check=False
        )
        said = json.loads(done.stdout or "{}")
        if "launched" not in said:
            raise UserError(said.get("error") or f"the tick ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return Ticked(**{name: said[name] for name in Ticked.model_fields})

    def batch(self, batch_id: str = "latest") -> "Batch":
        """Return a batch by its id, an unambiguous beginning of it, or ``latest``.

        Raises:
            UnknownId: there is no such batch.
        """
        with opened(self) as ctx:
            return Batch(self, resolve(ctx.layout, batch_id).batch_id)

    def batches(self, experiment: str | None = None) -> list["Batch"]:
        """Return the batches that can be read, oldest first; those of one experiment where it is named.

        Raises:
            UnknownId: no batch belongs to the experiment.
        """
        with opened(self) as ctx:
            chosen = collect.choose(ctx.layout, experiment=experiment)
        return [Batch(self, batch_id) for batch_id in chosen.batch_ids]

    def attempt(self, attempt_id: str = "latest") -> "Attempt":
        """Return an attempt by its id; of a batch, job or step the newest one.

        Raises:
            UnknownId: there is none.
        """
        with opened(self) as ctx:
            return Attempt(self, str(newest_attempt(ctx.layout, attempt_id)))


class Batch:
    """One accepted launch table: jobs, steps and their attempts."""

    def __init__(self, store: Store, batch_id: str) -> None:
        self.store, self.id = store, batch_id

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    @contextmanager
    def _opened(self) -> Iterator[Context]:
        """As of the store.

        Raises:
            UnknownId: the batch was deleted.
        """
        with opened(self.store) as ctx:
            resolve(ctx.layout, self.id)
            yield ctx

    def wait(self, timeout: float | None = None) -> "Batch":
        """Tick until nothing of the batch runs and nothing of it can start; returns the batch itself.

        Args:
            timeout: seconds; None means no limit.

        Raises:
            TimeoutError: time is over; attempts go on, and ``wait`` may be called again.
            UserError: no pass over the store succeeds.
        """
        until = None if timeout is None else time.monotonic() + timeout

        def look() -> None:
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"batch {self.id} goes on after {timeout:g} s; wait again, or cancel it")

        with self._opened() as ctx:
            until_idle(ctx, [self.id], look, make_tick=self.store.tick)
        return self

    def status(self) -> BatchScoreboard:
        """Tell how the batch stands: counts by state, the matrix of results, what runs, what waits and why."""
        with self._opened() as ctx:
            return batch_scoreboard(ctx.layout, self.id)

    def results(self, by: str | Sequence[str] = DEFAULT_BY) -> Results:
        """Pass rates with intervals, mean rewards, money and time per group.

        Args:
            by: ``agent``, ``model``, ``task``, ``job``, ``reward``, ``label:NAME`` and others of ``results --by``.

        Raises:
            UserError: a dimension is not known.
        """
        with self._opened() as ctx:
            return results_of(ctx.layout, choice([self]), several(by))

    def retry(self, only: str | Iterable[str] | None = None, reason: str = "") -> Operated:
        """Have ended steps attempted again, at once; what came of it, with empty lists where nothing was to retry.

        Args:
            only: ``failed``, ``unscored``, ``lost`` or failure classes; None means every ended step.
            reason: kept in the ledger.

        Raises:
            UserError: there is no such failure class.
        """
        words = [only] if isinstance(only, str) else list(only or ())
        picked = {word: True for word in words if word in _PICKED}
        classes = frozenset(word for word in words if word not in _PICKED)
        with self._opened() as ctx:
            done = retry_target(ctx, Found(batch_id=self.id), Only(classes=classes, **picked), reason)
        done.started = len(self.store.tick().launched)
        return done

    def cancel(self, reason: str = "") -> Operated:
        """End what runs and start nothing more; ended attempts stay as they are.

        Args:
            reason: kept in the ledger.
        """
        with self._opened() as ctx:
            return cancel_target(ctx, Found(batch_id=self.id), reason)


class Attempt:
    """One attempt of a step."""

    def __init__(self, store: Store, attempt_id: str) -> None:
        self.store, self.id = store, attempt_id

    def __repr__(self) -> str:
        return f"Attempt({self.id!r})"

    @property
    def folder(self) -> Path:
        """The attempt's folder under ``runs/``."""
        with opened(self.store) as ctx:
            return resolve(ctx.layout, self.id).folder(ctx.layout)

    @property
    def state(self) -> dict[str, Any]:
        """``state.json``: status, times, failure."""
        with opened(self.store) as ctx:
            return run_reports(ctx.layout, self.id)[0].state

    @property
    def report(self) -> dict[str, Any] | None:
        """``final.json``: what the attempt came to; None while it runs."""
        with opened(self.store) as ctx:
            return run_reports(ctx.layout, self.id)[0].report


def compare(a: Batch, b: Batch) -> Comparison:
    """Compare two batches of one store task by task, with what makes the two sides unequal.

    Raises:
        UserError: the batches are of different stores.
    """
    store = store_of([a, b])
    with opened(store) as ctx:
        return compare_sides(ctx.layout, a.id, b.id)


def analyze(
    batch: Batch, engine: str = "rules", model: str | None = None, *, failed: bool = False, wait: bool = True
) -> Analysed:
    """Have the trials of a batch analysed, and return what the analyses say.

    Args:
        engine: ``rules``, ``codex``, ``claude``, ``api`` or ``harbor``.
        model: the engine's model; ``rules`` takes none.
        failed: only trials that have ended and did not pass.
        wait: False returns what is known at once.

    Raises:
        UserError: there is no such engine, or it lacks something.
    """
    part = part_of(engine, model)
    with opened(batch.store) as ctx:
        start_analyses(ctx, batch.id, [part], failed=failed)
    if wait:
        batch.wait()
    with opened(batch.store) as ctx:
        return analyses(ctx.layout, batch.id)


def store_of(batches: Sequence[Batch]) -> Store:
    """Return the one store that batches belong to.

    Raises:
        UserError: there are several, or no batch is named.
    """
    roots = {batch.store.root for batch in batches}
    if len(roots) != 1:
        fix = "take batches of one store" if roots else "name at least one batch"
        raise UserError(f"{len(roots)} stores are meant", fix=fix)
    return batches[0].store


def choice(batches: Sequence[Batch]) -> Choice:
    """Return the choice of these batches, for ``results.collect``."""
    return Choice(tuple(batch.id for batch in batches), f"batch {', '.join(batch.id for batch in batches)}")


def _request(options: Mapping[str, Any], **given: Any) -> RunRequest:
    known = RunRequest.__dataclass_fields__
    for name, value in options.items():
        if name not in known or name in given:
            raise UserError(f"run() has no option {name}", fix=f"options are {', '.join(known)}")
        if isinstance(known[name].default_factory, type) and not isinstance(value, Mapping):
            raise UserError(f"run(): {name} is no mapping", fix=f"write {name}={{NAME: VALUE}}")
    said: dict[str, Any] = {
        name: several(value) if known[name].default == () else value for name, value in options.items()
    }
    return RunRequest(**given, **said)


def several(value: Any) -> tuple[Any, ...]:
    """Tell what was named: one text or path is one name, not its letters."""
    return (value,) if isinstance(value, str | os.PathLike) else tuple(value)


def _bytes(table: Mapping[str, Any]) -> bytes:
    try:
        return dumps(dict(table)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        problem = Problem("table.json", "", f"is not JSON ({error})", "give texts, numbers, lists and dicts alone")
        raise InvalidTable([problem]) from None


@contextmanager
def _typed() -> Iterator[None]:
    """Have what the system refuses raised as ``UserError``."""
    try:
        yield
    except TimeoutError:  # ours
        raise
    except OSError as error:
        if error.filename is None and isinstance(error, FileNotFoundError):
            raise UserError(f"the current folder: {error.strerror}", fix="chdir to one that is there") from error
        raise UserError(describe_damage(error), fix=advice(error)) from error


class _CallersMask:
    """The caller's file mode creation mask, which is the whole process's, while any thread is at work in here."""

    lock = threading.Lock()
    inside = 0
    callers = 0


@contextmanager
def opened(store: Store) -> Iterator[Context]:
    """Give the store as configured now, for a process that starts no attempt itself.

    The caller's file mode creation mask, which private stores narrow, is put back by the last thread that leaves.
    """
    with _CallersMask.lock:
        if not _CallersMask.inside:
            _CallersMask.callers = os.umask(0o077)  # a look that never opens what other threads make
            os.umask(_CallersMask.callers)
        _CallersMask.inside += 1
    try:
        with _typed():
            with _CallersMask.lock:
                ctx = replace(open_context(store.root), starts_attempts=False)
            identity.check(ctx.layout)
            yield ctx
    finally:
        with _CallersMask.lock:
            _CallersMask.inside -= 1
            if not _CallersMask.inside:
                os.umask(_CallersMask.callers)
