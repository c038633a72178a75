"""A store with results of every sort, made by real trials: two batches of one experiment."""

import json
from pathlib import Path
from typing import NamedTuple

from harness import TEMP, make_task
from stores import context, idle, put, table, wait_for

from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.tick import tick


class Scored(NamedTuple):
    ctx: Context
    first: str
    """Tasks alpha and beta; oracle, nop, scripted (passes, zeros and a crash), costly."""
    second: str
    """Tasks beta, whose files have changed, and gamma; oracle and costly, which now fails."""


def scripted(folder: Path, words: str, n_trials: int) -> dict:
    """An agent of a sweep whose trials end as the words say, in no particular order over tasks."""
    folder.mkdir(parents=True)
    (folder / "words").write_text(words)
    kwargs = {"script": str(folder)}
    return {
        "import_path": "scripted_agent:ScriptedAgent",
        "n_trials": n_trials,
        "kwargs": kwargs,
        "queue_key": "scripted",
    }


def costly(n_trials: int = 2, **kwargs: object) -> dict:
    return {"import_path": "costly_agent:CostlyAgent", "n_trials": n_trials, "kwargs": kwargs, "queue_key": "costly"}


def make(root: Path) -> Scored:
    """Run both batches to their end."""
    tasks = root.parent / "tasks"
    for name in ("alpha", "beta"):
        make_task(tasks, name)
    ctx = context(root, "concurrency = 2\n")
    agents = [
        {"name": "oracle", "n_trials": 2},
        {"name": "nop"},
        costly(),
        scripted(root.parent / "words", "ok zero crash ok", 2),
    ]
    first = _run(ctx, tasks, agents, labels={"team": "a"})
    make_task(tasks, "beta", solution="echo other > /app/out")
    make_task(tasks, "gamma")
    (tasks / "alpha").rename(root.parent / "alpha")
    second = _run(ctx, tasks, [{"name": "oracle"}, costly(solves=False, cost_usd=2.0)])
    return Scored(ctx, first, second)


def _run(ctx: Context, tasks: Path, agents: list[dict], **more: object) -> str:
    sweep = {"path": str(tasks), "agents": agents, "environment": TEMP}
    once = {"max_attempts": 1}
    batch = put(ctx, table(sweep=sweep, experiment="nightly", retry=once, **more))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    return batch


def document(text: str) -> dict:
    found: dict = json.loads(text)
    return found
