"""The kind ``analysis`` over real trials: it reads the trial's attempt, writes its own, and says what the files prove."""

import json
import os
from pathlib import Path

import pytest
from harness import finish, make_attempt, make_task, run, trial_spec, write_job

from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import final_report
from parallelhassnes.steps.analysis import proof, taxonomy, taxonomy_tables
from parallelhassnes.steps.analysis.record import Analysis, Quote
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial_data.trial_files import TrialFiles

CHECKOUT = Path(__file__).parents[3]
SCHEMA = json.loads((CHECKOUT / "schemas" / "analysis.schema.json").read_text())


def analysed(root: Path, specs: dict) -> tuple[Analysis, dict]:
    """Run these trials, then the analysis of the first; its record and report."""
    attempt = make_attempt(root, "analysis", {"engine": "rules", "trial": next(iter(specs))})
    write_job(attempt.job_dir, specs)
    for step_id, spec in specs.items():
        run(make_attempt(root, "trial", spec, step_id=step_id))
    code, outcome, final = run(attempt)
    assert (code, outcome.status) == (0, "succeeded")
    assert final_report.problems(final["analysis"], SCHEMA) == []
    return Analysis.model_validate(final["analysis"]), final


CASES = {
    "oracle passes": ("oracle", {}, "good_success", "reference"),
    "nop fails": ("nop", {}, "good_failure", "no_action"),
    "nop passes": ("nop", {"test": "echo 1 > /logs/verifier/reward.txt"}, "bad_success", "pre_solved"),
    "oracle fails": ("oracle", {"solution": "echo no"}, "bad_failure", "broken_reference"),
    "no reward": ("oracle", {"test": "exit 0"}, "bad_failure", "brittle_tests"),
    "no reward for nop": ("nop", {"test": "exit 0"}, "bad_failure", "brittle_tests"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_files_prove(tmp_path: Path, name: str) -> None:
    agent, task, outcome, subtype = CASES[name]
    made, final = analysed(tmp_path, {"t": trial_spec(make_task(tmp_path, **task), agent)})
    assert (made.outcome, made.subtype) == (outcome, subtype)
    assert made.evidence
    assert made.struck == ()
    assert made.confidence >= 0.8
    for path in final["files_read"]:
        assert (next((tmp_path / "batch/job/steps/s1/attempts").iterdir()) / path).resolve().is_file()


def test_the_trials_own_attempt_is_left_alone(tmp_path: Path) -> None:
    specs = {"t": trial_spec(make_task(tmp_path), "nop")}
    attempt = make_attempt(tmp_path, "analysis", {"engine": "rules", "trial": "t"}, step_id="a")
    write_job(attempt.job_dir, specs)
    trial = make_attempt(tmp_path, "trial", specs["t"], step_id="t")
    run(trial)

    def look() -> dict:
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in trial.dir.rglob("*")}

    before = look()
    run(attempt)
    assert look() == before


def test_a_trial_that_never_ran_gives_no_analysis(tmp_path: Path) -> None:
    attempt = make_attempt(tmp_path, "analysis", {"engine": "rules", "trial": "t"})
    write_job(attempt.job_dir, {"t": trial_spec(make_task(tmp_path))})
    code, outcome, final = run(attempt)
    assert (code, outcome.status) == (1, "failed")
    assert "analysis" not in final


@pytest.mark.parametrize("left", [b"", b"[]", b'{"outcome":"good_success"}', b'{"schema_version":1,"outcome":7}'])
def test_what_a_dead_worker_left_is_no_analysis(tmp_path: Path, left: bytes) -> None:
    attempt = make_attempt(tmp_path, "analysis", {"trial": "t"})
    (attempt.dir / "analysis.json").write_bytes(left)
    outcome, final = finish(attempt, WorkerEnd(-9, "lost"))
    assert outcome.status in ("failed", "lost")
    assert "analysis" not in final


def test_every_subtype_has_its_outcome_and_its_line_on_the_page() -> None:
    named = [name for each in taxonomy.SUBTYPES.values() for name in each]
    assert len(named) == len(set(named))
    assert set(taxonomy.Subtype.__value__.__args__) == set(named)
    text = (CHECKOUT / taxonomy_tables.PAGE).read_text()
    assert taxonomy_tables.filled(text) == text, "run python -m parallelhassnes.steps.analysis.taxonomy_tables"


def test_whatever_an_agent_left_is_read_within_bounds(tmp_path: Path) -> None:
    """Links, pipes, deep trees and names that lead out of the trial."""
    specs = {"t": trial_spec(make_task(tmp_path), "nop")}
    attempt = make_attempt(tmp_path, "analysis", {"engine": "rules", "trial": "t"}, step_id="a")
    write_job(attempt.job_dir, specs)
    trial = make_attempt(tmp_path, "trial", specs["t"], step_id="t")
    run(trial)
    (tmp_path / "secret").write_text("the combination is 1 2 3\n")
    (trial.dir / "trial" / "link.txt").symlink_to(tmp_path / "secret")
    (trial.dir / "trial" / "out").symlink_to(tmp_path)
    os.mkfifo(trial.dir / "trial" / "pipe")
    deep = trial.dir / "trial" / Path(*["d"] * 300)
    deep.mkdir(parents=True)
    files = TrialFiles(trial.dir, StepSpec(step_id="t", kind="trial", queue_key="k", spec=specs["t"]))
    for name in (
        "trial/link.txt",
        "trial/out/secret",
        "trial/pipe",
        "../secret",
        "/etc/passwd",
        "",
        "task/../secret",
        "trial/no",
        "task/no",
    ):
        assert files.text(name) is None, name
        quote = Quote(file=name, quote="the combination is 1 2 3")
        assert proof.look_up(files, [quote], 0.9) == ((), (quote,), 0.3)
    code, outcome, _ = run(attempt)
    assert (code, outcome.status) == (0, "succeeded")
