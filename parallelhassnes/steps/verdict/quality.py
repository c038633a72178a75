"""Whether a task is to be trusted: ``good``, ``needs_review``, ``broken`` or ``unknown``, by the rules below alone.

``broken`` is proven by real runs of ``oracle`` and ``nop``. ``needs_review`` is what other runs or analyses say against
the task; a person decides. ``good`` needs both baselines to have come out as they must, and nothing said against it.
Else it is ``unknown``. How many trials passed plays no part: hard is not broken. ``docs/verdicts.md`` holds the table.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from parallelhassnes.formatting import counted
from parallelhassnes.states import TaskQuality
from parallelhassnes.steps.trial_data import rewards
from parallelhassnes.steps.trial_data.facts import TrialFacts
from parallelhassnes.steps.verdict.analysis_results import EngineOpinion
from parallelhassnes.steps.verdict.flakiness import BASELINES, Same

TASKS_FAULT = frozenset({"verifier", "task_definition", "agent_error", "agent_timeout", "capped"})
"""Classes that leave the oracle unscored through the task: its solution or its tests do not run."""
SURE_ENOUGH = 0.5
"""Confidence below which a model's opinion is not heard."""
ENOUGH_SAY_SO = 1 / 3
"""Share of the trials with an opinion that must blame the task."""
MOST_RECOMMENDATIONS = 5
SAME_REWARD = "Make the tests give the same reward for the same work."
WRITE_REWARD = "Have the tests write a reward when the work is missing or wrong, too."
WHAT_PASSES = "Say what a pass is (pass: {reward: NAME, at_least: X}), or correct the solution or the tests."


class QualityFinding(NamedTuple):
    """What one rule says."""

    rule: str
    quality: TaskQuality
    issue: str | None
    """What is wrong, in the words of the analyses' taxonomy; None where all is well."""
    confidence: float
    """0 to 1."""
    text: str
    recommendation: str = ""
    evidence: tuple[str, ...] = ()
    """Folders of attempts, relative to the job's."""
    analyses: tuple[EngineOpinion, ...] = ()


class Quality(NamedTuple):
    """The class of a task, and why."""

    quality: TaskQuality
    confidence: float
    primary_issue: str | None
    findings: tuple[QualityFinding, ...]
    """Those against the task first, the worst first; of a good or unknown one the one that says so."""
    recommendations: tuple[str, ...]


_TABLE = """\
nop_passes | broken | pre_solved | a scored `nop` trial has passed | 0.95; 0.99 from two on
oracle_varies | broken | nondeterministic_tests | some scored `oracle` trials have passed, others have no part of the reward | 0.99
oracle_fails | broken | broken_reference | no scored `oracle` trial has passed, and one has no part of the reward | 0.9; 0.97 from two on
oracle_unscored | broken | broken_reference, brittle_tests, environment | an `oracle` trial ended without a reward through the task (solution, tests, definition) | 0.8; 0.9 from two on
oracle_partial | needs_review | broken_reference | a scored `oracle` trial has a part of the reward (above 0) and has not passed, and none has no part | 0.6
nop_above_scale | needs_review | pre_solved | a scored `nop` trial has a reward above 1, and nobody has said what a pass is | 0.5
same_actions_differ | needs_review | nondeterministic_tests | two trials ran the same commands and have different rewards | 0.8
nop_unscored | needs_review | brittle_tests | a `nop` trial ended without a reward through the verifier | 0.7
tests_without_reward | needs_review | brittle_tests | two or more trials of other agents ended without a reward through the verifier | 0.6
proven_by_rules | needs_review | the analysis's subtype | an analysis by `rules` of another agent's trial is `bad_failure` or `bad_success` | the highest of theirs
said_by_models | needs_review | the most frequent subtype | analyses by models, each with confidence 0.5 or more, blame the task in a third or more of the trials that such an analysis classified | their mean, times that share
baselines_right | good | | every scored `oracle` trial has passed, no scored `nop` trial has, and both were scored and are decided | 0.7, 0.8, 0.9 for one, two, more `oracle` trials
baselines_missing | unknown | | none of the above | 0
"""
RULES = tuple(tuple(cell.strip() for cell in line.split("|")) for line in _TABLE.splitlines())
"""Name, class, issue, when, confidence. The class is the worst one that a rule gives: broken, then needs_review."""


def judge(trials: Sequence[TrialFacts], same: Sequence[Same] = (), opinions: Sequence[EngineOpinion] = ()) -> Quality:
    """Return the quality of the task that these trials are of; the same facts always give the same."""
    against = [
        *_nop(trials),
        *_oracle(trials),
        *_same_actions(same),
        *_without_reward(trials),
        *_proven(trials, opinions),
        *_said(trials, opinions),
    ]
    against.sort(key=lambda finding: finding.quality != "broken")  # stable: the order of the rules
    if against:
        worst = against[0]
        against = [_supported(finding, opinions) for finding in against]
        return Quality(worst.quality, worst.confidence, worst.issue, tuple(against), _recommendations(against))
    sound = _sound(trials)
    return Quality(sound.quality, sound.confidence, None, (sound,), _recommendations([sound]))


def _decided(trials: Sequence[TrialFacts], agent: str) -> list[TrialFacts]:
    return [fact for fact in trials if fact.agent == agent and fact.decided]


def _finding(
    rule: str, confidence: float, text: str, recommendation: str, trials: Sequence[TrialFacts], issue: str = ""
) -> QualityFinding:
    """Tell what a rule says, of the class and, where no other is given, the issue that ``RULES`` has for it."""
    kind, known = next((row[1], row[2]) for row in RULES if row[0] == rule)
    places = tuple(fact.attempt for fact in trials if fact.attempt is not None)
    return QualityFinding(
        rule, cast("TaskQuality", kind), issue or known or None, confidence, text, recommendation, places
    )


def _nop(trials: Sequence[TrialFacts]) -> Iterator[QualityFinding]:
    own = _decided(trials, "nop")
    passed = [fact for fact in own if fact.passed]
    above = [fact for fact in passed if fact.by_default and not _is_one(fact)]
    if passed and len(above) == len(passed):
        said = f"nop has a reward of {_rewards(above)}, and nobody has said what a pass is"
        yield _finding("nop_above_scale", 0.5, said, WHAT_PASSES, above)
    elif passed:
        said = f"the tests pass although nothing was done: nop passed {len(passed)} of {len(own)} scored trials"
        sure = 0.99 if len(passed) > 1 else 0.95
        yield _finding("nop_passes", sure, said, "Have the tests look at what was asked for.", passed)


def _is_one(fact: TrialFacts) -> bool:
    return fact.reward is not None and abs(fact.reward - 1) <= rewards.TOLERANCE


def _rewards(trials: Sequence[TrialFacts]) -> str:
    return ", ".join(dict.fromkeys(f"{fact.reward:g}" for fact in trials))


def _oracle(trials: Sequence[TrialFacts]) -> Iterator[QualityFinding]:
    own = _decided(trials, "oracle")
    failed = [fact for fact in own if not fact.passed]
    passes = f"oracle passed {len(own) - len(failed)} of {len(own)} scored trials"
    if failed and all((fact.reward or 0) > 0 for fact in failed):
        said = f"the task's own solution has a part of the reward ({_rewards(failed)}): {passes}"
        yield _finding("oracle_partial", 0.6, said, WHAT_PASSES, failed)
    elif failed and len(failed) < len(own):
        said = f"the task's own solution does not pass every time: {passes}"
        yield _finding("oracle_varies", 0.99, said, SAME_REWARD, failed)
    elif failed:
        said = f"the task's own solution does not pass its tests: {passes}"
        sure = 0.97 if len(failed) > 1 else 0.9
        yield _finding("oracle_fails", sure, said, "Correct the solution or the tests.", failed)


def _without_reward(trials: Sequence[TrialFacts]) -> Iterator[QualityFinding]:
    unscored = [fact for fact in trials if fact.result == "unscored"]
    if stuck := [fact for fact in unscored if fact.agent == "oracle" and fact.failure_class in TASKS_FAULT]:
        issues = {"verifier": "brittle_tests", "task_definition": "environment"}
        classes = ", ".join(sorted({fact.failure_class or "" for fact in stuck}))
        said = f"the task's own solution came to no reward in {counted(len(stuck), 'trial')} ({classes})"
        advice = "Have the solution run to its end, and the tests write a reward in every case."
        issue = issues.get(stuck[0].failure_class or "", "broken_reference")
        yield _finding("oracle_unscored", 0.9 if len(stuck) > 1 else 0.8, said, advice, stuck, issue)
    by_tests = [fact for fact in unscored if fact.failure_class == "verifier"]
    if own := [fact for fact in by_tests if fact.agent == "nop"]:
        yield _finding("nop_unscored", 0.7, "the tests give no reward where nothing was done", WRITE_REWARD, own)
    if len(own := [fact for fact in by_tests if fact.agent not in BASELINES]) > 1:
        said = f"the tests gave no reward in {counted(len(own), 'trial')}"
        yield _finding("tests_without_reward", 0.6, said, WRITE_REWARD, own)


def _same_actions(same: Sequence[Same]) -> Iterator[QualityFinding]:
    own = [each for each in same if not each.is_baseline]
    if own:
        found = ", ".join(f"{reward:g}" for reward in sorted({fact.reward or 0.0 for fact in own[0].trials}))
        said = f"{counted(len(own[0].trials), 'trial')} ran the same {own[0].what} and have the rewards {found}"
        yield _finding("same_actions_differ", 0.8, said, SAME_REWARD, [fact for each in own for fact in each.trials])


def _proven(trials: Sequence[TrialFacts], opinions: Sequence[EngineOpinion]) -> list[QualityFinding]:
    blaming = [o for o in _of_agents(trials, opinions) if o.proves and o.blames]
    if not blaming:
        return []
    worst = max(blaming, key=lambda opinion: opinion.confidence)
    return [_of_opinions("proven_by_rules", blaming, worst.confidence, "the rules find")]


def _said(trials: Sequence[TrialFacts], opinions: Sequence[EngineOpinion]) -> list[QualityFinding]:
    heard = [
        opinion
        for opinion in _of_agents(trials, opinions)
        if not opinion.proves and opinion.speaks and opinion.confidence >= SURE_ENOUGH
    ]
    blaming = [opinion for opinion in heard if opinion.blames]
    share = len({o.trial for o in blaming}) / len({o.trial for o in heard}) if heard else 0.0
    if not blaming or share < ENOUGH_SAY_SO:
        return []
    mean = sum(opinion.confidence for opinion in blaming) / len(blaming)
    return [_of_opinions("said_by_models", blaming, round(mean * share, 4), "analyses by models find")]


def _of_opinions(rule: str, blaming: Sequence[EngineOpinion], confidence: float, who: str) -> QualityFinding:
    counts = Counter(opinion.subtype for opinion in blaming)
    issue = min(counts, key=lambda name: (-counts[name], name))
    first = next(opinion for opinion in blaming if opinion.subtype == issue)
    number = len({opinion.trial for opinion in blaming})
    return QualityFinding(
        rule,
        "needs_review",
        issue,
        confidence,
        f"{who} {issue.replace('_', ' ')} in {number} trial{'s' if number > 1 else ''}: {first.root_cause.rstrip('.')}",
        first.recommendation,
        tuple(o.attempt for o in blaming if o.attempt),
        tuple(blaming),
    )


def _of_agents(trials: Sequence[TrialFacts], opinions: Sequence[EngineOpinion]) -> list[EngineOpinion]:
    """Return those about trials of other agents than the baselines, which speak for themselves."""
    baselines = {fact.step_id for fact in trials if fact.agent in BASELINES}
    return [opinion for opinion in opinions if opinion.trial not in baselines]


def _supported(finding: QualityFinding, opinions: Sequence[EngineOpinion]) -> QualityFinding:
    """Return the finding with the analyses of the trials that it is about, where they blame the task too."""
    if finding.analyses:
        return finding
    trials = {place.split("/")[1] for place in finding.evidence}
    support = tuple(o for o in opinions if o.blames and o.trial in trials)
    return finding._replace(analyses=support)


def _sound(trials: Sequence[TrialFacts]) -> QualityFinding:
    oracle, nop = _decided(trials, "oracle"), _decided(trials, "nop")
    if oracle and nop:
        said = f"oracle passed {len(oracle)} of {len(oracle)} and nop 0 of {len(nop)} scored trials"
        return _finding("baselines_right", {1: 0.7, 2: 0.8}.get(len(oracle), 0.9), said, "", [*oracle, *nop])
    missing = []
    for name, own in (("oracle", oracle), ("nop", nop)):
        if not own:
            ran = [fact for fact in trials if fact.agent == name]
            open_ones = [fact.undecided for fact in ran if fact.undecided]
            why = open_ones[0] if open_ones else "was not scored" if ran else "was not run"
            missing.append(f"{name} {why}")
    advice = "Have oracle and nop run on the task and come to a decided reward: without them nothing is known of it."
    return _finding("baselines_missing", 0.0, " and ".join(missing), advice, [])


def _recommendations(findings: Sequence[QualityFinding]) -> tuple[str, ...]:
    """Tell what to do, each once whatever its dots and capitals, the worst first."""
    said: dict[str, str] = {}
    for finding in findings:
        for text in (finding.recommendation, *(o.recommendation for o in finding.analyses)):
            if text.strip():
                said.setdefault(" ".join(text.split()).rstrip(".").casefold(), text.strip())
    return tuple(said.values())[:MOST_RECOMMENDATIONS]


def oracle(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """Return ``{present, ok, evidence}`` of the oracle; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "oracle"]
    scored = [fact for fact in own if fact.decided]
    passes = sum(fact.passed is True for fact in scored)
    stuck = [fact for fact in own if fact.result == "unscored" and fact.failure_class in TASKS_FAULT]
    evidence = _evidence("oracle", own, scored, passes)
    evidence += [f"{fact.step_id}: oracle was not scored ({fact.failure_class})" for fact in stuck]
    ok = None if not scored and not stuck else passes == len(scored) and not stuck
    return {"present": bool(own), "ok": ok, "evidence": evidence}


def nop(facts: Sequence[TrialFacts]) -> dict[str, Any]:
    """Return ``{present, ok, evidence}`` of the agent that does nothing; ``ok`` is None where it was never scored."""
    own = [fact for fact in facts if fact.agent == "nop"]
    scored = [fact for fact in own if fact.decided]
    passes = sum(fact.passed is True for fact in scored)
    ok = passes == 0 if scored else None
    return {"present": bool(own), "ok": ok, "evidence": _evidence("nop", own, scored, passes)}


def _evidence(name: str, own: Sequence[TrialFacts], scored: Sequence[TrialFacts], passes: int) -> list[str]:
    if not own:
        return [f"{name} was not run"]
    undecided = sum(fact.undecided is not None for fact in own)
    said = f"{name} passed {passes} of {len(scored)} scored trials ({len(own)} planned)"
    return [said, *([f"{undecided} of {name} are undecided"] if undecided else [])]
