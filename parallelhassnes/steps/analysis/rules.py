"""The engine ``rules``: decides what the files prove, without a model, and says ``unknown`` where they prove nothing.

``RULES`` are tried in order and the first that fits decides; the same files give the same answer. ``docs/analyses.md``
holds the list and how it did against trials labelled by hand.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple, cast

from parallelhassnes.steps.analysis import proof
from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.record import Answer, Quote
from parallelhassnes.steps.analysis.taxonomy import Outcome, Subtype
from parallelhassnes.steps.failures import PROVIDER_CLASSES

VERSION = "1"


class RuleFinding(NamedTuple):
    """What a rule has proven."""

    outcome: Outcome
    subtype: Subtype
    confidence: float
    root_cause: str
    recommendation: str
    evidence: tuple[Quote, ...] = ()


type Check = Callable[[Case], RuleFinding | None]


class Rule(NamedTuple):
    """One row."""

    name: str
    proves: str
    """What it takes for proven, in a few words."""
    check: Check


def decide(case: Case) -> Answer:
    """Return the answer of the first rule that fits."""
    for rule in RULES:
        found = rule.check(case)
        if found is not None:
            return Answer(
                outcome=found.outcome,
                subtype=found.subtype,
                evidence=found.evidence[:20],
                root_cause=found.root_cause[:4000],
                recommendation=found.recommendation,
                confidence=found.confidence,
            )
    return Answer(
        outcome="unknown",
        subtype="unknown",
        root_cause="The files prove nothing.",
        recommendation="Have a model or a person look at it.",
        confidence=0.0,
    )


_FINDINGS = """\
canceled | harness_error | canceled | 1 | The trial was canceled. | Retry it if its result is wanted.
lost | harness_error | host | 1 | The trial's processes died with the host or its supervisor. | Retry it.
no network | harness_error | network | 0.9 | The agent could not reach the network: {said}. | Give it the network that it needs, or install it beforehand.
provider | harness_error | provider | 0.95 | The model's provider did not serve the agent: {said}. | Retry when the provider serves again; check key, quota and the model's name.
configuration | harness_error | install | 0.95 | Something is missing around the trial: {said}. | Give it the key, the model's name or the package that it names, then retry.
infrastructure | harness_error | {subtype} | 0.9 | The trial did not get to a result: {said}. | Mend the host or the network, then retry.
sandbox build | harness_error | image | 0.9 | The sandbox cannot build this task's environment: {said}. | Run the task in Docker.
definition | bad_failure | environment | 0.9 | What the task asks for cannot be set up: {said}. | Correct the task's environment or definition.
oracle without reward | bad_failure | brittle_tests | 0.95 | The tests give no reward for the task's own solution: {said}. | Have the tests write a reward in every case.
tests without reward | bad_failure | brittle_tests | 0.8 | The tests ended without a reward: {said}. | Have the tests write a reward in every case, also where the work is missing or wrong.
all without reward | bad_failure | brittle_tests | 0.85 | The tests come to no reward, for the task's own solution neither: {said}. | Have the tests write a reward in every case.
verifier | harness_error | verifier | 0.7 | The verifier came to no reward: {said}. | Retry; look whether the tests need longer than they are given.
no solution | bad_failure | missing_reference | 0.95 | The task has no solution. | Give the task a solution that passes its tests.
solution broke | bad_failure | broken_reference | 0.95 | The task's own solution does not come to an end: {said}. | Give the task a solution that passes its tests.
agent_timeout | good_failure | timeout | 0.85 | The agent's time was up before the work was done. | Give it more time, if other trials come close too.
context_length | good_failure | lost_context | 0.9 | The agent ran out of context. | Let it summarise, or take a model with more context.
refusal | good_failure | refused | 0.9 | The model refused. | Look at the instruction's wording.
not installed | harness_error | install | 0.85 | The agent's program was not there: {name}. | Install it in the environment, or retry.
agent crash | good_failure | agent_crash | 0.7 | The agent's own program broke: {said}. | Look at its log; retry once.
oracle passed | good_success | reference | 1 | The task's own solution passes its tests. | Nothing to do.
oracle varies | bad_failure | nondeterministic_tests | 0.95 | The task's own solution passed {passes} of {of} times. | Make the tests give the same reward for the same work.
oracle failed | bad_failure | broken_reference | 0.95 | The task's own solution does not pass its tests. | Correct the solution or the tests.
nop passed | bad_success | pre_solved | 1 | The tests pass although nothing was done. | Have the tests look at what was asked for.
nop failed | good_failure | no_action | 1 | Nothing was done, and the tests say so. | Nothing to do.
tampered | bad_success | tampered | 0.85 | The agent wrote to the tests or to the reward's folder. | Do not count it; keep tests and rewards out of the agent's reach.
leaked | bad_success | leaked_{what} | 0.8 | The agent read the task's {what} before it passed. | Do not count it; keep them out of the environment while the agent works.
passed idle | bad_success | pre_solved | 0.9 | The agent did nothing, and the tests pass. | Have the tests look at what was asked for.
nop passes too | bad_success | pre_solved | 0.9 | The tests also pass when nothing is done (nop). | Have the tests look at what was asked for.
nothing done | good_failure | no_action | 0.9 | The agent did not do a single thing in the environment. | Look at what the model answered.
same work | bad_failure | nondeterministic_tests | 0.85 | The same commands, word for word, passed in {step}. | Make the tests give the same reward for the same work.
unnamed file | bad_failure | underspecified | 0.9 | The tests look for {path}, which neither the instruction nor the environment names. | Name {name} in the instruction.
out of turns | good_failure | timeout | 0.7 | The agent's {most} turns were used up. | Give it more turns, if other trials come close too.
"""
"""Which finding, then outcome, subtype, confidence, root cause and recommendation."""
_BY_NAME = {cells[0]: cells[1:] for cells in ([c.strip() for c in row.split("|")] for row in _FINDINGS.splitlines())}


def _found(name: str, evidence: Iterable[Quote] = (), /, **words: object) -> RuleFinding:
    """Return the finding of that name, with what its texts leave open."""
    outcome, subtype, confidence, cause, advice = (cell.format(**words) for cell in _BY_NAME[name])
    return RuleFinding(
        cast("Outcome", outcome), cast("Subtype", subtype), float(confidence), cause, advice, tuple(evidence)
    )


def _excepted(name: str, case: Case, /, **words: object) -> RuleFinding:
    """Return a finding that the exception shows."""
    return _found(name, proof.exception_quotes(case), said=proof.said(case), **words)


# --- trials that were not scored -----------------------------------------------------------------------


def _stopped(case: Case) -> RuleFinding | None:
    match case.files.status:
        case "canceled":
            return _found("canceled", proof.words(case.files, "final.txt", "anceled"))
        case "lost":
            return _found("lost", proof.words(case.files, "final.txt", "ost"))
    return None


def _provider(case: Case) -> RuleFinding | None:
    if case.failure_class not in PROVIDER_CLASSES:
        return None
    is_network = proof.exception_name(case) == "NetworkConnectionError"
    return _excepted("no network" if is_network else "provider", case)


_IMAGE = re.compile(
    r"no such image|manifest unknown|pull access|failed to solve|dockerfile|build failed", re.IGNORECASE
)
_NOT_THERE = re.compile(r"nothing in \S+ matches")  # what the sandbox says of a COPY without its file
_NETWORK = re.compile(
    r"could not resolve|name resolution|network is unreachable|connection (?:refused|reset)", re.IGNORECASE
)
_NOT_INSTALLED = re.compile(r"command not found|exit (?:code|status) 127|not installed", re.IGNORECASE)


def _infrastructure(case: Case) -> RuleFinding | None:
    if case.failure_class == "configuration":
        return _excepted("configuration", case)
    if case.failure_class not in ("infrastructure", "internal"):
        return None
    name, message, _ = case.exception or ("", "", "")
    subtype: Subtype = "host"
    if name == "AgentSetupTimeoutError":
        subtype = "install"
    elif _NETWORK.search(message):
        subtype = "network"
    elif _IMAGE.search(message):
        subtype = "image"
    return _excepted("infrastructure", case, subtype=subtype)


def _definition(case: Case) -> RuleFinding | None:
    if case.failure_class != "task_definition":
        return None
    is_sandboxs = (
        case.files.trial.get("environment") == "sandbox"
        and not _NOT_THERE.search(case.exception[1] if case.exception else "")
        and proof.exception_name(case) == "SandboxBuildFailedError"
    )
    return _excepted("sandbox build" if is_sandboxs else "definition", case)


_WRITE_NO_REWARD = frozenset({"RewardFileNotFoundError", "RewardFileEmptyError", "VerifierOutputParseError"})


def _no_reward(case: Case) -> RuleFinding | None:
    if case.scored or case.failure_class != "verifier":
        return None
    quotes = (*proof.exception_quotes(case), *proof.output_end(case))
    name = "verifier"
    if case.files.agent == "oracle":
        name = "oracle without reward"
    elif proof.exception_name(case) in _WRITE_NO_REWARD:
        name = "tests without reward"
    elif any(other.agent == "oracle" and other.failure_class == "verifier" for other in case.others):
        name = "all without reward"
    return _found(name, quotes, said=proof.said(case))


def _reference_did_not_run(case: Case) -> RuleFinding | None:
    if case.files.agent != "oracle" or case.scored or case.failure_class is None:
        return None
    missing = case.files.task_dir is not None and not case.files.solutions
    return _excepted("no solution" if missing else "solution broke", case)


def _agent_ended(case: Case) -> RuleFinding | None:
    """Return the agent's own end, be there a reward below 1 beside it or none."""
    if case.passed or case.exception is None:
        return None
    name, message, kind = case.exception
    if kind in ("context_length", "refusal") or (kind == "agent_timeout" and case.files.agent != "oracle"):
        return _excepted(kind, case)
    if kind != "agent_error" or case.scored:
        return None
    return _excepted("not installed" if _NOT_INSTALLED.search(message) else "agent crash", case, name=name)


# --- baselines -------------------------------------------------------------------------------------------


def _oracle(case: Case) -> RuleFinding | None:
    if case.files.agent != "oracle" or not case.files.facts.decided:
        return None
    passes = case.passes_of("oracle")
    if case.passed:
        return _found("oracle passed", proof.reward_quotes(case))
    if (case.reward or 0) > 0:  # a part of it may be all that there is
        return None
    quotes = (*proof.reward_quotes(case), *proof.output_end(case))
    return _found("oracle varies" if any(passes) else "oracle failed", quotes, passes=sum(passes), of=len(passes))


def _nop(case: Case) -> RuleFinding | None:
    if case.files.agent != "nop" or not case.files.facts.decided:
        return None
    quotes = (*proof.reward_quotes(case), *proof.output_end(case))
    return _found("nop passed" if case.passed else "nop failed", quotes)


# --- passes of real agents -------------------------------------------------------------------------------


def _tampered(case: Case) -> RuleFinding | None:
    writes = [command for command in case.files.commands if proof.WRITE.search(command.text)]
    if not case.passed or not writes:
        return None
    return _found("tampered", proof.command_quotes(case, writes))


def _leaked(case: Case) -> RuleFinding | None:
    reads = proof.read_secrets(case)
    if not case.passed or not reads:
        return None
    what = "solution" if any("/solution" in command.text for command in reads) else "tests"
    return _found("leaked", proof.command_quotes(case, reads), what=what)


def _passed_untouched(case: Case) -> RuleFinding | None:
    if not case.passed:
        return None
    if case.files.steps and not case.files.commands:
        return _found("passed idle", proof.reward_quotes(case))
    return _found("nop passes too", proof.reward_quotes(case)) if any(case.passes_of("nop")) else None


# --- failures of real agents -----------------------------------------------------------------------------


def _nothing_done(case: Case) -> RuleFinding | None:
    if not case.failed or not case.files.steps or case.files.commands:
        return None
    return _found("nothing done", proof.reward_quotes(case))


def _same_work_passed(case: Case) -> RuleFinding | None:
    if not case.failed or not case.files.commands:
        return None
    own = [command.text for command in case.files.commands]
    for other in case.others:
        if other.facts.passed and [command.text for command in other.commands] == own:
            quotes = (*proof.reward_quotes(case), *proof.output_end(case))
            return _found("same work", quotes, step=other.step.step_id)
    return None


_PATH = re.compile(r"(?<![\w.*$}-])/(?!tests\b|logs\b|dev\b|proc\b|usr\b|bin\b|etc\b|solution\b)[\w.-]+(?:/[\w.-]+)+")
_MISSING = re.compile(
    r"no such file|cannot open|can't open|cannot stat|does not exist|not found|missing", re.IGNORECASE
)


def _unnamed_file(case: Case) -> RuleFinding | None:
    """Return the tests want a file by a name that nobody was told."""
    files = case.files
    if not case.failed or not files.commands or not files.instructions:
        return None
    told = " ".join(files.text(name) or "" for name in (*files.instructions, *files.environment))
    told += " ".join(files.environment)
    wanted = {
        path
        for name in files.tests
        for path in _PATH.findall(files.text(name) or "")
        if PurePosixPath(path).name not in told
    }
    for output in files.verifier_outputs:
        for path in sorted(wanted):
            for line, text in files.lines_with(output, path):
                if _MISSING.search(text):
                    shown = Quote(file=output, line=line, quote=text.strip()[:1000])
                    name = PurePosixPath(path).name
                    return _found("unnamed file", (shown, *proof.tests_naming(files, path)), path=path, name=name)
    return None


def _out_of_turns(case: Case) -> RuleFinding | None:
    if not case.failed:
        return None
    config = case.files.step.spec.get("config") or {}
    most = ((config.get("agent") or {}).get("kwargs") or {}).get("max_turns")
    turns = sum(step.get("source") == "agent" for step in case.files.steps)
    if not isinstance(most, int) or turns < most or proof.said_done(case.files):
        return None
    return _found("out of turns", proof.reward_quotes(case), most=most)


RULES: tuple[Rule, ...] = (
    Rule("stopped", "the attempt was canceled or lost", _stopped),
    Rule(
        "provider",
        "the failure is of a provider's class (limits, key, quota, no such model), or of the network to it",
        _provider,
    ),
    Rule("infrastructure", "the failure is of the host, the image, the network or the agent's set-up", _infrastructure),
    Rule("definition", "the environment cannot be built, or the task cannot be read", _definition),
    Rule("no_reward", "the tests ended without a reward", _no_reward),
    Rule("reference_did_not_run", "the task's solution is missing, or ended with an exception", _reference_did_not_run),
    Rule("agent_ended", "the agent ended by time, context, refusal or a crash, and did not pass", _agent_ended),
    Rule("oracle", "the task's own solution was scored", _oracle),
    Rule("nop", "the agent that does nothing was scored", _nop),
    Rule("tampered", "a passing agent wrote below /tests or /logs/verifier", _tampered),
    Rule("leaked", "a passing agent read below /tests or /solution, and something was there", _leaked),
    Rule("passed_untouched", "the tests pass without an action: of this agent, or of nop", _passed_untouched),
    Rule("nothing_done", "the trajectory holds no action, and the tests fail", _nothing_done),
    Rule("same_work_passed", "the same commands passed in another trial of the job", _same_work_passed),
    Rule(
        "unnamed_file",
        "the tests miss a file whose name is neither in the instruction nor in the environment",
        _unnamed_file,
    ),
    Rule("out_of_turns", "all turns were used, and the agent had not said that it was done", _out_of_turns),
)
