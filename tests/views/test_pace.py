"""Rate, time left and cost over time, from a fold alone."""

from stores import context
from written import Left, Writer

from parallelhassnes.store.records import parse_time
from parallelhassnes.views import projection
from parallelhassnes.views.pace import cost_over_time, pace
from parallelhassnes.views.projection import Fold, StepRow
from parallelhassnes.views.scoreboard_models import Counts

TRIAL = {"result": "scored", "reward": 1.0, "passed": True, "cost_usd": 0.5}


def fold_of(*rows: tuple[str, str, dict | None]) -> Fold:
    fold = Fold("b")
    for number, (status, at, said) in enumerate(rows):
        fold.put(f"j/{number}", StepRow(status, "a", 1, at, said=said))
    return fold


def test_the_rate_is_that_of_the_last_minutes():
    now = parse_time("2026-01-01T01:00:00Z")
    fold = fold_of(
        ("succeeded", "2026-01-01T00:00:00Z", None),
        ("failed", "2026-01-01T00:55:00Z", None),
        ("succeeded", "2026-01-01T00:58:00Z", None),
        ("running", "2026-01-01T00:59:00Z", None),
    )
    found = pace(fold, Counts(ready=3, running=1, blocked=9), now)
    assert found.per_minute == 2 / 10
    assert found.left_sec == 4 / found.per_minute * 60
    young = fold_of(("succeeded", "2026-01-01T00:58:00Z", None), ("succeeded", "2026-01-01T00:59:00Z", None))
    assert pace(young, Counts(), now) == (1.0, None)
    assert pace(Fold("b"), Counts(ready=1), now) == (0.0, None)


def test_a_verdicts_numbers_are_no_money():
    fold = fold_of(
        ("succeeded", "2026-01-01T00:02:00Z", TRIAL),
        ("succeeded", "2026-01-01T00:01:00Z", TRIAL),
        ("succeeded", "2026-01-01T00:03:00Z", {"task_broken": None, "scored": 4, "passes": 4, "steps": 4}),
        ("running", "2026-01-01T00:04:00Z", None),
    )
    assert [(point.at[14:16], point.usd) for point in cost_over_time(fold)] == [("01", 0.5), ("02", 1.0)]


def test_a_long_history_is_thinned_and_keeps_its_end():
    rows = [("succeeded", f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z", TRIAL) for n in range(1000)]
    points = cost_over_time(fold_of(*rows), most=100)
    assert (len(points), points[-1].usd) == (100, 500.0)


def test_what_a_batch_has_cost_over_time_ends_at_what_it_has_spent(root):
    writer = Writer(context(root, "durable = false\n"))
    agents = [{"name": "terminus-2", "model_name": "openai/x", "n_trials": 2}]
    batch = writer.submit(["alpha"], agents, retry={"max_attempts": 3, "backoff_sec": 0.1})
    crash = Left(None, ("HealthcheckError", "not healthy"), cost_usd=0.5)
    writer.go_on(lambda _name, number: crash if number < 3 else Left(cost_usd=1.0))
    fold = projection.load(writer.ctx.layout.batch(batch))
    assert cost_over_time(fold)[-1].usd == fold.spent.cost_usd
    assert fold.spent.attempts > 4
