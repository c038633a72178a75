"""The rules against real trials that were labelled by hand: see tests/data/analyses."""

import sys
from pathlib import Path

import pytest

from parallelhassnes.steps.analysis import analysis_step, material, proof, taxonomy_tables
from parallelhassnes.steps.analysis.taxonomy import contradiction, fits

CHECKOUT = Path(__file__).parents[3]
DATA = CHECKOUT / "tests" / "data" / "analyses"
sys.path.insert(0, str(DATA))

import confusion  # noqa: E402 - it lies beside its data

FOUND = list(confusion.labelled())


def test_there_are_enough_and_they_are_small() -> None:
    assert len(FOUND) >= 60
    assert len({one.trial for one in FOUND}) == len(FOUND)
    assert {one.outcome for one in FOUND} >= {
        "good_success",
        "bad_success",
        "good_failure",
        "bad_failure",
        "harness_error",
    }
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000
    for one in FOUND:
        assert one.why, one.trial
        assert fits(one.outcome, one.subtype), one.trial
        assert not contradiction(
            one.outcome, one.case.reward, scored=one.case.scored, passed=one.case.files.facts.passed
        ), one.trial


def test_the_rules_are_right_where_they_decide() -> None:
    decided = [one for one in FOUND if one.said.outcome != "unknown"]
    wrong = [one.trial for one in decided if one.outcome != one.said.outcome]
    assert len(wrong) <= 0.05 * len(decided), wrong
    assert len(decided) >= 0.6 * len(FOUND)


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one.trial)
def test_what_the_rules_say_holds(one: confusion.Labelled) -> None:
    """Every quote stands where it is said to stand; nothing contradicts the reward; the material is within its budget."""
    found, struck, _ = proof.look_up(one.case.files, one.said.evidence, 1.0)
    assert struck == ()
    assert found or one.said.outcome == "unknown"
    assert not contradiction(
        one.said.outcome, one.case.reward, scored=one.case.scored, passed=one.case.files.facts.passed
    )
    assert fits(one.said.outcome, one.said.subtype)
    assert analysis_step.known_facts(one.case)
    for tokens in (1000, 30_000):
        text = material.material(one.case, tokens)
        assert len(text) < tokens * material.CHARS_PER_TOKEN + 4000


def test_the_page_shows_the_table() -> None:
    text = (CHECKOUT / taxonomy_tables.PAGE).read_text()
    assert confusion.filled(text) == text, "run tests/data/analyses/confusion.py"
