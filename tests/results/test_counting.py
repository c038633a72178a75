"""A score that a later attempt did not bring back, and money that repeated attempts have cost: one answer in every view."""

import json

import pytest
from harness import TEMP, make_task
from stores import context, idle, program, put, read, table, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.actions.exit_code import exit_code
from parallelhassnes.compat.trials import trials_of
from parallelhassnes.refs import Found
from parallelhassnes.report import gather, story
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.schedule.limits import spending
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import projection
from parallelhassnes.views.batch_scoreboard import batch_scoreboard


def run(ctx, batch):
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    return batch


def agent(name="oracle", **more):
    if name == "oracle":
        return {"name": name, **more}
    kwargs = {name: value for name, value in more.items() if name != "n_trials"}
    return {
        "import_path": "costly_agent:CostlyAgent",
        "kwargs": kwargs,
        "n_trials": more.get("n_trials", 1),
        "queue_key": "costly",
    }


def batch_of(ctx, task, *agents, **more):
    sweep = {"path": str(task), "agents": list(agents), "environment": TEMP}
    return run(ctx, put(ctx, table(sweep=sweep, retry={"max_attempts": 1}, **more)))


def again(ctx, batch, step):
    cancel_retry.retry(ctx, Found(batch_id=batch, job_id="hello", step_id=step))
    run(ctx, batch)


def group(layout: Layout, batch: str, by: tuple[str, ...] = ("agent", "model")):
    (found,) = results(layout, collect.choose(layout, batch), by).groups
    return found


def without_facts(ctx, batch):
    """The store as an older version left it: the ledger's lines of ends say nothing of the reports."""
    batch_dir = ctx.layout.batch(batch)
    lines = [document for _, document in ledger.read(batch_dir)]
    for line in lines:
        if line["event"] == "ended":
            for name in ("kind", "trial", "used", "verdict", "cost_unknown"):
                line.pop(name, None)
    (batch_dir / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (batch_dir / projection.CACHE).unlink(missing_ok=True)


@pytest.mark.parametrize("older", [False, True])
def test_a_score_stays_whatever_a_later_attempt_came_to(root, older):
    count = root.parent / "count"
    test = f"if [ -e {count} ]; then exit 1; fi; touch {count}; echo 1 > /logs/verifier/reward.txt"
    ctx = context(root)
    task = make_task(root.parent, test=test)
    batch = batch_of(ctx, task, agent())
    again(ctx, batch, "oracle.1")
    if older:
        without_facts(ctx, batch)
    layout = ctx.layout
    board = batch_scoreboard(layout, batch)
    cell = board.jobs[0].cells["oracle"]
    assert (cell.scored, cell.passes, cell.mean_reward, cell.failed, cell.n) == (1, 1, 1.0, 0, 1)
    found = group(layout, batch)
    assert (found.scored, found.passes, found.superseded, found.unscored) == (1, 1, 1, 0)
    (line,) = trial_lines(layout, collect.choose(layout, batch)).trials
    assert (line.result, line.reward, line.passed, line.superseded) == ("scored", 1.0, True, 1)
    verdict = read(layout.job(batch, "hello") / "verdict.json")
    assert (verdict["counts"]["passes"], verdict["counts"]["superseded"]) == (1, 1)
    assert board.jobs[0].verdict.passes == 1
    (trial,) = trials_of(layout, batch).trials
    assert (trial.facts.passed, trial.facts.reward) == (True, 1.0)
    assert exit_code(ctx, [batch], "any") == 0
    report = gather.gather(layout, collect.choose(layout, batch))
    assert "1 scored, 1 passed" in story.markdown(report)


@pytest.mark.parametrize("older", [False, True])
def test_what_repeated_attempts_have_cost_is_in_every_sum(root, older):
    ctx = context(root)
    batch = batch_of(ctx, make_task(root.parent), agent("costly", cost_usd=2.0, tokens=10))
    again(ctx, batch, "CostlyAgent.1")
    if older:
        without_facts(ctx, batch)
    layout = ctx.layout
    found = group(layout, batch)
    assert (found.cost_usd, found.cost_known, found.cost_counted_usd) == (4.0, 2, 2.0)
    assert (found.input_tokens, found.output_tokens) == (18, 2)
    board = batch_scoreboard(layout, batch)
    assert (board.spent.cost_usd, board.spent.input, board.spent.output) == (4.0, 18, 2)
    assert board.spent.attempts_known == 2
    assert spending.accounts(layout, [batch])[batch].total.cost_usd == 4.0
    verdict = read(layout.job(batch, "hello") / "verdict.json")
    assert verdict["agents"][0]["cost_usd"] == 4.0
    (line,) = trial_lines(layout, collect.choose(layout, batch)).trials
    assert (line.cost_usd, line.cost_spent_usd) == (2.0, 4.0)


@pytest.mark.parametrize("cost", [-3.5, 1e299])
def test_a_cost_that_cannot_be_true_gives_no_money_back_and_is_told(root, cost):
    ctx = context(root, "concurrency = 1\n")
    batch = batch_of(ctx, make_task(root.parent), agent("costly", cost_usd=cost))
    layout = ctx.layout
    found = group(layout, batch)
    assert (found.cost_usd, found.cost_known, found.cost_unknown) == (None, 0, 1)
    board = batch_scoreboard(layout, batch)
    assert (board.spent.cost_usd, board.spent.cost_unknown) == (None, 1)
    spent = spending.accounts(layout, [batch])[batch].total
    assert (spent.cost_usd, spent.cost_known, spent.cost_unknown) == (None, 0, 1)
    (line,) = trial_lines(layout, collect.choose(layout, batch)).trials
    assert line.cost_incomplete
    assert "cost_usd" in line.warnings[0]
    assert "cannot be true" in line.warnings[0]
    verdict = read(layout.job(batch, "hello") / "verdict.json")
    assert any("cannot be true" in warning for warning in verdict["warnings"])
    # As an older version wrote it into the ledger.
    ledger.append(
        layout.batch(batch),
        "ended",
        job_id="hello",
        step_id="x",
        run_id="x",
        attempt="x",
        number=1,
        status="succeeded",
        cost_usd=cost,
        queue_key="costly",
    )
    spent = spending.accounts(layout, [batch])[batch].total
    assert (spent.cost_usd, spent.cost_unknown) == (None, 2)


def test_several_rewards_stand_by_name_in_every_view(root):
    rewards = {"accuracy": 0.9, "format": 1, "runtime_sec": 42.5}
    test = f"echo '{json.dumps(rewards)}' > /logs/verifier/reward.json"
    ctx = context(root)
    task = make_task(root.parent, test=test)
    layout = ctx.layout
    batch = batch_of(ctx, task, agent(n_trials=2))
    found = group(layout, batch)
    assert (found.scored, found.undecided, found.passes, found.pass_rate, found.mean_reward) == (2, 2, 0, None, None)
    assert {name: mean.mean for name, mean in found.rewards.items()} == rewards
    cell = batch_scoreboard(layout, batch).jobs[0].cells["oracle"]
    assert (cell.scored, cell.undecided, cell.passes, cell.rewards) == (2, 2, 0, rewards)
    verdict = read(layout.job(batch, "hello") / "verdict.json")
    assert (verdict["task_quality"], verdict["counts"]["undecided"]) == ("unknown", 2)
    assert exit_code(ctx, [batch], "infrastructure") == 0
    assert exit_code(ctx, [batch], "any") == 1
    by_name = results(layout, collect.choose(layout, batch), ("reward",)).groups
    assert {line.key["reward"]: line.mean_reward for line in by_name} == rewards
    shown = program(root, "results", batch).stdout
    assert "pass: {reward: NAME, at_least: X}" in " ".join(shown.split())
    csv = program(root, "results", batch, "--trials", "--format", "csv").stdout
    assert '"{""accuracy"": 0.9, ""format"": 1' in csv
    named = batch_of(ctx, task, agent(), **{"pass": {"reward": "accuracy", "at_least": 0.8}})
    found = group(layout, named)
    assert (found.undecided, found.passes, found.mean_reward) == (0, 1, 0.9)
    lines = results(layout, collect.choose(layout, named), ("reward",)).groups
    assert {line.key["reward"]: line.passes for line in lines} == {"accuracy": 1, "format": 0, "runtime_sec": 0}


def test_the_line_of_an_end_carries_what_views_need(root):
    ctx = context(root)
    batch = batch_of(ctx, make_task(root.parent), agent())
    lines = [event for _, event in ledger.read(ctx.layout.batch(batch)) if event["event"] == "ended"]
    said = {line["kind"]: line for line in lines}
    trial = said["trial"]["trial"]
    assert trial | {"duration_sec": 0, "task_checksum": ""} == {
        "result": "scored",
        "reward": 1.0,
        "passed": True,
        "duration_sec": 0,
        "agent_version": "1.0.0",
        "task_checksum": "",
    }
    assert len(trial["task_checksum"]) == 64
    assert len(said["trial"]["phases"]) == 3
    assert said["verdict"]["verdict"]["passes"] == 1
