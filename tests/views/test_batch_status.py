"""States that follow from a graph and a fold, without a process."""

from pathlib import Path

from parallelhassnes.store.index import IndexedStep
from parallelhassnes.views.batch_status import BatchStatus, Hold
from parallelhassnes.views.projection import Fold, StepRow


def step(step_id: str, *depends_on: str, after: str = "success", kind: str = "command") -> IndexedStep:
    return IndexedStep(step_id, kind, "", "prep", after, list(depends_on))


def states(jobs: dict[str, list[IndexedStep]], held: Hold = Hold(False, ""), **rows: str) -> dict[str, str]:
    """job/step → state, with the reason behind a colon; ``a="failed"`` stands for step ``j/a``."""
    fold = Fold("B")
    for name, status in rows.items():
        retried = status.endswith("+")
        row = StepRow(status.rstrip("+"), "20261121T000000Z_x", 1, "t", "prep", "later" if retried else None)
        fold.put(f"j/{name}", row)
    found = BatchStatus(Path("B"), jobs, fold, held)
    return {s.key.removeprefix("j/"): f"{s.state}{': ' + s.reason if s.reason else ''}" for s in found}


CHAIN = {"j": [step("a"), step("b", "j/a"), step("c", "j/b"), step("end", "j/c", after="end")]}


def test_a_chain_waits_for_its_next_link() -> None:
    assert states(CHAIN) == {
        "a": "ready",
        "b": "blocked: waiting for j/a",
        "c": "blocked: waiting for j/b",
        "end": "blocked: waiting for j/c",
    }


def test_death_spreads_and_names_its_cause_but_an_end_is_enough_for_some() -> None:
    assert states(CHAIN, a="failed") == {
        "a": "failed",
        "b": "blocked: j/a failed",
        "c": "blocked: j/a failed",
        "end": "ready",
    }


def test_a_due_retry_keeps_the_rest_alive() -> None:
    assert states(CHAIN, a="failed+")["b"] == "blocked: waiting for j/a"
    assert states(CHAIN, a="failed+")["a"] == "ready"


def test_cancel_of_the_batch_ends_what_had_not_started() -> None:
    found = states(CHAIN, Hold(True, ""), a="succeeded")
    assert found == {"a": "succeeded", "b": "canceled", "c": "canceled", "end": "canceled"}
    assert states(CHAIN, Hold(True, ""), a="lost+")["a"] == "lost"


def test_what_is_held_is_blocked_only_where_it_could_start() -> None:
    found = states(CHAIN, Hold(False, "secret X is not set"))
    assert (found["a"], found["b"]) == ("blocked: secret X is not set", "blocked: waiting for j/a")


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = {"j": [step("s0"), *(step(f"s{i}", f"j/s{i - 1}") for i in range(1, 5000))]}
    assert states(chain, s0="failed")["s4999"] == "blocked: j/s0 failed"
