"""One store made and looked at from everywhere."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from one_answer import counted, stories, views
from one_answer.counted import Batch

from parallelhassnes.schedule.context import Context
from parallelhassnes.store import batches


def check(story: stories.Story, folder: Path, browser: views.Browser, *, report: bool = False) -> None:
    """Make the store of a story, have every view say what it has, and compare."""
    root = Path(tempfile.mkdtemp(dir=folder)) / "root"
    try:
        ctx = stories.play(story, root, folder / "tasks")
        torn = ctx.layout.batch_ids()
        ours = [b for b in torn if b != "zz-earlier" and not _is_torn(ctx.layout.batch(b))]
        for batch_id in ours:
            look(ctx, browser, batch_id, report=report)
        if not any(_is_torn(ctx.layout.batch(b)) for b in torn):
            views.whole_store(ctx, browser)
            of_earlier(views.earlier(ctx, browser, ours[-1]), [counted.count(b) for b in _of_one_task(ctx, ours)])
    finally:
        shutil.rmtree(root.parent)


def look(ctx: Context, browser: views.Browser, batch_id: str, *, report: bool) -> None:
    """Compare what every view says of a batch, and what its files say."""
    expected = counted.count(ctx.layout.batch(batch_id))
    found = views.every(ctx, browser, batch_id, report=report)
    agree(found)
    for view, facts in found.items():
        matches(view, facts, expected)


def _of_one_task(ctx: Context, ours: list[str]) -> list[Path]:
    """What the newest batch is to the client that has sent it: of Oddish a task, with all that was sent for it; a rerun replaces what it reruns."""
    metas = {name: batches.read_batch(ctx.layout.batch(name)) for name in ours}
    if not metas[ours[-1]].source_name.startswith("oddish."):
        return [ctx.layout.batch(ours[-1])]
    replaced = {meta.rerun_of for meta in metas.values()}
    return [ctx.layout.batch(name) for name in ours if name not in replaced]


def of_earlier(told: views.Facts, expected: list[Batch]) -> None:
    """What an earlier program's client is told is what the files say."""
    each = [own for batch in expected for own in batch.agents.values()]
    decided = sum(own.scored - own.undecided for own in each)
    known = {
        "trials": sum(own.n for own in each),
        "valued": decided,
        "decided": decided,
        "passes": sum(own.passes for own in each),
        "cost": sum(own.cost for own in each),
        "input": sum(own.input for own in each),
    }
    for fact, value in told.items():
        assert value == known[fact], ("earlier client", fact, value, known[fact])


def _is_torn(batch_dir: Path) -> bool:
    return not (batch_dir / "batch_meta.json").read_text().rstrip().endswith("}")


def agree(found: dict[str, views.Facts]) -> None:
    """Every fact that several views have is the same in all of them."""
    for fact in ("state", "counts", "steps", "trials", "skipped", "cost"):
        said = {view: facts[fact] for view, facts in found.items() if fact in facts}
        values = list(said.values())
        assert all(value == values[0] for value in values), (fact, said)
    names = {name for facts in found.values() for name in facts.get("agents", ())}
    for name in names:
        own = {view: facts["agents"].get(name) for view, facts in found.items() if "agents" in facts}
        facts = {fact for each in own.values() if each for fact in each}
        for fact in facts:
            said = {view: each[fact] for view, each in own.items() if each and fact in each}
            values = list(said.values())
            assert all(value == values[0] for value in values), (name, fact, said)


def matches(view: str, facts: views.Facts, expected: Batch) -> None:
    """What a view says is what the files say."""
    state: dict[str, Any] = {"steps": expected.steps, "ended": expected.ended, "skipped": expected.skipped}
    totals = {
        "trials": sum(each.n for each in expected.agents.values()),
        "all scored": sum(each.scored for each in expected.agents.values()),
        "all passes": sum(each.passes for each in expected.agents.values()),
        "cost": expected.cost,
    }
    for fact, value in (state | totals).items():
        if fact in facts:
            assert facts[fact] == value, (view, fact, facts[fact], value)
    if "counts" in facts:
        assert facts["counts"]["running"] == expected.running, view
        assert sum(facts["counts"].values()) == expected.steps, view
    if "any" in facts:
        wanted = _is_bad(expected)
        assert facts["any"] == wanted or wanted is None, (view, facts["any"])
    for name, own in facts.get("agents", {}).items():
        each = expected.agents[name]
        mean = sum(each.rewards) / len(each.rewards) if each.rewards else None
        known = {
            "n": each.n,
            "scored": each.scored,
            "passes": each.passes,
            "undecided": each.undecided,
            "called off": each.called_off,
            "missing": each.missing,
            "superseded": each.superseded,
            "mean": None if mean is None else round(mean, 9),
            "cost of all attempts": each.cost,
            "input": each.input,
            "output": each.output,
        }
        for fact, value in own.items():
            assert value == known[fact], (view, name, fact, value, known[fact])


def _is_bad(expected: Batch) -> int | None:
    """What the exit code by ``any`` must be; None where it depends on more than trials."""
    each = expected.agents.values()
    if any(own.scored > own.passes for own in each):
        return 1
    return None
