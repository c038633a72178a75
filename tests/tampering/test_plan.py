"""A plan is said before anything runs, its hash can be published, and the report says what deviates from it."""

import hashlib
import json

import pytest
from harness import TEMP, make_task
from stores import context, idle, job, program, put, shell, table, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import InvalidInput
from parallelhassnes.refs import resolve
from parallelhassnes.report import gather
from parallelhassnes.schedule.tick import tick

PLAN = {"question": "Does it pass?", "primary_metric": "pass rate", "stop_rule": "2 trials each"}
SHA = hashlib.sha256(json.dumps({**PLAN, "exclusions": ""}, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_it_is_the_first_line_of_the_ledger_and_its_hash_is_told_before(root):
    ctx = context(root)
    data = table(job("j", shell("s", "true")), plan=PLAN)
    (root / "table.json").write_bytes(data)
    assert f"plan sha256:{SHA}" in program(root, "validate", str(root / "table.json")).stdout
    assert f"plan sha256:{SHA}" in program(root, "submit", str(root / "table.json")).stderr
    batch = ctx.layout.batch_ids()[0]
    first = json.loads((ctx.layout.batch(batch) / "ledger.jsonl").read_text().splitlines()[0])
    assert (first["seq"], first["event"], first["plan_sha256"]) == (0, "planned", SHA)
    assert first["plan"]["question"] == "Does it pass?"
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    assert verify.verify(ctx.layout).ok
    with pytest.raises(InvalidInput, match="metric"):
        put(ctx, table(job("j", shell("s", "true")), plan={**PLAN, "metric": "x"}))


def test_the_report_says_what_was_planned_what_ran_and_what_deviates(root, tmp_path):
    ctx = context(root)
    agents = [{"name": "oracle", "n_trials": 2}]
    sweep = {"path": str(make_task(root, "hello")), "agents": agents, "environment": TEMP}
    batch = put(ctx, table(sweep=sweep, plan=PLAN))
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch")
    found = gather.planned_of(ctx.layout, batch)
    assert (found.sha256, found.trials, found.deviations) == (SHA, {"oracle": (2, 2, 2)}, ())
    cancel_retry.retry(ctx, resolve(ctx.layout, f"{batch}/hello/oracle.1"), reason="once more")
    wait_for(lambda: idle(ctx), "the retry")
    found = gather.planned_of(ctx.layout, batch)
    assert len(found.deviations) == 1
    assert "the batch had steps retried by hand by" in found.deviations[0]
    assert found.deviations[0].endswith(": once more")
    program(root, "report", batch, "--out", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert "Does it pass?" in page
    assert "oracle: 2 trials planned, 2 started, 2 succeeded" in page
    assert "had steps retried by hand" in page
