"""Pages over files that others have written: whatever is missing or odd in them, the page is there and shows the rest."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from harness import TEMP, make_task
from servers import serving
from starlette.testclient import TestClient
from stores import attempt_dirs, context, idle, put, table, wait_for

from parallelhassnes.admin.init import init
from parallelhassnes.api.app import create_app
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.api.pages.render import PageRoute
from parallelhassnes.config import ApiConfig
from parallelhassnes.schedule.tick import tick

ODD = (None, "odd", -1, 1e300, [], {}, [[]], {"odd": {"odd": None}}, True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Path]]:
    """A server over a trial that was analysed and judged; (its client, the batch, the trial's attempt)."""
    tmp_path = tmp_path_factory.mktemp("foreign")
    root = tmp_path / "root"
    root.mkdir()
    task = make_task(tmp_path, test="echo looked; echo 1 > /logs/verifier/reward.txt")
    sweep = {"path": str(task), "agents": [{"name": "oracle"}], "environment": TEMP}
    ctx = context(root, "durable = false\n")
    batch_id = put(ctx, table(sweep=sweep))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch", 90)
    (trial,) = (path for path in attempt_dirs(ctx, batch_id) if (path / "trial").is_dir())
    with serving(root, "--no-tick") as server:
        yield server.client, batch_id, trial


def mutations(document: Any) -> Iterator[Any]:
    """Yield the document without each of its parts, and with something odd in the place of each."""
    odd = 0
    for place in list(_places(document)):
        for is_left_out in (True, False):
            copy = json.loads(json.dumps(document))
            inner = copy
            for key in place[:-1]:
                inner = inner[key]
            if is_left_out:
                del inner[place[-1]]
            else:
                inner[place[-1]] = ODD[odd % len(ODD)]
                odd += 1
            yield copy
    yield from ODD


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in parts:
        yield (*place, key)
        yield from _places(value, (*place, key))


def assert_shown_whatever_is_in(client: Any, path: Path, document: Any, *addresses: str) -> None:
    before = path.read_bytes() if path.exists() else None
    path.parent.chmod(0o755)
    if before is not None:
        path.chmod(0o644)
    try:
        for mutated in mutations(document):
            path.write_text(json.dumps(mutated))
            for address in addresses:
                answer = client.get(address)
                assert answer.status_code == 200, f"{address} over {path.name} {mutated}: {answer.text[:300]}"
                assert answer.headers["content-type"].startswith("text/html")
    finally:
        path.write_bytes(before) if before is not None else path.unlink()


def address_of(batch_id: str, attempt: Path) -> str:
    return f"/attempts/{batch_id}/{attempt.parents[3].name}/{attempt.parents[1].name}/{attempt.name}"


def test_a_report(site):
    client, batch_id, attempt = site
    report = json.loads((attempt / "final.json").read_text())
    assert report["trial"]["reward"] == 1.0
    report["failure"] = {"class": "agent_error", "line": "x"}
    report["trial"]["exception"] = {"type": "T", "class": "agent_error", "message": "m"}
    address = address_of(batch_id, attempt)
    assert_shown_whatever_is_in(client, attempt / "final.json", report, f"{address}?part=report")


def test_a_verdict(site):
    client, batch_id, attempt = site
    path = attempt.parents[3] / "verdict.json"
    verdict = json.loads(path.read_text())
    assert verdict["task_quality"]
    steps = f"/batches/{batch_id}/steps?job={attempt.parents[3].name}"
    assert_shown_whatever_is_in(client, path, verdict, steps)


def test_a_trajectory(site):
    client, batch_id, attempt = site
    turn = {
        "step_id": 1,
        "timestamp": "2026-01-01T00:00:00Z",
        "source": "agent",
        "message": "look",
        "tool_calls": [{"function_name": "bash", "arguments": {"command": "ls"}}],
        "observation": {
            "results": [{"content": "a b"}, {"content": [{"type": "image", "source": {"path": "i/1.png"}}]}]
        },
        "metrics": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    document = {"agent": {"name": "a"}, "steps": [turn]}
    path = attempt / "trial" / "agent" / "trajectory.json"
    path.parent.chmod(0o755)
    address = f"{address_of(batch_id, attempt)}?part=trajectory"
    path.write_text(json.dumps(document))
    (path.parent / "i").mkdir()
    (path.parent / "i" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shown = client.get(address).text
    assert "3 in, 4 out</small>" in shown, "what a model without a known price has used"
    (place,) = re.findall(r'<img src="([^"]*)"', shown)
    answer = client.get(place)
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("image/png", "nosniff")
    path.unlink()
    assert_shown_whatever_is_in(client, path, document, address)


def test_an_attempt_opens_on_what_tells_most_and_has_its_task_beside_it(site):
    client, batch_id, attempt = site
    address = address_of(batch_id, attempt)
    assert 'data-file="trial/verifier/test-stdout.txt"' in client.get(address).text, "what the tests said"
    for folder, named in (("trial/agent", "trial"), ("trial/steps/two/agent", "two")):
        path = attempt / folder / "trajectory.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(
            json.dumps({"agent": {"name": named}, "steps": [{"source": "agent", "message": f"by {named}"}]})
        )
    result = attempt / "trial" / "result.json"
    kept = result.read_bytes()
    result.chmod(0o644)
    result.write_text(json.dumps({**json.loads(kept), "step_results": [{"step_name": "two"}]}))
    try:
        assert "by trial" in client.get(address).text
        assert "by two" in client.get(f"{address}?part=trajectory&file=trial/steps/two/agent/trajectory.json").text
        assert "by trial" in client.get(f"{address}?part=trajectory&file=../../final.json").text
    finally:
        result.write_bytes(kept)
        for path in attempt.glob("trial/**/trajectory.json"):
            path.unlink()
    task = client.get(f"{address}?part=task").text
    assert "instruction.md" in task
    assert "tests/test.sh" in task
    assert "solution" not in task


def test_a_trial_is_named_by_its_reward_on_its_own_page_and_above_its_batch(site):
    client, batch_id, attempt = site
    shown = client.get(f"{address_of(batch_id, attempt)}?part=files").text
    assert re.findall(r'<span class="state [^"]*">([^<]*)</span>', shown) == ["passed", "passed"]
    said = re.sub(r"<[^>]+>|\s+", " ", client.get(f"/batches/{batch_id}").text)
    assert re.search(r" 1\s+passed\s+1 other step:\s+1\s+succeeded", said)
    steps = client.get(f"/v1/batches/{batch_id}/explain").json()["steps"]
    assert any(step["why"][0].endswith(": passed") for step in steps)


def test_a_batch_that_is_damaged_is_said_by_a_page(site):
    client, batch_id, attempt = site
    meta = attempt.parents[4] / "batch_meta.json"
    kept = meta.read_bytes()
    meta.chmod(0o644)
    meta.write_bytes(kept[: len(kept) // 2])
    try:
        answer = client.get(f"/batches/{batch_id}")
    finally:
        meta.write_bytes(kept)
    assert answer.status_code in (409, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert "batch_meta.json" in answer.text


def test_what_nobody_foresaw_is_a_page_with_a_number_that_stands_in_the_log(root, caplog):
    app = create_app(ServerState(init(root).root, ApiConfig(), "none", ticking=False))
    router = APIRouter(route_class=PageRoute)

    @router.get("/unforeseen")
    def unforeseen() -> None:
        raise ZeroDivisionError

    app.include_router(router)
    answer = TestClient(app, base_url="http://127.0.0.1").get("/unforeseen")
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith("text/html")
    number = re.search(r"incident ([0-9a-f]{8})", answer.text)[1]
    assert f"incident {number}: GET /unforeseen" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in answer.text
