"""Random stores: what is submitted, how each attempt ends, what people say meanwhile, what is damaged."""

import dataclasses
import json
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import strategies as st
from stores import context
from written import ZERO, Left, Writer

from parallelhassnes.actions import append
from parallelhassnes.actions.cancel_retry import Only, cancel, retry
from parallelhassnes.actions.stored import rerun
from parallelhassnes.errors import UserError
from parallelhassnes.refs import Found
from parallelhassnes.schedule.context import Context
from parallelhassnes.store import batches
from parallelhassnes.tables.expanders import tasks as table_tasks
from parallelhassnes.tables.expanders.tasks import FoundTask
from parallelhassnes.tables.parse.located_errors import Problems

HALF = Left({"reward": 0.5}, cost_usd=0.25, tokens=(100, 40, 10))
PASS = Left(cost_usd=1.0, tokens=(1000, 0, 50))
SILENT = Left({"reward": 0}, ("NonZeroAgentExitCodeError", "exit 1"), tokens=(0, 0, 0))
ENDS: dict[str, Left | None] = {
    "pass": PASS,
    "free pass": Left(),
    "zero": dataclasses.replace(ZERO, cost_usd=0.5, tokens=(10, None, 1)),
    "half": HALF,
    "no reward": Left(None, cost_usd=2.0, tokens=(7, 0, 7)),
    "timeout": Left({"reward": 0}, ("AgentTimeoutError", "after 30 s"), cost_usd=0.125, tokens=(5, 0, 5)),
    "crash": Left(None, ("NonZeroAgentExitCodeError", "exit 1"), tokens=(3, 0, 3)),
    "rate limit": Left(None, ("ApiRateLimitError", "429, slow down")),
    "host": Left(None, ("HealthcheckError", "not healthy")),
    "lost": Left(None, reason="lost"),
    "several": Left({"a": 1, "b": 0}, cost_usd=0.0625, tokens=(2, 0, 2)),
    "main of several": Left({"reward": 1, "style": 0.25}, tokens=(4, 0, 4)),
    "other of one": Left({"quality": 1}, tokens=(4, 0, 4)),
    "silent": SILENT,
    "in steps": Left(
        {"reward": 1},
        cost_usd=None,
        steps=(
            {
                "step_name": "one",
                "verifier_result": {"rewards": {"reward": 1}},
                "agent_result": {"n_input_tokens": 5, "n_output_tokens": 1},
            },
            {
                "step_name": "two",
                "verifier_result": {"rewards": {"reward": 1}},
                "exception_info": {"exception_type": "AgentTimeoutError", "exception_message": ""},
            },
        ),
    ),
    "impossible cost": Left(cost_usd=-3.5, tokens=(6, 0, 6)),
    "running": None,
}
AGENTS: dict[str, dict[str, Any]] = {
    "oracle": {"name": "oracle"},
    "nop": {"name": "nop"},
    "model": {"name": "terminus-2", "model_name": "openai/gpt-5.2", "n_trials": 2},
    "valid": {"name": "terminus-2", "model_name": "openai/valid", "n_valid": 2},
    "ours": {"import_path": "costly_agent:CostlyAgent", "queue_key": "ours"},
}
TASKS = ("alpha", "beta")
FOREIGN = {"batch_id": "zz-earlier", "jobs": ["a"], "status": "done"}


class Table(NamedTuple):
    """One submitted table."""

    tasks: int
    agents: tuple[str, ...]
    max_attempts: int
    enough: bool
    gate: bool
    client: str
    """Whose name the table has."""


class Event(NamedTuple):
    """Something that happens to the newest batch, or to the store."""

    what: str
    number: int
    """How many attempts run; or which job and step is meant."""


class Story(NamedTuple):
    """One store."""

    first: Table
    ends: tuple[str, ...]
    """How attempts end; which one is decided by step and number."""
    events: tuple[Event, ...]
    finish: bool
    """Whether what is left runs to its end."""


_tables = st.builds(
    Table,
    st.integers(1, 2),
    st.lists(st.sampled_from(sorted(AGENTS)), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["oddish.alpha-" + "0" * 20, "terminal-bench.alpha"]),
)
_WORDS = (
    "run",
    "run",
    "run",
    "cancel batch",
    "cancel job",
    "cancel step",
    "retry batch",
    "retry failed",
    "retry step",
    "retry unscored",
    "append",
    "rerun failed",
    "rerun missing",
    "again",
    "foreign",
    "damaged",
)
stories = st.builds(
    Story,
    _tables,
    st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=6).map(tuple),
    st.lists(st.builds(Event, st.sampled_from(_WORDS), st.integers(0, 7)), max_size=6).map(tuple),
    st.booleans(),
)


def play(story: Story, root: Path, tasks: Path) -> Context:
    """Make the store of a story."""
    root.mkdir()
    # A pass that an operator's word asks for is left to the writer.
    ctx = dataclasses.replace(context(root, "durable = false\n"), starts_attempts=False)
    teller = _Teller(ctx, story, tasks)
    with mock.patch.object(table_tasks, "read_task", _read_task):
        teller.submit()
        for event in story.events:
            teller.tell(event)
        if story.finish:
            teller.run(100)
    return ctx


_real_read_task = table_tasks.read_task
_tasks: dict[tuple[Any, ...], FoundTask | None] = {}


def _read_task(folder: Path, problems: Problems, **how: Any) -> FoundTask | None:
    """A task, read once for all stories: they share the folders."""
    key = (folder, *sorted(how.items()))
    if key not in _tasks:
        _tasks[key] = _real_read_task(folder, problems, **how)
    return _tasks[key]


class _Teller:
    def __init__(self, ctx: Context, story: Story, tasks: Path) -> None:
        self.ctx, self.story = ctx, story
        self.writer = Writer(ctx, tasks)
        self.batch = ""

    def submit(self) -> None:
        table = self.story.first
        sweep: dict[str, Any] = {}
        if table.enough:
            sweep["enough"] = {"successes": 1}
        if table.gate and {"oracle", "nop"} <= set(table.agents):
            sweep["baseline_gate"] = True
        self.batch = self.writer.submit(
            list(TASKS[: table.tasks]),
            [AGENTS[name] for name in table.agents],
            sweep,
            name=f"{table.client}.json",
            retry={"max_attempts": table.max_attempts, "backoff_sec": 0.1},
            experiment="told",
        )

    def run(self, most: int) -> None:
        self.writer.go_on(self._end, most)

    def _end(self, step: str, number: int) -> Left | None:
        name = f"{step.partition('/')[2]}#{number}"
        return ENDS[self.story.ends[zlib.crc32(name.encode()) % len(self.story.ends)]]

    def tell(self, event: Event) -> None:
        word, _, what = event.what.partition(" ")
        match word:
            case "run":
                self.run(event.number)
            case "cancel":
                cancel(self.ctx, self._target(what, event.number))
            case "retry":
                only = Only(failed=what == "failed", unscored=what == "unscored")
                retry(self.ctx, self._target(what, event.number), only)
            case "append":
                append.append(self.ctx, self.batch, 1 + event.number % 2)
            case "rerun":
                try:
                    made = rerun.rerun(self.ctx, self.batch, "failed" if what == "failed" else "missing")
                except UserError:  # it is not over
                    return
                self.batch = made.batch_id or self.batch
            case "again":
                self.submit()
            case "foreign":
                folder = self.ctx.layout.batch("zz-earlier")
                folder.mkdir(exist_ok=True)
                (folder / batches.META).write_text(json.dumps(FOREIGN))
            case "damaged":
                self._damage()

    def _target(self, what: str, number: int) -> Found:
        if what not in ("job", "step"):
            return Found(batch_id=self.batch)
        jobs = [batches.read_job(path) for path in batches.job_dirs(self.ctx.layout, self.batch)]
        job = jobs[number % len(jobs)]
        step = job.steps[number % len(job.steps)].step_id if what == "step" else None
        return Found(batch_id=self.batch, job_id=job.job_id, step_id=step)

    def _damage(self) -> None:
        """Tear the description of a batch that is there besides."""
        mine = self.batch
        self.submit()
        torn, self.batch = self.batch, mine
        meta = self.ctx.layout.batch(torn) / batches.META
        meta.write_text(meta.read_text()[:40])
        for key in self.ctx.layout.ready.iterdir():
            shutil.rmtree(key / torn, ignore_errors=True)
