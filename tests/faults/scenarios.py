"""What is done to a store while something is killed: tables, the acts of a user, and how each step must end."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import stores
from harness import make_task

from parallelhassnes import packed
from parallelhassnes.actions import cancel_retry, packs
from parallelhassnes.actions.archive import pull_batch
from parallelhassnes.actions.archive.push_batch import push
from parallelhassnes.actions.imports.import_jobs import import_jobs
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.actions.stored.regrade import regrade
from parallelhassnes.actions.stored.remove_local import push_and_remove
from parallelhassnes.actions.submit import submit
from parallelhassnes.config import RetentionConfig, RetentionRule
from parallelhassnes.refs import Found
from parallelhassnes.results import collect
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import currents
from parallelhassnes.store.archives.object_store import ObjectStore, open_store
from parallelhassnes.store.evidence import ledger, removals

OK = {"succeeded"}
OR_FAILED = {"succeeded", "failed", "-"}


class Act(NamedTuple):
    """Something that a user does in a process of its own; done again where that was killed, as a user would."""

    role: str
    do: Callable[[Context], object]
    wait: Callable[[Context], bool] = lambda _: True
    """What to wait for before."""


class Scenario(NamedTuple):
    """One story."""

    name: str
    acts: tuple[Act, ...]
    ends: dict[str, set[str]]
    """``job/step`` → what its last attempt may come to."""
    worker_ends: dict[str, set[str]]
    """The same where a worker was killed: a program killed by a signal has failed by itself."""
    tables: int = 1
    """How many batches there are at the end."""
    broken: Callable[[Context], list[str]] = lambda _: []
    """What else is wrong at the end."""
    whole: int = currents.WHOLE
    """Bytes up to which ``current.json`` is replaced at each change; beyond, its journal gets a line."""


def _submit(table: Callable[[Context], bytes]) -> Act:
    def do(ctx: Context) -> None:
        stores.submit(ctx, table(ctx), name="table.json", folders=[stores.CHECKOUT])

    return Act("submit", do)


def _steps_table(ctx: Context) -> bytes:
    once = ctx.layout.root / "once"
    # The first attempt kills its own supervisor, so that repair, retry and delay are in the story.
    dies_once = f"test -e {once} || {{ touch {once}; kill -9 $PPID; sleep 60; }}"
    return stores.table(
        stores.job(
            "a",
            stores.command("first", "true"),
            stores.command("second", "true", depends_on=["first"]),
            stores.shell("bad", "exit 3"),
            stores.command("never", "true", depends_on=["bad"]),
        ),
        stores.job(
            "b", stores.shell("flaky", dies_once), stores.command("last", "true", depends_on=["a/second", "flaky"])
        ),
        retry={"max_attempts": 5, "backoff_sec": 0.02},
    )


STEPS = Scenario(
    "steps",
    (_submit(_steps_table),),
    {"a/first": OK, "a/second": OK, "a/bad": {"failed"}, "a/never": {"-"}, "b/flaky": OK, "b/last": OK},
    {
        "a/first": OR_FAILED,
        "a/second": OR_FAILED,
        "a/bad": {"failed"},
        "a/never": {"-"},
        "b/flaky": OR_FAILED,
        "b/last": OR_FAILED,
    },
)


def _one_trial(ctx: Context, label: str, environment: object, **more: object) -> bytes:
    task = ctx.layout.root.parent / "task"
    if not task.exists():
        made = make_task(ctx.layout.root.parent / f".task-{os.getpid()}", "task")
        made.rename(task)
    trial = {"step_id": "trial", "kind": "trial", "task": {"path": str(task)}, "agent": {"name": "oracle"}}
    return stores.table(
        stores.job("t", {**trial, "environment": environment, **more}, {"step_id": "verdict", "kind": "verdict"}),
        experiment=label,
        retry={"max_attempts": 5, "backoff_sec": 0.02},
    )


TRIAL = Scenario(
    "trial",
    (_submit(lambda ctx: _one_trial(ctx, "", {"type": "sandbox"})),),
    {"t/trial": OK, "t/verdict": OK},
    {"t/trial": OK, "t/verdict": {"succeeded", "failed"}},
)


def _go(ctx: Context) -> Path:
    return ctx.layout.root / "go"


def _waiting_table(ctx: Context) -> bytes:
    wait = f"until test -e {_go(ctx)}; do sleep 0.01; done"
    return stores.table(
        stores.job("a", stores.shell("wait", wait), stores.command("next", "true", depends_on=["wait"])),
        stores.job("b", stores.shell("wait", wait), stores.shell("queued", wait)),
        concurrency=2,
        retry={"max_attempts": 5, "backoff_sec": 0.02},
    )


def _target(ctx: Context) -> Found:
    return Found(batch_id=ctx.layout.batch_ids()[0])


def _runs(ctx: Context) -> bool:
    return len(stores.tickets.running(ctx.layout)) == 2


def _nothing_lives(ctx: Context) -> bool:
    return not stores.tickets.running(ctx.layout) and not stores.tickets.ended(ctx.layout)


OPERATE = Scenario(
    "operate",
    (
        _submit(_waiting_table),
        Act("cancel", lambda ctx: cancel_retry.cancel(ctx, _target(ctx)), _runs),
        Act("let-go", lambda ctx: _go(ctx).touch(), _nothing_lives),
        Act("retry", lambda ctx: cancel_retry.retry(ctx, _target(ctx), cancel_retry.Only(failed=True))),
    ),
    {"a/wait": OK, "a/next": OK, "b/wait": OK, "b/queued": OK},
    dict.fromkeys(("a/wait", "a/next", "b/wait", "b/queued"), OR_FAILED),
)

JOURNAL = STEPS._replace(name="journal", whole=0)
"""Small jobs whose ``current.json`` is kept as that of a large one is."""


def _source(ctx: Context, *trials: str) -> Path:
    """A Harbor job that planned two trials of ``easy`` and one of ``hard``, and has these; a name with ``?`` for one without a result."""
    folder = ctx.layout.root.parent / f"source-{len(trials)}"
    if folder.exists():
        return folder
    made = ctx.layout.root.parent / f".source-{os.getpid()}"
    agent = {"name": "oracle"}

    def task(name: str) -> dict[str, str]:
        return {"path": f"/tasks/{name}"}

    def lock(name: str) -> dict[str, object]:
        return {"task": {"name": name, "type": "local", **task(name)}, "agent": agent}

    def write(place: Path, document: dict[str, object]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(document))

    write(made / "config.json", {"job_name": "source", "agents": [agent]})
    write(made / "lock.json", {"trials": [lock("easy"), lock("hard"), lock("easy")]})
    write(made / "result.json", {"id": "11111111-2222", "stats": {"n_retries": 1}})
    for name in trials:
        place, kind = made / name.strip("?"), name.partition("_")[0]
        write(place / "lock.json", lock(kind))
        write(place / "config.json", {"task": task(kind), "agent": agent, "trial_name": place.name})
        write(place / "agent" / "trajectory.json", {"steps": []})
        if not name.endswith("?"):
            reward = {"rewards": {"reward": 1.0}}
            write(place / "result.json", {"task_name": kind, "trial_name": place.name, "verifier_result": reward})
    made.rename(folder)
    return folder


def _import(*trials: str) -> Act:
    return Act("import", lambda ctx: import_jobs(ctx, [_source(ctx, *trials)]))


IMPORT = Scenario(
    "import",
    (_import("easy__1", "easy__2?"), _import("easy__1", "easy__3", "hard__1")),
    dict.fromkeys(("easy/oracle.1", "easy/oracle.2", "easy/verdict", "hard/oracle.1", "hard/verdict"), OK),
    {
        **dict.fromkeys(("easy/oracle.1", "easy/oracle.2", "hard/oracle.1"), OK),
        **dict.fromkeys(("easy/verdict", "hard/verdict"), OR_FAILED),
    },
)
"""A job that had stopped, and has grown since."""


def _unpack(ctx: Context) -> None:
    batch_dir = ctx.layout.batch(ctx.layout.batch_ids()[0])
    if any((batch_dir / name).exists() for name in packed.FILES):
        packs.unpack(ctx, batch_dir.name)


def _pack(ctx: Context) -> None:
    packs.pack(ctx, ctx.layout.batch_ids()[0])


PACK = Scenario(
    "pack",
    (
        _submit(
            lambda _: stores.table(stores.job("a", stores.command("first", "true"), stores.shell("bad", "exit 3")))
        ),
        Act("pack", _pack, stores.idle),
        Act("unpack", _unpack),
        Act("pack-again", _pack),
    ),
    {"a/first": OK, "a/bad": {"failed"}},
    {"a/first": OR_FAILED, "a/bad": {"failed"}},
)


def _reuse(ctx: Context) -> None:
    data = _one_trial(ctx, "second", {"type": "sandbox"})
    submit(ctx, data, name="second.json", folders=[stores.CHECKOUT], reuse=True)


def _paid_twice(ctx: Context) -> list[str]:
    """Whatever was killed, the second batch has the attempt of the first, once, and has launched none of its own."""
    old, new = ctx.layout.batch_ids()
    lines = [event for _, event in ledger.read(ctx.layout.batch(new)) if event.get("step_id") == "trial"]
    found = [f"reuse: {event['attempt']} was launched" for event in lines if event["event"] == "launched"]
    sources = {event.get("source") for event in lines if event["event"] == "carried" and event.get("reused")}
    if sources != {f"{old}/t/trial"}:
        found.append(f"reuse: the ledger says that it is from {sources}")
    return found


REUSE = Scenario(
    "reuse",
    (_submit(lambda ctx: _one_trial(ctx, "first", {"type": "sandbox"})), Act("reuse", _reuse, stores.idle)),
    {"t/trial": OK, "t/verdict": OK},
    {"t/trial": OK, "t/verdict": {"succeeded", "failed"}},
    tables=2,
    broken=_paid_twice,
)


def _regrade(ctx: Context) -> None:
    tests = ctx.layout.root.parent / "tests"
    if not tests.exists():
        made = ctx.layout.root.parent / f".tests-{os.getpid()}"
        make_task(made, "task", test=ZERO)
        made.rename(tests)
    regrade(ctx, ctx.layout.batch_ids()[0], [tests])


def _judged_otherwise(ctx: Context) -> list[str]:
    """Both rewards are there, each with its batch, and the old ledger names the new batch, once."""
    old, new = ctx.layout.batch_ids()
    found = []
    rewards = [
        [row.facts.reward for row in collect.read(ctx.layout, collect.choose(ctx.layout, batch_id))]
        for batch_id in (old, new)
    ]
    if rewards != [[1.0], [0.0]]:
        found.append(f"regrade: rewards are {rewards}")
    told = [event["batch_id"] for _, event in ledger.read(ctx.layout.batch(old)) if event["event"] == "regraded"]
    if told != [new]:
        found.append(f"regrade: the ledger of {old} names {told}")
    return found


ZERO = "[ -f /app/out ] && echo 0 > /logs/verifier/reward.txt"
"""Tests that find what the agent has left, and think little of it."""

REGRADE = Scenario(
    "regrade",
    (
        _submit(
            lambda ctx: _one_trial(ctx, "", {"import_path": "temp_environment:TempEnvironment"}, keep_workspace=True)
        ),
        Act("regrade", _regrade, stores.idle),
    ),
    {"t/trial": OK, "t/verdict": OK},
    {"t/trial": OK, "t/verdict": {"succeeded", "failed"}},
    tables=2,
    broken=_judged_otherwise,
)


def _collect(*rules: RetentionRule) -> Callable[[Context], object]:
    def do(ctx: Context) -> None:
        told = ctx.config.model_copy(update={"retention": RetentionConfig(rules=rules), "archive": "archive"})
        here = dataclasses.replace(ctx, config=told)
        done = removing.carry_out(here, retention.plan(here))
        assert done.ok, done.failed

    return do


GC = Scenario(
    "gc",
    (
        _submit(
            lambda _: stores.table(
                stores.job(
                    "a", stores.shell("first", "mkdir -p out/in; echo x > out/in/x"), stores.shell("bad", "exit 3")
                )
            )
        ),
        Act("gc", _collect(RetentionRule(name="bad", outcomes=("failed",), after_days=0)), stores.idle),
        Act("pack", _pack),
        Act("gc-packed", _collect(RetentionRule(name="rest", after_days=0))),
    ),
    {"a/first": OK, "a/bad": {"failed"}},
    {"a/first": OR_FAILED, "a/bad": {"failed"}},
)
"""Removal from a batch's folders, then from its archive."""


def _archive(ctx: Context) -> ObjectStore:
    return open_store("archive", {}, at=ctx.layout.root)


def _push(ctx: Context) -> None:
    push(ctx, ctx.layout.batch_ids()[0], _archive(ctx), threads=2)


def _bring_back(ctx: Context) -> None:
    """Lose the batch, once, and have it from the archive."""
    away, store = ctx.layout.root / "lost", _archive(ctx)
    batch_dir = ctx.layout.batch(pull_batch.every(store)[0].batch_id)
    if not away.exists():
        batch_dir.rename(away)
    pull_batch.pull(ctx, batch_dir.name, store, threads=2)
    assert pull_batch.verify(ctx, batch_dir.name, store).here == "same"


ARCHIVE = Scenario(
    "archive",
    (
        _submit(
            lambda _: stores.table(stores.job("a", stores.command("first", "true"), stores.shell("bad", "exit 3")))
        ),
        Act("archive-push", _push, stores.idle),
        Act("archive-pull", _bring_back),
        Act("archive-again", _push),
    ),
    {"a/first": OK, "a/bad": {"failed"}},
    {"a/first": OR_FAILED, "a/bad": {"failed"}},
)


def _whole_again(ctx: Context) -> list[str]:
    """Every attempt has its files in the end, also those that went and came twice."""
    return [f"local: {place} lacks its files" for place in removals.of(ctx.layout.batch(ctx.layout.batch_ids()[0]))]


def _restore(ctx: Context) -> None:
    pull_batch.pull(ctx, ctx.layout.batch_ids()[0], _archive(ctx), threads=2)
    assert not _whole_again(ctx)


LOCAL = Scenario(
    "local",
    (
        _submit(
            lambda _: stores.table(
                stores.job(
                    "a", stores.shell("first", "mkdir -p out/in; echo x > out/in/x"), stores.shell("bad", "exit 3")
                )
            )
        ),
        Act("local-remove", lambda ctx: push_and_remove(ctx, ctx.layout.batch_ids()[0], _archive(ctx)), stores.idle),
        Act("local-restore", _restore),
        Act("pack", _pack),
        Act("local-gc", _collect(RetentionRule(name="up", after_days=0, archived=True))),
        Act("local-restore-packed", _restore),
    ),
    {"a/first": OK, "a/bad": {"failed"}},
    {"a/first": OR_FAILED, "a/bad": {"failed"}},
    broken=_whole_again,
)
"""Files that go because an archive has them, and come back, from a batch's folders and from one that is packed."""

ALL = {
    scenario.name: scenario
    for scenario in (STEPS, TRIAL, OPERATE, JOURNAL, IMPORT, PACK, REUSE, REGRADE, GC, ARCHIVE, LOCAL)
}
WITH_TRIALS = (TRIAL, IMPORT, REUSE, REGRADE)
