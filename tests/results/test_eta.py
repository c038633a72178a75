"""What a plan may cost, by what trials like its own have cost."""

import pytest
import scored
from harness import TEMP, make_task
from stores import CHECKOUT, command, job, table

from parallelhassnes.actions.submit import plan_table
from parallelhassnes.results.eta import forecast


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("forecast") / "root"
    root.mkdir()
    return scored.make(root)


def plan(store, *tasks: str, agents: list[dict]):
    folder = store.ctx.layout.root.parent / "tasks"
    sweep = {"path": [str(folder / name) for name in tasks], "agents": agents, "environment": TEMP}
    return plan_table(store.ctx, table(sweep=sweep), name="t.json", folders=[CHECKOUT])


def test_trials_of_the_same_tasks_tell_most(store):
    found = forecast(store.ctx.layout, plan(store, "beta", agents=[scored.costly(n_trials=4)]))
    assert [(each.trials, each.like_these, each.same_tasks) for each in found] == [(4, 4, True)]
    assert found[0].mean_usd == pytest.approx((1.0 * 2 + 2.0 * 2) / 4)
    assert found[0].usd == pytest.approx(6.0)


def test_other_tasks_of_the_same_agent_tell_something(store):
    make_task(store.ctx.layout.root.parent / "tasks", "delta")
    found = forecast(store.ctx.layout, plan(store, "delta", agents=[scored.costly(n_trials=1)]))
    assert [(each.like_these, each.same_tasks) for each in found] == [(8, False)]


def test_what_was_never_run_has_no_forecast(store):
    agents = [{"name": "terminus-2", "model_name": "openai/none"}, {"name": "oracle"}]
    first, oracle = forecast(store.ctx.layout, plan(store, "beta", agents=agents))
    assert (first.model, first.like_these, first.usd, first.mean_sec) == ("openai/none", 0, None, None)
    assert (oracle.usd, oracle.mean_sec is not None) == (None, True)
    commands = plan_table(store.ctx, table(job("j", command("s", "true"))), name="t.json", folders=[CHECKOUT])
    assert forecast(store.ctx.layout, commands) == []
