"""What follows from each end by a look at one dependency is what follows from a look at all of them."""

import random

import pytest
from stores import command, context, idle, job, put, states, table, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.refs import Found
from parallelhassnes.schedule import job_state
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import batches, currents
from parallelhassnes.store.records import StepNow


def graph(chance):
    """Jobs whose steps wait for earlier ones in any way, and fail now and then."""
    made, known = [], []
    for number in range(4):
        steps = []
        for place in range(7):
            wanted = chance.sample(known, min(len(known), chance.randrange(5)))
            argv = "false" if chance.random() < 0.2 else "true"
            more = {"depends_on": wanted, "after": chance.choice(["success", "end"])} if wanted else {}
            steps.append(command(f"s{place}", argv, **more))
            known.append(f"j{number}/s{place}")
        made.append(job(f"j{number}", *steps))
    return table(*made)


def target(batch, job_id=None, step_id=None):
    return Found(batch_id=batch, job_id=job_id, step_id=step_id)


def looked_at(ctx, batch):
    """Every job's ``current.json``, without what says when."""
    found = {}
    for job_dir in batches.job_dirs(ctx.layout, batch):
        current = currents.read(job_dir)
        found[job_dir.name] = ({key: now.attempt for key, now in current.steps.items()}, current.dead)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "whole"), [(1, currents.WHOLE), (2, 0), (3, 0)])
def test_a_graph_that_was_run_canceled_and_retried_stands_as_a_rebuild_makes_it(root, monkeypatch, seed, whole):
    monkeypatch.setattr(currents, "WHOLE", whole)
    chance = random.Random(seed)
    ctx = context(root, "concurrency = 4\ndurable = false\n")
    batch = put(ctx, graph(chance))
    for ref in chance.sample([f"j{n}/s{p}" for n in range(4) for p in range(7)], 2):
        cancel_retry.cancel(ctx, target(batch, *ref.split("/")))
    for again in range(2):
        tick(ctx)
        wait_for(lambda: idle(ctx), "the graph")
        before = looked_at(ctx, batch)
        rebuild(ctx)
        assert idle(ctx), "nothing was left that could start"
        assert looked_at(ctx, batch) == before
        if not again:
            cancel_retry.retry(ctx, target(batch), cancel_retry.Only(failed=True))
    assert states(ctx, batch)


def test_a_fan_in_asks_for_few_dependencies_at_each_end(root, monkeypatch):
    """In whichever order they end: all are asked for once, when the last has ended."""
    asked = []
    real = job_state.JobState._means
    monkeypatch.setattr(job_state.JobState, "_means", lambda self, ref: asked.append(ref) or real(self, ref))
    ctx = context(root, "concurrency = 1\ndurable = false\n")
    count = 60
    steps = [command(f"s{n}", "true") for n in range(count)]
    for refs in (range(count), reversed(range(count))):
        wanted = [f"s{n}" for n in refs]
        batch = put(ctx, table(job("j", *steps, command("last", "true", depends_on=wanted))))
        book = job_state.JobState(ctx, batch)
        spec = book.job("j")
        for number in range(count):
            step = spec.step(f"s{number}")
            now = StepNow(
                status="succeeded",
                attempt="a",
                run_id="r",
                number=1,
                ended_at="2026-11-21T00:00:00.000000Z",
                settled=True,
            )
            book.current("j").put(step.step_id, now)
            asked.clear()
            book.spread(spec, step)
            few = count + 5 if number == count - 1 else 5
            assert len(asked) <= (2 * few if number == count - 1 else few), (number, len(asked))
        assert (ctx.layout.ready / "command" / batch / "00000").is_dir()
