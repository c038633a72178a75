"""What each view says of a store, brought to the same words: ``batch ─▶ fact ─▶ value``."""

import json
import re
from collections import Counter
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from starlette.testclient import TestClient

from parallelhassnes.actions.exit_code import exit_code
from parallelhassnes.actions.limits import budget
from parallelhassnes.api.app import create_app
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.config import ApiConfig
from parallelhassnes.report import gather
from parallelhassnes.report.run_summary import run_done
from parallelhassnes.results import aggregate, collect, compare
from parallelhassnes.results.aggregate import GroupLine
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.schedule.context import Context
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.scoreboard_models import BatchScoreboard, Cell
from parallelhassnes.views.show import show
from parallelhassnes.views.system_scoreboard import system_scoreboard

type Facts = dict[str, Any]


class Browser:
    """One application for all stores, in one event loop: only the store behind it changes.

    A loop and a thread of its own for each request, as a client that is not entered makes them, cost more than all views.
    """

    def __init__(self) -> None:
        self.client: TestClient | None = None
        self._ends = ExitStack()

    def look_at(self, ctx: Context) -> TestClient:
        site = ServerState(ctx.layout.root, ApiConfig(), "none", ticking=False)
        if self.client is None:
            self.client = TestClient(create_app(site), base_url="http://127.0.0.1")
            self.client.portal = self._ends.enter_context(start_blocking_portal())
        self.client.app.state.site = site  # type: ignore[attr-defined]
        return self.client

    def close(self) -> None:
        """End the loop."""
        self._ends.close()
        self.client = None


def every(ctx: Context, browser: Browser, batch_id: str, *, report: bool) -> dict[str, Facts]:
    """View → facts, of one batch.

    Args:
        report: look at the report, too, which takes as long as all others.
    """
    layout, chosen = ctx.layout, Choice((batch_id,), batch_id)
    board = batch_scoreboard(layout, batch_id)
    (line,) = [one for one in system_scoreboard(layout).batches if one.batch_id == batch_id]
    shown = show(layout, batch_id)
    found = {
        "scoreboard": _board(board),
        "system scoreboard": {
            "state": line.state,
            "counts": dict(line.counts),
            "steps": line.steps_total,
            "skipped": line.skipped,
        },
        "show": {
            "state": shown.state,
            "counts": dict(shown.counts or ()),
            "steps": len(shown.steps),
            "attempts": sum(step.attempts for step in shown.steps),
        },
        "results": _groups(aggregate.results(layout, chosen).groups),
        "trials": _trials(trial_lines(layout, chosen).model_dump()["trials"]),
        "run --json": _run(json.loads(run_done(layout, batch_id, 0, None).model_dump_json())),
        "rows": {"trials": len(collect.read(layout, chosen))},
        "budget": {"cost": budget.of_batches(ctx, [batch_id])[batch_id].usd}
        if batch_id in budget.of_batches(ctx, [batch_id])
        else {},
        "exit code": {"any": exit_code(ctx, [batch_id], "any")},
        "compare": _compare(compare.compare(layout, batch_id, batch_id)),
    }
    if report:
        found["report"] = _groups(gather.gather(layout, chosen).results.groups)
    verdicts = _verdicts(layout.batch(batch_id), board)
    if verdicts is not None:
        found["verdict.json"] = verdicts
    return found | _http(browser.look_at(ctx), batch_id)


def _board(board: BatchScoreboard) -> Facts:
    return {
        "state": board.state,
        "counts": dict(board.counts),
        "steps": board.steps_total,
        "ended": board.attempts,
        "cost": board.spent.cost_usd or 0.0,
        "agents": {
            _identity(name): {
                "n": cell.n,
                "scored": cell.scored,
                "undecided": getattr(cell, "undecided", 0),
                "passes": cell.passes,
                "mean": _round(cell.mean_reward),
                # What a retry is due of is no longer canceled there, and still is by its last attempt.
                **({} if cell.waiting or cell.running else {"called off": cell.canceled}),
            }
            for name, cell in board.totals.items()
        }
        if "undecided" in Cell.model_fields
        else {},
    }


def _groups(groups: list[GroupLine]) -> Facts:
    return {
        "agents": {
            " · ".join(filter(None, group.key.values())): {
                "n": group.n,
                "scored": group.scored,
                "undecided": group.undecided,
                "passes": group.passes,
                "mean": _round(group.mean_reward),
                "called off": group.canceled + group.skipped,
                "missing": group.missing,
                "superseded": group.superseded,
                "cost of all attempts": group.cost_usd or 0.0,
                "input": group.input_tokens or 0,
                "output": group.output_tokens or 0,
            }
            for group in groups
        },
        "trials": sum(group.n for group in groups),
        "skipped": sum(group.skipped for group in groups),
    }


def _trials(lines: list[Facts]) -> Facts:
    agents: dict[str, Facts] = {}
    for line in lines:
        name = " · ".join(filter(None, (line["agent"], line["model"])))
        own = agents.setdefault(
            name, dict.fromkeys(("n", "scored", "passes", "superseded", "undecided", "called off", "missing"), 0)
        )
        scored = line["result"] == "scored"
        own["n"] += 1
        own["scored"] += scored
        own["passes"] += bool(line["passed"])
        own["undecided"] += scored and line["passed"] is None
        own["superseded"] += line["superseded"]
        own["called off"] += line["result"] in ("canceled", "skipped")
        own["missing"] += line["result"] == "missing"
    skipped = sum(line["result"] == "skipped" for line in lines)
    return {"agents": agents, "trials": len(lines), "skipped": skipped}


def _run(document: Facts) -> Facts:
    tasks = document["tasks"]
    return {
        "state": document["state"],
        "counts": document["counts"],
        "trials": sum(task["n"] for task in tasks),
        "all scored": sum(task["scored"] for task in tasks),
        "all passes": sum(task["passes"] for task in tasks),
    }


def _compare(found: compare.Comparison) -> Facts:
    """Of a batch with itself nothing differs."""
    for agent in found.agents:
        assert (agent.won, agent.lost, agent.new, agent.gone) == ([], [], [], [])
        assert agent.reward.difference in (None, 0.0)
    return {"compared": {agent.a: sum(pair.a_scored for pair in agent.tasks) for agent in found.agents}}


def _verdicts(batch_dir: Path, board: BatchScoreboard) -> Facts | None:
    """All jobs' verdicts; None where one is to be made (again)."""
    paths = sorted(batch_dir.glob("*/verdict.json"))
    if board.state not in ("done", "attention") or len(paths) != board.jobs_total or _dead(batch_dir):
        return None
    agents: dict[str, Facts] = {}
    for path in paths:
        for one in json.loads(path.read_text())["agents"]:
            name = " · ".join(filter(None, (one["agent"], one["model"])))
            own = agents.setdefault(name, Counter())
            for fact in ("n", "scored", "passes", "superseded", "undecided"):
                own[fact] += one.get(fact, 0)
            own["cost of all attempts"] += one["cost_usd"] or 0.0
    return {"agents": {name: dict(own) for name, own in agents.items()}}


def _dead(batch_dir: Path) -> bool:
    """Whether a verdict was canceled, and so speaks of what was there before."""
    newest = [
        json.loads(path.read_text())["status"] for path in batch_dir.glob("*/steps/verdict/attempts/*/state.json")
    ]
    return any(status != "succeeded" for status in newest) or any(
        "verdict" in json.loads(path.read_text()).get("canceled", {}) for path in batch_dir.glob("*/overrides.json")
    )


# --- over HTTP ----------------------------------------------------------------------------------------


def _http(client: TestClient, batch_id: str) -> dict[str, Facts]:
    def get(path: str) -> Any:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    document = get(f"/v1/batches/{batch_id}/scoreboard")
    found = {
        "GET scoreboard": _board(BatchScoreboard.model_validate(document)),
        "GET batch": {key: get(f"/v1/batches/{batch_id}")[key] for key in ("state", "counts")},
        "GET results": _groups(aggregate.Results.model_validate(get(f"/v1/results?batch={batch_id}")).groups),
        "GET trials": _trials(get(f"/v1/trials?batch={batch_id}")["trials"]),
        "page": _page(get(f"/batches/{batch_id}")),
        "overview": _overview(get("/"), batch_id),
    }
    listed = [line for line in get("/v1/batches?limit=100")["items"] if line["batch_id"] == batch_id]
    assert len(listed) == 1
    found["GET batches"] = {key: listed[0][key] for key in ("state", "counts", "skipped")}
    return found


def whole_store(ctx: Context, browser: Browser) -> None:
    """The facts that are of no one batch: metrics, the order of batches, earlier clients' lists."""
    client = browser.look_at(ctx)
    board = system_scoreboard(ctx.layout)
    text = client.get("/metrics").text
    steps = {
        state: int(float(number)) for state, number in re.findall(r'parallelhassnes_steps\{state="(\w+)"\} (\S+)', text)
    }
    assert steps == dict(board.counts)
    batches = Counter(line.state for line in board.batches)
    said = re.findall(r'parallelhassnes_batches\{state="(\w+)"\} (\S+)', text)
    assert {state: int(float(number)) for state, number in said if float(number)} == dict(batches)
    newest = ctx.layout.newest_batch()
    assert client.get("/v1/batches/latest").json()["id"] == newest
    listed = client.get("/v1/batches?sort=created&limit=100").json()["items"]
    assert listed[0]["batch_id"] == newest
    assert show(ctx.layout, "latest").id == newest


def earlier(ctx: Context, browser: Browser, batch_id: str) -> Facts:
    """What a client of an earlier program is told of the batch, whichever of them has submitted it."""
    line = next(one for one in system_scoreboard(ctx.layout).batches if one.batch_id == batch_id)
    client, _, _ = line.source_name.partition(".")
    get = browser.look_at(ctx).get
    if client == "oddish":
        answer = get("/tasks")
        assert answer.status_code == 200, answer.text[:500]
        task = answer.json()[0]
        trials = task["trials"]
        return {
            "trials": task["total"],
            "valued": sum(trial["reward"] is not None for trial in trials),
            "decided": task["reward_total"] or 0,
            "passes": task["reward_success"] or 0,
            "cost": sum(trial["cost_usd"] or 0.0 for trial in trials),
            "input": sum(trial["input_tokens"] or 0 for trial in trials),
        }
    answer = get(f"/api/jobs/{batch_id}")
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json() in get("/api/jobs?limit=1000").json()
    runs = answer.json()["runs"]
    # One that has a score may wait or run again, and has not failed.
    assert all(run["status"] != "failed" for run in runs if run["tests_total"]), runs
    return {
        "trials": len(runs),
        "decided": sum(run["tests_total"] or 0 for run in runs),
        "passes": sum(run["tests_passed"] or 0 for run in runs),
    }


def _page(html: str) -> Facts:
    """What the batch's page says: state, steps, and the rows of its results."""
    rows = re.findall(
        r'<tr><td>([^<]*)</td><td>([^<]*)</td><td class="num">\d+</td><td class="num">(\d+) of (\d+)</td><td class="num">(\d+)</td>',
        html,
    )
    (steps,) = re.findall(r"<dt>Jobs, steps</dt><dd>\d+, (\d+)</dd>", html)
    found: Facts = {"steps": int(steps), "state": _state(html[html.index("<h1>") :])}
    if rows:
        found["agents"] = {
            " · ".join(unescape(part) for part in (agent, model) if part != "–"): {
                "scored": int(scored),
                "n": int(n),
                "passes": int(passes),
            }
            for agent, model, scored, n, passes in rows
        }
    return found


def _overview(html: str, batch_id: str) -> Facts:
    place = html.index(f'href="/batches/{batch_id}"')
    return {"state": _state(html[html.rindex("<tr", 0, place) :])}


def _state(html: str) -> str:
    found = re.search(r'class="state s-([\w-]+)">', html)
    assert found is not None, html[:300]
    return found[1]


def _identity(column: str) -> str:
    """A column of the scoreboard as the results name the agent: of an import path the class."""
    return column.rpartition(":")[2]


def _round(number: float | None) -> float | None:
    return None if number is None else round(number, 9)
