"""What a report keeps of a ledger: it says what the ledger says, at every moment, and a report reads it instead."""

import json
from pathlib import Path

import pytest

from benchmarks.views import BATCH, store
from parallelhassnes.report import gather, spans
from parallelhassnes.results import collect
from parallelhassnes.store import atomic
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.views import batch_status, projection, results_matrix


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    monkeypatch.setattr(atomic._Settings, "durable", False)
    return store(tmp_path / "store", 100, 10)


def look(layout: Layout) -> list[spans.Span]:
    """As a process that begins."""
    collect._looks.clear()
    projection._kept.clear()
    return spans.of_batches(layout, {BATCH: batch_status.read_told(layout, BATCH)})


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def ended_once_more(layout: Layout) -> None:
    at = {"job_id": "task-000003", "step_id": "t0000", "run_id": "r99", "attempt": "20261101T010000Z_r99", "number": 2}
    ledger.append(layout.batch(BATCH), "launched", **at, queue_key="k")
    ledger.append(layout.batch(BATCH), "ended", **at, status="failed", ended_at="2026-12-01T00:00:00.000000Z")


def test_what_is_kept_is_what_the_ledger_says_and_is_read_instead_of_it(layout):
    kept = layout.batch(BATCH) / spans.KEPT
    first = look(layout)
    assert (len(first), kept.is_file()) == (1000, True)
    before = bytes_read()
    assert look(layout) == first
    known = sum((layout.batch(BATCH) / name).stat().st_size for name in (spans.KEPT, projection.CACHE, "index.json"))
    assert bytes_read() - before < known + 64_000 < ledger.size(layout.batch(BATCH))
    ended_once_more(layout)
    again = look(layout)
    assert (len(again), again[:1000], again[1000].queue_key) == (1001, first, "k")
    assert look(layout) == again
    kept.unlink()
    assert look(layout) == again


@pytest.mark.parametrize("change", ["", "[]", "torn", "keys", "place", "version", "ledger", "nothing"])
def test_what_is_kept_may_rot(layout, change):
    kept = layout.batch(BATCH) / spans.KEPT
    first = look(layout)
    document = json.loads(kept.read_bytes())
    match change:
        case "torn":
            text = kept.read_text()[:1000]
        case "keys":
            text = json.dumps(document | {"keys": None})
        case "place":
            text = json.dumps(document | {"keys": []})
        case "version":
            text = json.dumps(document | {"schema_version": 0, "spans": []})
        case "ledger":
            text = json.dumps(document | {"made_from": [document["made_from"][0], "0" * 64], "spans": []})
        case "nothing":
            text = json.dumps({name: document[name] for name in ("schema_version", "made_from")})
        case _:
            text = change
    kept.write_text(text)
    assert look(layout) == first
    assert json.loads(kept.read_bytes()) == document


def test_of_few_attempts_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic._Settings, "durable", False)
    layout = store(tmp_path / "few", 9, 10)
    assert len(look(layout)) == 90
    assert not (layout.batch(BATCH) / spans.KEPT).exists()


def test_a_report_makes_no_matrix_of_its_batch(layout, monkeypatch):
    """Of each batch it says six facts; lines of all of its jobs were a sixth of the report."""
    monkeypatch.setattr(results_matrix.Matrix, "__init__", lambda *_: pytest.fail("a matrix was made"))
    found = gather.gather(layout, collect.choose(layout, BATCH))
    (board,) = found.boards
    assert (board.state, board.counts.succeeded, board.counts.failed) == ("attention", 900, 100)
    assert board.spent.cost_usd == pytest.approx(10.0)
