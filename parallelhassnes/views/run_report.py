"""``report ID`` of a job, a step or an attempt: its run report, to be read."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from parallelhassnes import formatting
from parallelhassnes.attempt_data import attempt_files
from parallelhassnes.errors import UnknownId
from parallelhassnes.formatting import between, money, number, size
from parallelhassnes.refs import Found, resolve
from parallelhassnes.steps.safe_read import mapping, sequence
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.scoreboard_models import View

MOST_ITEMS = 50
_COMMON = frozenset({"status", "summary", "files_read", "files_written", "artifacts"})


class RunReport(View):
    """One attempt's report."""

    schema_version: Literal[1] = 1
    ok: bool = True
    id: str
    state: dict[str, Any]
    """``state.json``."""
    report: dict[str, Any] | None
    """``final.json``; None while the attempt runs."""
    artifacts: list[attempt_files.ArtifactFile]


def run_reports(layout: Layout, text: str) -> list[RunReport]:
    """Return the report of the attempt; of a step that of its newest attempt, of a job those of its steps in order.

    Raises:
        UnknownId: it names nothing, or something that was never attempted.
    """
    found = resolve(layout, text)
    if found.step_id is not None or found.job_id is None:
        return [_one(layout, found)]
    job = batches.read_job(found.folder(layout))
    steps = [found._replace(step_id=step.step_id) for step in job.steps]
    made = [_one(layout, step) for step in steps if attempts.newest(step.folder(layout))]
    if not made:
        raise UnknownId(f"{found} has not been attempted yet", fix="look at it with show")
    return made


def _one(layout: Layout, found: Found) -> RunReport:
    listed = attempt_files.artifacts(layout, str(found))
    folder = resolve(layout, listed.id).folder(layout)
    state = attempts.read_state(folder).model_dump(mode="json", exclude_none=True)
    report = atomic.read_json_or_none(folder / attempts.FINAL)
    return RunReport(id=listed.id, state=state, report=report, artifacts=listed.files)


def lines(one: RunReport) -> Iterator[str]:
    """Yield a report as text."""
    report, state = one.report or {}, one.state
    took = ""
    if state.get("started_at") and state.get("ended_at"):
        took = f", {between(state['started_at'], state['ended_at'])}"
    yield f"# {one.id}"
    yield f"{state['status']}{took}{_used(report)}"
    failure = mapping(report.get("failure"))
    if failure:
        yield formatting.failure(str(failure.get("class")), failure.get("line"), failure.get("guessed"))
    yield from ("", *str(report.get("summary") or "It has no report yet.").splitlines())
    agent = mapping(report.get("agent"))
    own = {k: v for k, v in mapping(agent.get("report")).items() if k not in _COMMON}
    if own:
        yield from ("", "Its own report:", *json.dumps(own, indent=2, ensure_ascii=False).splitlines())
    yield from _listed("What is wrong with it", sequence(agent.get("problems")))
    yield from _listed("Files read", sequence(report.get("files_read")))
    yield from _listed("Files written", sequence(report.get("files_written")))
    yield from _listed("Changed in its workspace", sequence(mapping(agent.get("workspace")).get("touched")))
    named = [mapping(each) for each in sequence(report.get("artifacts"))]
    yield from _listed("Worth opening", [f"{each.get('path')}: {each.get('description')}" for each in named])
    kept = [f"{file.name} ({size(file.size)}): {file.path}" for file in one.artifacts]
    yield from _listed("Artifacts", kept)


def _used(report: dict[str, Any]) -> str:
    """Tell which agent made the attempt, and what the attempt has cost."""
    own = mapping(report.get("agent")) or mapping(report.get("trial"))
    who = own.get("agent")
    name = mapping(who).get("name") if isinstance(who, dict) else who
    tokens = mapping(own.get("tokens"))
    parts = [str(part) for part in (name, own.get("model") or mapping(who).get("model")) if part]
    if tokens.get("input") is not None or tokens.get("output") is not None:
        parts.append(f"{number(tokens.get('input'))} tokens in, {number(tokens.get('output'))} out")
    if own.get("cost_usd") is not None:
        parts.append(money(own.get("cost_usd")))
    return "".join(f" · {part}" for part in parts)


def _listed(title: str, items: list[Any]) -> Iterator[str]:
    if items:
        yield from ("", f"{title}:")
        yield from (f"- {item}" for item in items[:MOST_ITEMS])
    if len(items) > MOST_ITEMS:
        yield f"- … and {len(items) - MOST_ITEMS} more"
