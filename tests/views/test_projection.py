"""Views read the ledger's lines of ended attempts: no attempt's file, and the same answer where lines of older versions say less."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import pytest
from stores import context, program
from written import ZERO, Left, Writer

from parallelhassnes.actions import cancel_retry
from parallelhassnes.actions.exit_code import exit_code
from parallelhassnes.refs import Found
from parallelhassnes.report import gather
from parallelhassnes.results import collect, trial_plans
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.compare import compare
from parallelhassnes.results.error_groups import errors
from parallelhassnes.results.export import csv_text, of_trials
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.store import batches, index
from parallelhassnes.store.batches import _read_job
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views import batch_status, projection
from parallelhassnes.views.batch_scoreboard import batch_scoreboard
from parallelhassnes.views.explain import explain
from parallelhassnes.views.projection import CACHE
from parallelhassnes.views.show import show

MODEL = {"name": "terminus-2", "model_name": "openai/x", "n_trials": 3}
PAID = {"cost_usd": 0.5, "tokens": (100, 40, 10), "version": "2.1", "checksum": "d" * 8}
CRASH = ("NonZeroAgentExitCodeError", "exit 1")
ENDS = (
    Left(**PAID),
    Left(None, CRASH, **PAID),
    Left({"a": 1, "b": 0}, **PAID),
    Left(None, reason="lost"),
    ZERO,
    Left({f"reward {number}": number for number in range(400)}, **PAID),
)
BY = ("agent", "model", "agent_version", "task", "task_checksum", "task_source")
ORIGIN = ("harness_version", "host", "config_sha256")
DETAILS = {"agent", "agent_version", "model", "task_name", "task_checksum", "task_source"}


def made(root, tasks: int = 3) -> tuple[Writer, str]:
    """A store of ended trials of every kind, some of them retried."""
    writer = Writer(context(root, "durable = false\n"))
    names = [f"task-{number}" for number in range(tasks)]
    batch = writer.submit(names, [MODEL, {"name": "oracle"}], retry={"max_attempts": 2, "backoff_sec": 0.1})
    count = iter(range(10**6))
    writer.go_on(lambda _name, _number: ENDS[next(count) % len(ENDS)], 10**6)
    return writer, batch


def forget() -> None:
    """Look as a process that begins."""
    collect._looks.clear()
    projection._kept.clear()
    index._kept.cache_clear()


def answers(writer: Writer, batch: str) -> dict[str, object]:
    """What every view of the batch says, without the time of the look."""
    forget()
    layout, chosen = writer.ctx.layout, Choice((batch,), batch)
    shown = {
        "results": results(layout, chosen, BY),
        "by reward": results(layout, chosen, ("reward",)),
        "compare": compare(layout, batch, batch),
        "errors": errors(layout, chosen),
        "scoreboard": batch_scoreboard(layout, batch),
    }
    report = gather.gather(layout, chosen)
    return {
        **{name: view.model_dump(exclude={"at"}) for name, view in shown.items()},
        "trials": csv_text(of_trials(trial_lines(layout, chosen).trials)),
        "report": (report.rows, report.spans, report.keys, report.provenance),
        "exit code": [exit_code(writer.ctx, [batch], on) for on in ("any", "infrastructure")],
    }


def without(writer: Writer, batch: str, names: set[str], inner: set[str]) -> None:
    """Make the ledger one of an older version: its lines have none of these keys, what they say of a trial none of ``inner``."""
    folder = writer.ctx.layout.batch(batch)
    lines = [json.loads(line) for line in (folder / ledger.LEDGER).read_bytes().splitlines()]
    for line in lines:
        for name in names:
            line.pop(name, None)
        for name in inner:
            line.get("trial", {}).pop(name, None)
    (folder / ledger.LEDGER).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / CACHE).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("names", "inner"),
    [
        ({"trial", "verdict", "used", "cost_unknown", "phases", *ORIGIN}, set()),
        ({"phases", *ORIGIN}, DETAILS),
        ({*ORIGIN, "phases", "kind", "label", "task", "task_sha256", "trial", "verdict"}, DETAILS),
    ],
    ids=["before lines had facts", "before they had the trial's identity", "the oldest"],
)
def test_lines_of_older_versions_lead_to_the_same_answers(root, names, inner):
    writer, batch = made(root)
    now = answers(writer, batch)
    without(writer, batch, names, inner)
    assert answers(writer, batch) == now
    assert answers(writer, batch) == now, "from the cache"


def test_what_lines_say_is_what_the_attempts_files_say(root):
    writer, batch = made(root)
    for job_id, _, found in collect.of_batch(writer.ctx.layout, batch_status.read_told(writer.ctx.layout, batch)):
        job_dir = writer.ctx.layout.job(batch, job_id)
        trials = [step for step in batches.read_job(job_dir).steps if step.kind == "trial"]
        assert list(found.values()) == facts.of_steps(job_dir, trials)


watchers: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and watchers:
        watchers[-1].append(str(arguments[0]))


sys.addaudithook(_note)  # for good: there is no way to take one back


@contextmanager
def opening() -> Iterator[list[str]]:
    """The files that are opened meanwhile."""
    watchers.append([])
    try:
        yield watchers[-1]
    finally:
        watchers.pop()


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory):
    """Batches of finished trials that differ in how many these are: of one task, and of one trial each."""
    root = tmp_path_factory.mktemp("projection") / "root"
    root.mkdir()
    writer = Writer(context(root, "durable = false\n"))
    found = []
    for tasks, trials in ((2, 2), (2, 20), (25, 2)):
        names = [f"task-{number}" for number in range(tasks)]
        found.append(writer.submit(names, [{**MODEL, "n_trials": trials}]))
        ends = cycle([Left(**PAID)] * 3 + [Left(None, CRASH, **PAID)])
        writer.go_on(lambda _name, _number, ends=ends: next(ends), 10**6)  # type: ignore[misc]
    return writer.ctx, found


VIEWS = {
    "results": lambda ctx, batch: results(ctx.layout, Choice((batch,), batch)),
    "trials": lambda ctx, batch: trial_lines(ctx.layout, Choice((batch,), batch)),
    "errors": lambda ctx, batch: errors(ctx.layout, Choice((batch,), batch)),
    "compare": lambda ctx, batch: compare(ctx.layout, batch, batch),
    "report": lambda ctx, batch: gather.gather(ctx.layout, Choice((batch,), batch)),
    "scoreboard": lambda ctx, batch: batch_scoreboard(ctx.layout, batch),
    "show": lambda ctx, batch: show(ctx.layout, batch),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_opens_as_many_files_of_few_trials_as_of_many_and_none_of_an_attempt(small_and_large, view):
    ctx, batches = small_and_large
    counts = []
    VIEWS[view](ctx, batches[0])  # imports what it needs
    for batch in batches:
        VIEWS[view](ctx, batch)  # reads the plan of every job, once
        forget()
        with opening() as files:
            VIEWS[view](ctx, batch)
        assert [path for path in files if "/attempts/" in path] == []
        assert sum(path.endswith(f"{batch}/{CACHE}") for path in files) == 1, "the ledger is folded once"
        counts.append(sum(not path.endswith("verdict.json") for path in files))  # one a task, in a report
    assert max(counts) <= counts[0] + 10 < 50, "a long ledger leaves a cache"


def test_the_exit_code_opens_no_file_of_an_attempt(small_and_large):
    ctx, batches = small_and_large
    for batch in batches:
        with opening() as files:
            assert exit_code(ctx, [batch], "any") == 1
        assert [path for path in files if "/attempts/" in path] == []


def test_one_step_shown_opens_what_it_shows(small_and_large):
    ctx, batches = small_and_large
    counts = []
    for batch in batches:
        step = next(iter(batch_status.read(ctx.layout, batch).steps))
        with opening() as files:
            assert show(ctx.layout, f"{batch}/{step}").attempts
            assert explain(ctx, f"{batch}/{step}").steps
        counts.append(len(files))
    assert max(counts) <= counts[0] + 5 < 60


# --- what the plans say ---------------------------------------------------------------------------------


def test_what_the_plans_say_is_kept_and_made_anew_where_it_is_wrong_old_or_gone(root):
    writer, batch = made(root)
    layout = writer.ctx.layout
    first = answers(writer, batch)
    path = layout.batch(batch) / trial_plans.CACHE
    whole = path.read_bytes()
    assert answers(writer, batch) == first, "from the kept plans"
    kept = json.loads(whole)
    others: dict[str, object] = {
        "of another version": {**kept, "schema_version": 0},
        "of other jobs": {**kept, "made_from": kept["made_from"][:-1], "plans": []},
        "without jobs": {name: part for name, part in kept.items() if name != "jobs"},
        "with places beyond its plans": {**kept, "plans": []},
        "a list": [],
    }
    for said, document in others.items():
        path.write_text(json.dumps(document))
        assert answers(writer, batch) == first, said
    for damaged in (b"", b"{", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert answers(writer, batch) == first
    path.unlink()
    assert answers(writer, batch) == first
    assert path.read_bytes() == whole


def test_a_job_that_is_damaged_after_its_plan_was_kept_is_named(root):
    writer, batch = made(root)

    def look() -> tuple[list[str], int]:
        """By a process of its own, which has no job in memory."""
        found = json.loads(program(root, "results", batch, "--json").stdout)
        return found["passed_over"], sum(group["n"] for group in found["groups"])

    whole = look()
    assert whole == ([], 12)
    path = writer.ctx.layout.job(batch, "task-1") / "job.json"
    sound = path.read_bytes()
    path.write_text("no job")
    (line,), count = look()
    assert ("task-1" in line, count) == (True, 8)
    path.write_bytes(sound)
    assert look() == whole


# --- a process that stays -------------------------------------------------------------------------------


def test_a_process_that_stays_reads_a_batch_again_where_something_has_changed(root):
    writer, batch = made(root)
    waiting = writer.submit(["later"], [MODEL])
    layout = writer.ctx.layout

    def look(batch: str) -> tuple[list[str], dict[str, int]]:
        found = results(layout, Choice((batch,), batch))
        counts = ("n", "scored", "canceled", "missing")
        return found.passed_over, {name: sum(getattr(group, name) for group in found.groups) for name in counts}

    whole = look(batch)
    with opening() as files:
        assert look(batch) == whole
    assert [path for path in files if batch in path] == []
    path = layout.job(batch, "task-1") / "job.json"
    sound = path.read_bytes()
    path.write_text("no job")
    _read_job.cache_clear()
    for _ in range(2):
        (line,), counts = look(batch)
        assert ("task-1" in line, counts["n"]) == (True, whole[1]["n"] * 2 // 3)
    path.write_bytes(sound)
    assert look(batch) == whole
    assert look(waiting)[1] == {"n": 3, "scored": 0, "canceled": 0, "missing": 3}
    step = next(iter(batch_status.read(layout, waiting).steps)).partition("/")[2]
    cancel_retry.cancel(writer.ctx, Found(waiting, "later", step))
    assert look(waiting)[1]["canceled"] == 1
    cancel_retry.cancel(writer.ctx, Found(waiting))
    assert look(waiting)[1] == {"n": 3, "scored": 0, "canceled": 3, "missing": 0}


def test_after_an_event_a_process_that_stays_makes_what_it_speaks_of_anew(root, monkeypatch):
    """Of the ledger it reads the new lines, of the index nothing, and of the trials it makes the row of one."""
    writer, batch = made(root)
    before = answers(writer, batch)
    results(writer.ctx.layout, Choice((batch,), batch))
    rows, offsets = [], []
    of_step, read = collect.of_step, ledger.read
    monkeypatch.setattr(collect, "of_step", lambda *said: rows.append(said[1].key) or of_step(*said))
    monkeypatch.setattr(ledger, "read", lambda folder, offset=0: offsets.append(offset) or read(folder, offset))
    folder = writer.ctx.layout.batch(batch)
    step = next(iter(batch_status.read(writer.ctx.layout, batch).steps))
    size = (folder / ledger.LEDGER).stat().st_size
    ledger.append(folder, "retry", target=f"{batch}/{step}", steps=[step], by="ann@here")
    offsets.clear()
    with opening() as files:
        results(writer.ctx.layout, Choice((batch,), batch))
    assert (rows, offsets) == ([step], [size])
    assert not [path for path in files if path.endswith("index.json")]
    ledger.append(folder, "canceled", steps=[step], by="ann@here")
    again = results(writer.ctx.layout, Choice((batch,), batch)).model_dump(exclude={"at"})
    now = answers(writer, batch)
    assert now["results"] == results(writer.ctx.layout, Choice((batch,), batch), BY).model_dump(exclude={"at"})
    assert again == results(writer.ctx.layout, Choice((batch,), batch)).model_dump(exclude={"at"})
    assert now["trials"] == before["trials"]


def test_of_many_trials_those_that_were_read_last_are_kept(small_and_large, monkeypatch):
    ctx, batches = small_and_large
    monkeypatch.setattr(collect, "MOST_KEPT", 60)
    for batch in batches:
        results(ctx.layout, Choice((batch,), batch))
    assert sum(len(look.rows) for look in collect._looks.values()) <= 60
    assert list(collect._looks) == [ctx.layout.batch(batches[-1])]
