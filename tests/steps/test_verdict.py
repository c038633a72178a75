"""The kind ``verdict``: over real trials, over made-up reports, and its statistics against brute force."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from harness import finish, make_attempt, make_task, run, trial_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from made_facts import trial_facts
from stores import CHECKOUT, python

from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.steps import baseline
from parallelhassnes.steps import final_report as report
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial_data import facts
from parallelhassnes.steps.verdict import analysis_results, discrimination, judge, quality
from parallelhassnes.steps.verdict.analysis_results import EngineOpinion

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "verdict.schema.json").read_text(encoding="utf-8"))


def test_the_schema_in_the_package_is_the_published_one(request):
    root = request.config.rootpath
    packaged = root / "parallelhassnes" / "steps" / "verdict" / "verdict.schema.json"
    assert packaged.read_bytes() == (root / "schemas" / "verdict.schema.json").read_bytes()


def write_job(job_dir, specs):
    steps = [StepSpec(step_id=i, kind="trial", queue_key="k", spec=spec) for i, spec in specs.items()]
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
    assert (verdict["task_quality"], verdict["task_broken"]) == ("good", False)
    assert verdict["task"]["name"] == "hello"
    assert len(verdict["task"]["checksum"]) == 64
    assert {a["agent"]: (a["passes"], a["scored"], a["missing"]) for a in verdict["agents"]} == {
        "oracle": (1, 1, 0),
        "nop": (0, 1, 1),
    }
    assert final["verdict"] == {"task_quality": "good", "task_broken": False, "scored": 2, "passes": 1, "steps": 3}
    assert all((attempt.dir / path).resolve().is_file() for path in final["files_read"])
    assert json.loads((attempt.dir / "verdict.json").read_text()) == verdict


def test_what_is_missing_around_a_trial_says_nothing_about_its_task(tmp_path):
    specs = {"o1": trial_spec(make_task(tmp_path), environment={"type": "daytona"})}
    attempt = make_attempt(tmp_path, "verdict", {}, step_id="verdict")
    write_job(attempt.job_dir, specs)
    _, _, trial = run(make_attempt(tmp_path, "trial", specs["o1"], step_id="o1"))
    assert trial["failure"]["class"] == "configuration"
    # The message whole: what to do stands on its last line.
    assert "pip install 'harbor[daytona]'" in trial["failure"]["line"]
    _, outcome, _ = run(attempt)
    verdict = outcome.publish["verdict.json"]
    assert (verdict["task_quality"], verdict["task_broken"]) == ("unknown", None)
    assert verdict["agents"][0]["infrastructure"] == 1


@pytest.mark.parametrize("asks", ["gpus = 1", 'network_mode = "allowlist"\nallowed_hosts = ["a.example"]'])
def test_a_task_that_asks_for_more_than_its_environment_can_is_not_broken(asks, tmp_path):
    specs = {"o1": trial_spec(make_task(tmp_path, toml=f"[environment]\n{asks}\n"))}
    attempt = make_attempt(tmp_path, "verdict", {}, step_id="verdict")
    write_job(attempt.job_dir, specs)
    _, failed, _ = run(make_attempt(tmp_path, "trial", specs["o1"], step_id="o1"))
    assert failed.failure.failure_class == "task_definition"
    verdict = run(attempt)[1].publish["verdict.json"]
    assert (verdict["task_quality"], verdict["task_broken"]) == ("unknown", None)


def test_only_the_newest_finished_attempt_counts(tmp_path):
    attempts = tmp_path / "steps" / "t" / "attempts"
    first, second, third = (f"20261121T00000{number}Z_{letter * 12}" for number, letter in enumerate("abc"))
    for name, reward in ((first, 0.0), (second, 1.0), (third, 0.5)):
        (attempts / name).mkdir(parents=True)
        report = {"trial": {"rewards": {"reward": reward}, "reward": reward}}
        (attempts / name / "final.json").write_text(json.dumps(report))
        if name != third:
            (attempts / name / "state.json").write_text('{"status":"succeeded"}')
    (found,) = facts.of_steps(tmp_path, [StepSpec(step_id="t", kind="trial", queue_key="k")])
    assert (found.attempt, found.reward) == (f"steps/t/attempts/{second}", 1.0)


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
            trial_facts(
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
        assert agent["passes"] == sum(reward >= 1.0 for reward in rewards)
        expected = sum(rewards) / len(rewards) if rewards else None
        assert agent["mean_reward"] == pytest.approx(expected)
        assert len(agent["pass_at"]) == len(agent["pass_hat"]) == len(rewards)
        if rewards:
            low, high = agent["pass_rate_interval"]
            assert low <= agent["pass_rate"] <= high
            assert agent["pass_rate"] == pytest.approx(agent["pass_at"]["1"])
            assert (agent["mean_reward_interval"] is None) == (max(rewards) > 1)
        costs = [f.spent.cost_usd for f in own if f.spent.cost_usd is not None]
        if costs and agent["passes"]:
            assert agent["cost_per_success_usd"] == pytest.approx(sum(costs) / agent["passes"])


@settings(deadline=None)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_against_drawing_every_set_of_k_trials(case):
    n, passes, k = case
    outcomes = [True] * passes + [False] * (n - passes)
    draws = [any(draw) for draw in itertools.combinations(outcomes, k)]
    assert discrimination.pass_at(n, passes, k) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_against_exact_counts(case):
    n, passes, k = case
    exact = 1 - math.comb(n - passes, k) / math.comb(n, k)
    assert discrimination.pass_at(n, passes, k) == pytest.approx(exact, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_splits_the_values(values, share):
    found = discrimination.percentile(values, share)
    assert min(values) <= found <= max(values)
    last = len(values) - 1
    assert sum(v < found for v in values) <= math.ceil(share * last + 1e-6)
    assert sum(v > found for v in values) <= math.ceil((1 - share) * last + 1e-6)


def trials_of(agent, *rewards, **unscored):
    """Scored trials with these rewards, then unscored ones by failure class."""
    made = [
        trial_facts(f"{agent}.{i}", "scored", f"steps/{agent}.{i}/attempts/a", agent=agent, reward=r)
        for i, r in enumerate(rewards)
    ]
    for name, count in unscored.items():
        result = "infrastructure" if name == "lost" else "unscored"
        made += [
            trial_facts(f"{agent}.{name}{i}", result, f"steps/{agent}.{name}{i}/attempts/a", name, agent=agent)
            for i in range(count)
        ]
    return made


def said(trial, outcome, subtype="x", confidence=0.9, engine="codex", advice="Mend it."):
    return EngineOpinion(
        f"{trial}.{engine}",
        trial,
        engine,
        attempt=f"steps/{trial}.{engine}/attempts/a",
        outcome=outcome,
        subtype=subtype,
        recommendation=advice,
        confidence=confidence,
    )


RIGHT = [*trials_of("oracle", 1.0), *trials_of("nop", 0.0)]
HARD = trials_of("codex", *[0.0] * 9)
UNDECIDED = [
    trial_facts(f"{agent}.u", "scored", f"steps/{agent}.u/attempts/a", agent=agent, named=named)
    for agent, named in (("oracle", {"correct": 0, "attempted": 2}), ("nop", {"a": 1, "b": 1}))
]
TABLE = [
    # what is in the job, analyses, actions -> rule, class, issue, confidence
    (RIGHT, [], {}, "baselines_right", "good", None, 0.7),
    ([*trials_of("oracle", 1.0, 1.0), *trials_of("nop", 0.5)], [], {}, "baselines_right", "good", None, 0.8),
    ([*trials_of("oracle", 1.0, 1.0, 1.0), *trials_of("nop", 0.0)], [], {}, "baselines_right", "good", None, 0.9),
    ([*trials_of("oracle", 1.0), *trials_of("nop", 1.0)], [], {}, "nop_passes", "broken", "pre_solved", 0.95),
    ([*trials_of("oracle", 1.0), *trials_of("nop", 1.0, 1.0)], [], {}, "nop_passes", "broken", "pre_solved", 0.99),
    (trials_of("nop", 1.0), [], {}, "nop_passes", "broken", "pre_solved", 0.95),
    (
        [*trials_of("oracle", 1.0, 0.0), *trials_of("nop", 0.0)],
        [],
        {},
        "oracle_varies",
        "broken",
        "nondeterministic_tests",
        0.99,
    ),
    ([*trials_of("oracle", 0.0), *trials_of("nop", 0.0)], [], {}, "oracle_fails", "broken", "broken_reference", 0.9),
    (
        [*trials_of("oracle", 0.999999), *trials_of("nop", 0.0)],
        [],
        {},
        "oracle_partial",
        "needs_review",
        "broken_reference",
        0.6,
    ),
    (
        [*trials_of("oracle", 1.0, 0.5), *trials_of("nop", 0.0)],
        [],
        {},
        "oracle_partial",
        "needs_review",
        "broken_reference",
        0.6,
    ),
    ([*trials_of("oracle", 1 - 1e-12), *trials_of("nop", 0.0)], [], {}, "baselines_right", "good", None, 0.7),
    (
        [*trials_of("oracle", 87.5), *trials_of("nop", 3.0)],
        [],
        {},
        "nop_above_scale",
        "needs_review",
        "pre_solved",
        0.5,
    ),
    ([*trials_of("oracle", 87.5), *trials_of("nop", 0.0)], [], {}, "baselines_right", "good", None, 0.7),
    (UNDECIDED, [], {}, "baselines_missing", "unknown", None, 0),
    ([*UNDECIDED, *trials_of("oracle", 1.0)], [], {}, "baselines_missing", "unknown", None, 0),
    (
        [*trials_of("oracle", 0.0, 0.0), *trials_of("nop", 0.0)],
        [],
        {},
        "oracle_fails",
        "broken",
        "broken_reference",
        0.97,
    ),
    (
        [*trials_of("oracle", verifier=1), *trials_of("nop", 0.0)],
        [],
        {},
        "oracle_unscored",
        "broken",
        "brittle_tests",
        0.8,
    ),
    ([*trials_of("oracle", task_definition=2)], [], {}, "oracle_unscored", "broken", "environment", 0.9),
    ([*trials_of("oracle", agent_timeout=1)], [], {}, "oracle_unscored", "broken", "broken_reference", 0.8),
    # the infrastructure says nothing, and what was not run or scored is not assumed
    ([*trials_of("oracle", lost=2), *trials_of("nop", 0.0)], [], {}, "baselines_missing", "unknown", None, 0),
    ([*trials_of("oracle", auth=1), *trials_of("nop", 0.0)], [], {}, "baselines_missing", "unknown", None, 0),
    ([*trials_of("oracle", 1.0), *trials_of("nop", lost=1)], [], {}, "baselines_missing", "unknown", None, 0),
    (trials_of("codex", 1.0, 1.0), [], {}, "baselines_missing", "unknown", None, 0),
    ([], [], {}, "baselines_missing", "unknown", None, 0),
    # hard is not broken, also where every analysis says why the agents failed
    ([*RIGHT, *HARD], [], {}, "baselines_right", "good", None, 0.7),
    (
        [*RIGHT, *HARD],
        [said(f"codex.{i}", "good_failure", "wrong_approach") for i in range(9)],
        {},
        "baselines_right",
        "good",
        None,
        0.7,
    ),
    ([*RIGHT, *trials_of("codex", 1.0, 0.0)], [], {}, "baselines_right", "good", None, 0.7),
    ([*RIGHT, *trials_of("codex", agent_timeout=5)], [], {}, "baselines_right", "good", None, 0.7),
    # what other runs say
    (
        [*RIGHT, *trials_of("codex", 1.0, 0.0)],
        [],
        {"codex.0": ("ls", "make"), "codex.1": ("ls", "make")},
        "same_actions_differ",
        "needs_review",
        "nondeterministic_tests",
        0.8,
    ),
    (
        [*RIGHT, *trials_of("codex", 1.0, 0.0)],
        [],
        {"codex.0": ("ls",), "codex.1": ("ls", "make")},
        "baselines_right",
        "good",
        None,
        0.7,
    ),
    ([*RIGHT, *trials_of("codex", 1.0, 0.0)], [], {"codex.0": (), "codex.1": ()}, "baselines_right", "good", None, 0.7),
    (
        [*trials_of("oracle", 1.0), *trials_of("nop", verifier=1)],
        [],
        {},
        "nop_unscored",
        "needs_review",
        "brittle_tests",
        0.7,
    ),
    ([*RIGHT, *trials_of("codex", verifier=2)], [], {}, "tests_without_reward", "needs_review", "brittle_tests", 0.6),
    ([*RIGHT, *trials_of("codex", verifier=1)], [], {}, "baselines_right", "good", None, 0.7),
    # what analyses say
    (
        [*RIGHT, *HARD],
        [said("codex.0", "bad_failure", "underspecified", 0.85, "rules")],
        {},
        "proven_by_rules",
        "needs_review",
        "underspecified",
        0.85,
    ),
    (
        [*RIGHT, *trials_of("codex", 1.0)],
        [said("codex.0", "bad_success", "leaked_tests", 0.8, "rules")],
        {},
        "proven_by_rules",
        "needs_review",
        "leaked_tests",
        0.8,
    ),
    (
        [*RIGHT, *HARD],
        [said(f"codex.{i}", "bad_failure", "underspecified") for i in range(3)]
        + [said(f"codex.{i}", "good_failure") for i in range(3, 9)],
        {},
        "said_by_models",
        "needs_review",
        "underspecified",
        0.3,
    ),
    (
        [*RIGHT, *HARD],
        [said(f"codex.{i}", "bad_failure", "underspecified") for i in range(2)]
        + [said(f"codex.{i}", "good_failure") for i in range(2, 9)],
        {},
        "baselines_right",
        "good",
        None,
        0.7,
    ),
    ([*RIGHT, *HARD], [said("codex.0", "bad_failure", confidence=0.4)], {}, "baselines_right", "good", None, 0.7),
    (
        [*RIGHT, *HARD],
        [said("codex.0", "unknown"), said("codex.1", "harness_error")],
        {},
        "baselines_right",
        "good",
        None,
        0.7,
    ),
    (
        [*RIGHT, *HARD],
        [EngineOpinion("codex.0.codex", "codex.0", "codex", missing=True)],
        {},
        "baselines_right",
        "good",
        None,
        0.7,
    ),
    (RIGHT, [said("oracle.0", "bad_failure"), said("nop.0", "good_failure")], {}, "baselines_right", "good", None, 0.7),
    # the worst counts, all are kept
    ([*trials_of("oracle", 0.0), *trials_of("nop", 1.0)], [], {}, "nop_passes", "broken", "pre_solved", 0.95),
    (
        [*trials_of("oracle", 1.0), *trials_of("nop", 1.0), *HARD],
        [said("codex.0", "bad_failure", engine="rules")],
        {},
        "nop_passes",
        "broken",
        "pre_solved",
        0.95,
    ),
]


@pytest.mark.parametrize(("job", "analyses", "actions", "rule", "quality", "issue", "confidence"), TABLE)
def test_the_rules_one_by_one(job, analyses, actions, rule, quality, issue, confidence):
    verdict = judge.judge("b", "j", job, actions, analyses)
    assert report.problems(verdict, SCHEMA) == []
    first = verdict["findings"][0]
    assert (first["rule"], first["task_quality"], first["issue"]) == (rule, quality, issue)
    assert (verdict["task_quality"], verdict["primary_issue"]) == (quality, issue)
    assert verdict["confidence"] == first["confidence"] == pytest.approx(confidence)
    assert verdict["task_broken"] is {"broken": True, "good": False}.get(quality)
    assert verdict["reasons"] == [finding["text"] for finding in verdict["findings"]]


def test_the_table_has_each_rule():
    assert {row[3] for row in TABLE} == {rule[0] for rule in quality.RULES}
    of_rules = {rule[0]: rule[1] for rule in quality.RULES}
    assert all(of_rules[row[3]] == row[4] for row in TABLE)


def test_the_page_holds_the_rules():
    page = (CHECKOUT / "docs" / "verdicts.md").read_text()
    rows = page.split("<!-- rules -->")[1].split("<!-- end -->")[0].strip().splitlines()[2:]
    told = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [[row[0], row[1], row[3], row[4]] for row in told] == [
        [f"`{name}`", f"`{kind}`", when, confidence] for name, kind, _, when, confidence in quality.RULES
    ]


def test_a_verdict_names_what_supports_it_and_repeats_no_advice():
    job = [*trials_of("oracle", 0.0, 0.0), *trials_of("nop", 0.0), *HARD]
    verdict = judge.judge(
        "b",
        "j",
        job,
        {},
        [
            said("oracle.0", "bad_failure", engine="rules", advice="correct the solution or the tests"),
            said("codex.0", "bad_failure", engine="rules", advice="Name the file."),
            said("codex.1", "bad_failure", engine="rules", advice="name the  file"),
            EngineOpinion("codex.2.rules", "codex.2", "rules", missing=True),
        ],
    )
    assert [finding["rule"] for finding in verdict["findings"]] == ["oracle_fails", "proven_by_rules"]
    assert verdict["findings"][0]["analyses"] == ["steps/oracle.0.rules/attempts/a"]
    assert verdict["findings"][0]["evidence"] == ["steps/oracle.0/attempts/a", "steps/oracle.1/attempts/a"]
    assert verdict["recommendations"] == ["Correct the solution or the tests.", "Name the file."]
    assert verdict["analyses"]["missing"] == ["codex.2.rules"]
    assert verdict["analyses"]["outcomes"] == {"bad_failure": 3}


def test_a_doubted_pass_is_told():
    job = [*RIGHT, *trials_of("codex", 1.0, 1.0)]
    verdict = judge.judge("b", "j", job, {}, [said("codex.0", "bad_success", engine="rules")])
    assert [(a["passes"], a["passes_doubted"]) for a in verdict["agents"]] == [(1, 0), (0, 0), (2, 1)]


@settings(deadline=None)
@given(trials(), st.randoms())
def test_passes_of_agents_never_decide_and_order_does_not_either(made, random):
    """Hard is not broken: with other rewards of the agents, or in another order, the class is the same."""
    found = quality.judge(made)
    easier = [
        replace(fact, reward=1.0, passed=True)
        if fact.agent not in ("oracle", "nop") and fact.result == "scored"
        else fact
        for fact in made
    ]
    random.shuffle(easier)
    again = quality.judge(easier)
    assert again.quality == found.quality
    assert {each.rule for each in again.findings} == {each.rule for each in found.findings}
    assert (found.quality in ("good", "broken")) <= any(f.agent in ("oracle", "nop") for f in made)


def test_flakiness_is_told():
    job = [*trials_of("oracle", 1.0, 0.0), *trials_of("codex", 1.0, 0.0, 1.0)]
    done = {"codex.0": ("ls",), "codex.1": ("ls",), "codex.2": ("ls", "ls")}
    found = judge.judge("b", "j", job, done)["flakiness"]
    assert found["agents"] == [
        {"agent": "oracle", "model": None, "rewards": {"0": 1, "1": 1}},
        {"agent": "codex", "model": None, "rewards": {"0": 1, "1": 2}},
    ]
    assert found["same_actions"] == [
        {"what": "oracle", "steps": ["oracle.0", "oracle.1"], "rewards": [1.0, 0.0]},
        {"what": "1 command", "steps": ["codex.0", "codex.1"], "rewards": [1.0, 0.0]},
    ]


def test_a_verdict_of_an_older_version_is_read(tmp_path):
    golden = CHECKOUT / "tests" / "data" / "verdict" / "v1.json"
    shutil.copy(golden, tmp_path / "verdict.json")
    found = judge.read(tmp_path)
    assert report.problems(found, SCHEMA) == []
    assert (found["task_quality"], found["confidence"]) == ("broken", 0.0)
    assert found["reasons"] == ["the task's own solution does not pass its tests every time"]
    assert found["agents"][0]["pass_rate_interval"] == pytest.approx((0, 0.6576), abs=1e-4)
    assert judge.upgraded(found) == found
    assert judge.read(tmp_path / "nowhere") is None


def test_the_verdict_and_what_it_reads_need_no_numpy():
    code = "import sys; import parallelhassnes.steps.verdict.verdict_step; print(sorted({'numpy', 'scipy', 'pydantic.v1'} & set(sys.modules)))"
    done = python(code)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("left", ["", "{}", '{"counts":3}', "[]"])
def test_a_verdict_that_is_none(tmp_path, left):
    attempt = make_attempt(tmp_path, "verdict", {}, step_id="verdict")
    (attempt.dir / "verdict.json").write_text(left)
    outcome, _ = finish(attempt, WorkerEnd(1, "exited"))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "internal")


def test_an_analysis_of_an_attempt_that_another_followed_does_not_count(tmp_path):
    specs = {"t": trial_spec(make_task(tmp_path))}
    write_job(tmp_path, specs)
    job = JobSpec.model_validate_json((tmp_path / "job.json").read_bytes())
    step = StepSpec(step_id="t.rules", kind="analysis", queue_key="k", spec={"trial": "t", "engine": "rules"})
    job = job.model_copy(update={"steps": (*job.steps, step)})
    place = tmp_path / "steps" / "t.rules" / "attempts" / "20260101T000000Z_r1"
    place.mkdir(parents=True)
    made = {"trial": {"attempt": "1_a"}, "outcome": "bad_failure", "subtype": "x", "confidence": 1}
    (place / "final.json").write_text(json.dumps({"status": "succeeded", "analysis": made}))
    for attempt, missing in (("steps/t/attempts/1_a", False), ("steps/t/attempts/2_b", True), (None, True)):
        (found,) = analysis_results.of_job(tmp_path, job, {"t": attempt})
        assert found.missing is missing
        assert found.blames is not missing
    assert analysis_results.of_job(tmp_path, job, {}) == []


@pytest.mark.parametrize(
    ("failure_class", "is_wrong"),
    [("verifier", True), ("task_definition", True), ("rate_limit", False), ("configuration", False), ("quota", False)],
)
def test_the_gate_blames_the_task_for_nothing_but_its_own_faults(failure_class, is_wrong):
    result = "infrastructure" if failure_class == "configuration" else "unscored"
    oracle = trial_facts("o1", result, "a", failure_class, agent="oracle")
    nop = trial_facts("n1", "scored", "b", reward=0.0, agent="nop")
    wrong, open_ones = baseline.look([oracle, nop])
    assert (bool(wrong), bool(open_ones)) == (is_wrong, not is_wrong)
    assert failure_class in (*wrong, *open_ones)[0]
