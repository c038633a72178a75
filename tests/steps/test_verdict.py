"""The kind ``verdict``: over real trials, over made-up reports, and its statistics against brute force."""

import itertools
import json
import math
from pathlib import Path

import pytest
from harness import finish, make_attempt, make_task, run, trial_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import report
from parallelhassnes.steps.kinds import WorkerEnd
from parallelhassnes.steps.verdict import facts, judge, statistics

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "schemas" / "verdict.schema.json").read_text(encoding="utf-8")
)


def test_the_schema_in_the_package_is_the_published_one(request):
    root = request.config.rootpath
    packaged = root / "parallelhassnes" / "steps" / "verdict" / "verdict.schema.json"
    assert packaged.read_bytes() == (root / "schemas" / "verdict.schema.json").read_bytes()


def write_job(job_dir, specs):
    steps = [
        StepSpec(step_id=i, kind="trial", queue_key="k", spec=spec) for i, spec in specs.items()
    ]
    verdict = StepSpec(step_id="verdict", kind="verdict", queue_key="v")
    job = JobSpec(batch_id="batch", job_id="job", steps=(*steps, verdict))
    job_dir.mkdir(parents=True, exist_ok=True)
    (job_dir / "job.json").write_text(job.model_dump_json())


def test_over_real_trials(tmp_path):
    task = make_task(tmp_path)
    specs = {"o1": trial_spec(task), "n1": trial_spec(task, "nop"), "n2": trial_spec(task, "nop")}
    attempt = make_attempt(tmp_path, "verdict", {}, step_id="verdict")
    write_job(attempt.job_dir, specs)
    for step_id in ("o1", "n1"):
        run(make_attempt(tmp_path, "trial", specs[step_id], step_id=step_id))
    _, outcome, final = run(attempt)
    verdict = outcome.publish["verdict.json"]
    assert report.problems(verdict, SCHEMA) == []
    assert verdict["task_broken"] is False
    assert verdict["task"]["name"] == "hello"
    assert len(verdict["task"]["checksum"]) == 64
    assert {a["agent"]: (a["passes"], a["scored"], a["missing"]) for a in verdict["agents"]} == {
        "oracle": (1, 1, 0),
        "nop": (0, 1, 1),
    }
    assert final["verdict"] == {"task_broken": False, "scored": 2, "passes": 1, "steps": 3}
    assert all((attempt.dir / path).resolve().is_file() for path in final["files_read"])
    assert json.loads((attempt.dir / "verdict.json").read_text()) == verdict


def test_only_the_newest_finished_attempt_counts(tmp_path):
    attempts = tmp_path / "steps" / "t" / "attempts"
    for name, reward in (("1_a", 0.0), ("2_b", 1.0), ("3_c", 0.5)):
        (attempts / name).mkdir(parents=True)
        (attempts / name / "final.json").write_text(json.dumps({"trial": {"reward": reward}}))
        if name != "3_c":
            (attempts / name / "state.json").write_text('{"status":"succeeded"}')
    (found,) = facts.trial_reports(tmp_path, ["t"])
    assert (found.attempt, found.reward) == ("steps/t/attempts/2_b", 1.0)


RESULTS = st.sampled_from(facts.RESULTS)
REWARDS = st.sampled_from([0.0, 0.25, 0.9999, 1.0, 1.5])
CLASSES = st.sampled_from(["verifier", "agent_error", "auth", "infrastructure", "lost"])


@st.composite
def trials(draw):
    made = []
    for number in range(draw(st.integers(0, 12))):
        result = draw(RESULTS)
        failed = result in ("unscored", "infrastructure")
        made.append(
            facts.TrialFacts(
                f"t{number}",
                result,
                failure_class=draw(CLASSES) if failed else None,
                reward=draw(REWARDS) if result == "scored" else None,
                agent=draw(st.sampled_from(["oracle", "nop", "codex", None])),
                model=draw(st.sampled_from([None, "m"])),
                cost_usd=draw(st.none() | st.floats(0, 9)),
                duration_sec=draw(st.none() | st.floats(0, 9)),
            )
        )
    return made


@settings(deadline=None)
@given(trials())
def test_every_trial_is_counted_once_and_never_as_zero(made):
    verdict = judge.judge("b", "j", made)
    assert report.problems(verdict, SCHEMA) == []
    for counts in (verdict["counts"], *verdict["agents"]):
        assert counts["n"] == sum(counts[name] for name in facts.RESULTS)
    assert sum(a["n"] for a in verdict["agents"]) == len(made)
    for agent in verdict["agents"]:
        own = [f for f in made if (f.agent, f.model) == (agent["agent"], agent["model"])]
        rewards = [f.reward for f in own if f.result == "scored"]
        assert agent["passes"] == rewards.count(1.0)
        expected = sum(rewards) / len(rewards) if rewards else None
        assert agent["mean_reward"] == pytest.approx(expected)
        assert len(agent["pass_at"]) == len(rewards)


@settings(deadline=None)
@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_against_drawing_every_set_of_k_trials(case):
    n, passes, k = case
    outcomes = [True] * passes + [False] * (n - passes)
    draws = [any(draw) for draw in itertools.combinations(outcomes, k)]
    assert statistics.pass_at(n, passes, k) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


@settings(deadline=None)
@given(
    st.integers(1, 400).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
    )
)
def test_pass_at_k_against_exact_counts(case):
    n, passes, k = case
    exact = 1 - math.comb(n - passes, k) / math.comb(n, k)
    assert statistics.pass_at(n, passes, k) == pytest.approx(exact, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_splits_the_values(values, share):
    found = statistics.percentile(values, share)
    assert min(values) <= found <= max(values)
    last = len(values) - 1
    assert sum(v < found for v in values) <= math.ceil(share * last + 1e-6)
    assert sum(v > found for v in values) <= math.ceil((1 - share) * last + 1e-6)


def baseline(agent, *rewards, **stuck):
    made = [
        facts.TrialFacts(f"{agent}{i}", "scored", agent=agent, reward=r)
        for i, r in enumerate(rewards)
    ]
    made += [
        facts.TrialFacts(
            f"{agent}{c}{i}",
            "infrastructure" if c == "lost" else "unscored",
            agent=agent,
            failure_class=c,
        )
        for c, n in stuck.items()
        for i in range(n)
    ]
    return made


@pytest.mark.parametrize(
    ("oracle", "nop", "broken"),
    [
        (baseline("oracle", 1.0), baseline("nop", 0.0), False),
        (baseline("oracle", 1.0, 1.0), baseline("nop", 0.0, 0.5), False),
        (baseline("oracle", 1.0, 0.0), baseline("nop", 0.0), True),
        (baseline("oracle", 0.9), baseline("nop", 0.0), True),
        (baseline("oracle", 1.0), baseline("nop", 1.0), True),
        (baseline("oracle", verifier=1), baseline("nop", 0.0), True),
        (baseline("oracle", lost=2), baseline("nop", 0.0), None),
        (baseline("oracle", 1.0), baseline("nop", lost=1), None),
        (baseline("oracle", 1.0), [], None),
        ([], baseline("nop", 1.0), True),
        ([], [], None),
    ],
)
def test_the_baselines_tell_a_broken_task(oracle, nop, broken):
    verdict = judge.judge("b", "j", [*oracle, *nop])
    assert verdict["task_broken"] is broken
    assert verdict["reasons"]


@pytest.mark.parametrize("left", ["", "{}", '{"counts":3}', "[]"])
def test_a_verdict_that_is_none(tmp_path, left):
    attempt = make_attempt(tmp_path, "verdict", {}, step_id="verdict")
    (attempt.dir / "verdict.json").write_text(left)
    outcome, _ = finish(attempt, WorkerEnd(1, "exited"))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "internal")
