"""What the reward of a trial is: the rule by itself, and what real trials leave that no rule should take for a score."""

import errno
import json
import math

import pytest
from harness import finish, make_attempt, make_task, run, trial_spec
from hypothesis import given
from hypothesis import strategies as st

from parallelhassnes.plan import PassRule
from parallelhassnes.steps import usage
from parallelhassnes.steps.failure_evidence import verdict_of
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.steps.trial_data import reward_file, rewards

SANDBOX = "parallelhassnes.sandbox.environment:SandboxEnvironment"
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def standing(found, **rule):
    return rewards.stand(found, PassRule(**rule) if rule else rewards.DEFAULT)


@pytest.mark.parametrize(
    ("found", "rule", "reward", "passed"),
    [
        ({"reward": 1}, {}, 1.0, True),
        ({"reward": 1 - 1e-12}, {}, 1 - 1e-12, True),
        ({"reward": 0.999999}, {}, 0.999999, False),
        ({"reward": 0, "other": 1}, {}, 0.0, False),
        ({"accuracy": 1}, {}, 1.0, True),
        ({"quality": 87.5}, {}, 87.5, True),
        ({"reward": -3}, {}, -3.0, False),
        ({"reward": 1e308}, {}, 1e308, True),
        ({"accuracy": 0.9, "format": 1, "runtime_sec": 42.5}, {"reward": "accuracy", "at_least": 0.9}, 0.9, True),
        ({"accuracy": 0.9, "format": 1, "runtime_sec": 42.5}, {"reward": "accuracy"}, 0.9, False),
        ({"reward": 1, "accuracy": 0}, {"reward": "accuracy"}, 0.0, False),
        ({"loss": -0.5}, {"at_least": -1}, -0.5, True),
        ({"correct": 0, "attempted": 2}, {}, None, None),
        ({"reward": 1}, {"reward": "accuracy"}, None, None),
        ({"a": 1, "b": 1}, {"at_least": 0.5}, None, None),
    ],
)
def test_the_rule(found, rule, reward, passed):
    stood = standing(found, **rule)
    assert (stood.reward, stood.passed) == (reward, passed)
    assert (stood.undecided is None) == (reward is not None)


def test_what_is_undecided_says_how_to_decide():
    line = standing({"correct": 0, "attempted": 2}).undecided
    assert "'correct', 'attempted'" in line
    assert "pass: {reward: NAME, at_least: X}" in line
    line = standing({"reward": 1}, reward="accuracy", source="sweep").undecided
    assert "the sweep names reward 'accuracy'" in line
    many = standing({f"r{number}": 1 for number in range(10_000)}).undecided
    assert "10000 rewards" in many
    assert len(many) < 300


@given(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=6), st.none() | st.text(max_size=5))
def test_a_score_is_one_of_the_rewards_and_nothing_else(found, name):
    """No sum, mean or first of many: what is called the reward is a value that the verifier gave, under the name asked for."""
    stood = standing(found, reward=name) if name is not None else standing(found)
    if stood.reward is None:
        assert stood.passed is None
        assert not found or stood.undecided
    else:
        assert stood.reward == found[name if name is not None else "reward" if "reward" in found else next(iter(found))]
        assert name is not None or "reward" in found or len(found) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", None, [1], {"a": 1}, 10**400])
def test_what_is_no_number_is_no_reward(value):
    found, told = rewards.read({"reward": value, "other": 1})
    assert found == {"other": 1}
    assert "which is no finite number" in told[0]
    assert len(told[0]) < 300


@pytest.mark.parametrize(
    ("value", "known"), [(0, 0), (1.25, 1.25), (-3.5, None), (1e299, None), (math.nan, None), ("1", None), (True, None)]
)
def test_a_cost_that_cannot_be_true_is_unknown(value, known):
    found = usage.of_parts({"": {"cost_usd": value}}, {"cost_usd": "cost_usd"})
    assert found.cost_usd == known
    assert len(found.warnings) == (known is None)
    assert all("cannot be true" in line and len(line) < 200 for line in found.warnings)


def test_a_sum_that_lacks_a_part_says_so():
    parts = {"step a": {"cost_usd": 1.0, "n": 5}, "step b": {"cost_usd": -1.0, "n": 3}}
    found = usage.of_parts(parts, {"cost_usd": "cost_usd", "input": "n"})
    assert (found.cost_usd, found.tokens.input, found.incomplete) == (1.0, 8, ("cost_usd",))
    assert found.warnings == ("step b: cost_usd -1 cannot be true and counts as unknown",)


# --- real trials -------------------------------------------------------------------------------------------


def trial(tmp_path, test, **spec):
    attempt = make_attempt(tmp_path, "trial", {**trial_spec(make_task(tmp_path, test=test)), **spec})
    _, outcome, report = run(attempt)
    return outcome, report["trial"], attempt


def writes(document):
    text = document if isinstance(document, str) else json.dumps(document)
    return f"cat > /logs/verifier/reward.json <<'END'\n{text}\nEND\n"


@pytest.mark.parametrize(
    ("document", "rule", "reward", "passed"),
    [
        ({"correct": 0, "attempted": 2}, None, None, None),
        (
            {"accuracy": 0.9, "format": 1, "runtime_sec": 42.5},
            {"reward": "accuracy", "at_least": 0.8, "source": "table"},
            0.9,
            True,
        ),
        ({**{f"r{number}": 1 for number in range(10_000)}, "reward": 0}, None, 0.0, False),
        ('{"reward": 1e308}', None, 1e308, True),
        ('{"reward": true}', None, 1.0, True),
    ],
)
def test_a_trial_is_scored_by_all_of_its_rewards(tmp_path, document, rule, reward, passed):
    more = {} if rule is None else {"pass_rule": rule}
    outcome, part, _ = trial(tmp_path, writes(document), **more)
    assert outcome.status == "succeeded"
    assert (part["reward"], part["passed"]) == (reward, passed)
    given = json.loads(document) if isinstance(document, str) else document
    assert part["rewards"] == given
    assert (part["undecided"] is None) == (passed is not None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json", "holds '{not json', which is not JSON"),
        ('{"reward": "NaN"}', "has 'NaN' as 'reward', which is no finite number"),
        ('{"reward": NaN}', "has nan as 'reward', which is no finite number"),
        ('{"reward": 1e999}', "has inf as 'reward'"),
        ("[1]", "which is no object of rewards by name"),
        ("{}", "which is no object of rewards by name"),
        ('{"reward": 0, "reward": 1}', "has 'reward' more than once"),
    ],
)
def test_what_stood_in_the_file_is_told(tmp_path, text, said):
    outcome, part, _ = trial(tmp_path, writes(text))
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "verifier")
    assert said in outcome.failure.line
    assert "verifier/reward.json" in outcome.failure.line
    assert (part["reward"], part["rewards"], part["passed"]) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("1", 1),
        (" 0.5\n", 0.5),
        ("-1.", -1),
        (".5", 0.5),
        ("+1e-3", 0.001),
        ("1_0", None),
        ("nan", None),
        ("inf", None),
        ("0x1", None),
        ("１", None),
        ("1 0", None),
        ("1e999", None),
        ("1,0", None),
    ],
)
def test_a_text_is_a_reward_where_it_is_a_plain_number(tmp_path, text, reward):
    folder = tmp_path / "verifier"
    folder.mkdir()
    (folder / "reward.txt").write_text(text)
    if reward is not None:
        assert reward_file.parse_text(folder / "reward.txt") == {"reward": reward}
        return
    with pytest.raises(reward_file.NoReward, match=r"verifier/reward\.txt holds .*, which is no (?:finite )?number"):
        reward_file.parse_text(folder / "reward.txt")


def test_a_failure_of_ours_to_read_is_not_the_verifiers(tmp_path, monkeypatch):
    """The disk's error, say: nothing that a verifier can leave."""
    folder = tmp_path / "verifier"
    folder.mkdir()
    (folder / "reward.json").write_text('{"reward": 1}')

    def broken(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(reward_file.safe_read, "open_file", broken)
    with pytest.raises(reward_file.RewardUnreadableError, match="cannot be read") as caught:
        reward_file.parse_json(folder / "reward.json")
    assert "cannot be read" in reward_file.problem(folder, {})
    found = verdict_of(type(caught.value).__name__, str(caught.value), "verifier")
    assert found.failure_class == "internal"


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("make", "said"),
    [("ln -s /etc/hostname", "was a link, which is not followed"), ("mkfifo", "was a pipe, which is not read")],
)
def test_what_a_sandbox_has_removed_is_told(tmp_path, make, said):
    task = make_task(tmp_path, test=f"{make} /logs/verifier/reward.json")
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, environment={"import_path": SANDBOX}))
    _, outcome, _ = run(attempt)
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "verifier")
    assert f"verifier/reward.json {said}" in outcome.failure.line


@pytest.mark.parametrize("name", ["reward.json", "reward.txt"])
@pytest.mark.parametrize("content", ["1", '{"reward": 1}', '{"reward": "words of the host"}'])
def test_a_link_is_no_reward_and_what_it_leads_to_is_told_nowhere(tmp_path, name, content):
    host = tmp_path / "host"
    host.write_text(content)
    outcome, part, attempt = trial(tmp_path, f"ln -s {host} /logs/verifier/{name}")
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "verifier")
    assert f"verifier/{name} is a link, which is not followed" in outcome.failure.line
    assert part["rewards"] is None
    for path in attempt.dir.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"words of the host" not in path.read_bytes(), path


def test_a_link_that_appears_beside_a_reward_is_refused_too(tmp_path):
    """Whatever Harbor made of it: the folder is looked at again when the trial is concluded."""
    attempt = make_attempt(tmp_path, "trial", {"task_name": "t", "config": {}})
    (attempt.dir / "trial" / "verifier").mkdir(parents=True)
    (attempt.dir / "trial" / "verifier" / "reward.json").symlink_to("/etc/hostname")
    result = {"verifier_result": {"rewards": {"reward": 1}}}
    (attempt.dir / "trial" / "result.json").write_text(json.dumps(result))
    outcome, report = finish(attempt, WorkerEnd(0, "exited"))
    assert (outcome.status, report["trial"]["rewards"]) == ("failed", None)
    assert "is a link" in outcome.failure.line


# --- silent agents -----------------------------------------------------------------------------------------


def concluded(tmp_path, tokens, error, *, steps=None, model="openai/x", kind="NonZeroAgentExitCodeError"):
    spec = {"task_name": "t", "config": {"agent": {"name": "codex", "model_name": model}}}
    attempt = make_attempt(tmp_path, "trial", spec)
    (attempt.dir / "trial" / "agent").mkdir(parents=True)
    result = {
        "config": spec["config"],
        "verifier_result": {"rewards": {"reward": 0}},
        "agent_result": {"n_input_tokens": tokens, "n_output_tokens": tokens},
        "agent_execution": {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z"},
        "exception_info": {"exception_type": kind, "exception_message": "it broke"} if error else None,
    }
    if steps is not None:
        document = {"steps": [{"source": source} for source in steps]}
        (attempt.dir / "trial" / "agent" / "trajectory.json").write_text(json.dumps(document))
    (attempt.dir / "trial" / "result.json").write_text(json.dumps(result))
    return finish(attempt, WorkerEnd(0, "exited"))


@pytest.mark.parametrize(
    ("tokens", "error", "more", "status"),
    [
        (0, True, {}, "failed"),
        (0, True, {"steps": ["system", "user"]}, "failed"),
        (0, True, {"steps": ["user", "agent"]}, "succeeded"),
        (None, True, {}, "succeeded"),
        (5, True, {}, "succeeded"),
        (0, False, {}, "succeeded"),
        (0, True, {"model": None}, "succeeded"),
        (0, True, {"kind": "ContextWindowExceededError"}, "succeeded"),
    ],
)
def test_an_agent_that_never_spoke_to_its_model_has_no_score(tmp_path, tokens, error, more, status):
    outcome, report = concluded(tmp_path, tokens, error, **more)
    assert outcome.status == status
    if status == "failed":
        assert "used no token and made no step" in outcome.failure.line
        assert report["trial"]["passed"] is None
