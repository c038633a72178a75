"""Budgets stop what has not started; enough is enough."""

import json

import pytest
from harness import TEMP, make_task
from stores import attempt_dirs, context, idle, program, put, read, states, step_of, table, wait_for

from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.plan import Enough
from parallelhassnes.schedule import early_stopping
from parallelhassnes.schedule.limits import budgets, spending
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import raised_budgets as raised
from parallelhassnes.store.queue import tickets


def sweep(root, n_trials, *, kwargs=None, **more):
    agent = {
        "import_path": "costly_agent:CostlyAgent",
        "n_trials": n_trials,
        "kwargs": kwargs or {},
        "queue_key": "costly",
    }
    task = root.parent / "hello"
    if not task.exists():
        make_task(root.parent)
    enough_part = {"enough": more.pop("enough")} if "enough" in more else {}
    return table(sweep={"path": str(task), "agents": [agent], "environment": TEMP, **enough_part}, **more)


def trials(ctx, batch):
    return sum(len(found) for step, found in states(ctx, batch).items() if "verdict" not in step)


def settle(ctx):
    """Tick until nothing runs or ends any more."""

    def quiet():
        tick(ctx)
        return still() and not locks.is_held(ctx.layout.tick_lock) and still()

    def still():
        return not tickets.running(ctx.layout) and not tickets.ended(ctx.layout)

    wait_for(quiet, "the attempts", 90)


def held(ctx, batch):
    return read(ctx.layout.blocked / f"{batch}.json")["reason"]


@pytest.mark.parametrize(
    ("budget", "raised", "first", "second"),
    [({"usd": 2.5}, ("--raise", "4"), 3, 4), ({"tokens": 200}, ("--tokens", "1000"), 2, 5)],
)
def test_a_batch_stops_at_its_budget_and_goes_on_with_more(root, budget, raised, first, second):
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, sweep(root, 5, budget=budget))
    settle(ctx)
    assert trials(ctx, batch) == first
    assert "spent" in held(ctx, batch)
    assert held(ctx, batch).startswith("budget: ")
    board = json.loads(program(root, "scoreboard", batch, "--json").stdout)
    assert board["held"].startswith("budget: ")
    done = program(root, "budget", batch, *raised, "--json")
    assert json.loads(done.stdout)["changed"] is True
    settle(ctx)
    assert trials(ctx, batch) == second
    program(root, "budget", batch, "--raise", "100", "--tokens", "100000")
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the rest", 90)
    assert trials(ctx, batch) == 5
    assert verify(ctx.layout).ok


def test_what_runs_is_reserved_for(root):
    """With three at once and 1 USD each, a budget of 2.5 USD is overdrawn by no more than what ran at first."""
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, sweep(root, 6, budget={"usd": 2.5}))
    settle(ctx)
    ctx = context(root, "concurrency = 3\n")
    program(root, "budget", batch, "--raise", "4.5")
    settle(ctx)
    assert trials(ctx, batch) == 5


def test_until_a_cost_is_known_no_more_than_the_first_wave_runs(root):
    ctx = context(root, "concurrency = 8\n")
    batch = put(ctx, sweep(root, 7, budget={"usd": 100}))
    settle(ctx)
    found = [read(path / "state.json") for path in attempt_dirs(ctx, batch) if "verdict" not in step_of(path)]
    assert [state["status"] for state in found] == ["succeeded"] * 7
    first_end = min(state["ended_at"] for state in found)
    assert sum(state["started_at"] < first_end for state in found) <= budgets.FIRST_WAVE


@pytest.mark.parametrize("scope", ['keys."costly"', 'experiments."e"'])
def test_a_budget_over_all_batches(root, scope):
    ctx = context(root, f"concurrency = 1\n[budgets.{scope}]\nusd = 3\n")
    first = put(ctx, sweep(root, 2, experiment="e"))
    second = put(ctx, sweep(root, 3, experiment="e"))
    settle(ctx)
    assert trials(ctx, first) + trials(ctx, second) == 3
    notes = [path.read_text() for path in ctx.layout.blocked.glob("*.json")]
    assert any("3.00 of 3.00 USD" in note for note in notes)
    spent = read(ctx.layout.system / spending.FILE)
    assert sum(len(spent[scopes]) for scopes in ("keys", "experiments")) == 1
    rebuild(ctx)
    tick(ctx)
    again = read(ctx.layout.system / spending.FILE)
    assert (again["keys"], again["experiments"]) == (spent["keys"], spent["experiments"])
    assert trials(ctx, first) + trials(ctx, second) == 3
    whose = ("--key", "costly") if "costly" in scope else ("--experiment", "e")
    assert f"parallelhassnes budget {' '.join(whose)} --raise" in held(ctx, second)
    asked = json.loads(program(root, "budget", *whose, "--json").stdout)
    assert (asked["usd"], asked["usd_limit"], asked["changed"]) == (3, 3, False)
    program(root, "budget", *whose, "--raise", "100", "--reason", "the deadline")
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the rest", 90)
    assert trials(ctx, first) + trials(ctx, second) == 5
    (line,) = [event for _, event in ledger.read(ctx.layout.system) if event["event"] == "budget"]
    assert (line["target"], line["usd"], line["reason"]) == (whose[1], 100, "the deadline")


def test_a_budget_that_cannot_be_is_refused(root):
    ctx = context(root)
    put(ctx, sweep(root, 1, experiment="ablation"))
    for said, line in (
        (("latest", "--raise", "-1"), "is not an amount"),
        (("latest", "--raise", "inf"), "is not an amount"),
        (("--key", "costlyy", "--raise", "1"), "did you mean costly?"),
        (("--experiment", "ablatoin", "--raise", "1"), "did you mean ablation?"),
        ((), "whose is not said; name one batch, --key KEY or --experiment NAME"),
        (("latest", "--key", "costly"), "several are named; name one batch, --key KEY or --experiment NAME"),
    ):
        refused = program(root, "budget", *said, check=False)
        assert refused.returncode == 2, said
        assert line in refused.stderr, said
    assert not (ctx.layout.system / raised.FILE).exists()


def test_after_one_success_the_rest_is_skipped(root):
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, sweep(root, 4, enough={"successes": 1}))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    assert trials(ctx, batch) == 1
    (job,) = [path for path in ctx.layout.batch(batch).iterdir() if path.is_dir()]
    verdict = read(job / "verdict.json")
    assert (verdict["counts"]["passes"], verdict["counts"]["skipped"]) == (1, 3)
    assert verdict["counts"]["missing"] == 0
    assert all("have passed" in why for why in read(job / "overrides.json")["enough"].values())
    board = json.loads(program(root, "scoreboard", batch, "--json").stdout)
    assert (board["state"], board["counts"]["canceled"]) == ("done", 3)
    program(root, "retry", f"{batch}/{job.name}/CostlyAgent.3")
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the skipped one, wanted after all", 90)
    assert trials(ctx, batch) == 2
    assert verify(ctx.layout).ok
    assert next(attempt_dirs(ctx, batch))


def test_failures_are_not_enough(root):
    ctx = context(root, "concurrency = 2\n")
    batch = put(ctx, sweep(root, 3, kwargs={"solves": False}, enough={"successes": 1}))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    assert trials(ctx, batch) == 3


@pytest.mark.parametrize(
    ("passes", "n", "expected"), [(0, 1, 0.397), (5, 10, 0.263), (10, 10, 0.139), (50, 100, 0.096)]
)
def test_the_half_width_is_wilsons(passes, n, expected):
    assert early_stopping.half_width(passes, n) == pytest.approx(expected, abs=0.001)
    rule = Enough(half_width=expected + 0.001)
    assert early_stopping.reason(rule, passes, n)
    assert early_stopping.reason(Enough(half_width=expected - 0.002), passes, n) is None
    assert early_stopping.reason(rule, 0, 0) is None
