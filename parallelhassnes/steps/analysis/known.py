"""What is sure about a trial, for engines that have a model: the rules' findings in plain lines."""

from parallelhassnes.steps.analysis import proof, rules
from parallelhassnes.steps.analysis.case import Case


def facts(case: Case) -> list[str]:
    """What is sure about the trial, a line each, whether or not it decides anything."""
    files = case.files
    fact = files.facts
    reward = fact.undecided or ("not scored" if case.reward is None else f"verified reward {case.reward:g}")
    if case.scored and len(fact.rewards) > 1:
        some = list(fact.rewards.items())[:20]
        reward += f" (all rewards: {', '.join(f'{name} {value:g}' for name, value in some)})"
    elif case.failed or case.passed:
        reward += ", a pass" if case.passed else ", no pass"
    said = [f"{reward}; the attempt's status is {files.status}"]
    if case.exception is not None:
        said.append(
            f"an exception ended it or stands beside the reward: {proof.said(case)} (class {case.exception[2]})"
        )
    if files.steps:
        said.append(f"the agent took {len(files.steps)} steps and ran {len(files.commands)} commands")
    elif files.agent not in ("oracle", "nop"):
        said.append("there is no trajectory")
    said += [
        f"step {command.step} read below /tests or /solution: {proof.short(command.text)}"
        for command in proof.read_secrets(case)[:5]
    ]
    writes = [command for command in files.commands if proof.WRITE.search(command.text)]
    said += [
        f"step {command.step} wrote below /tests or /logs/verifier: {proof.short(command.text)}"
        for command in writes[:5]
    ]
    for agent, must in (("oracle", "must pass"), ("nop", "must not pass")):
        own = [other.facts for other in case.others if other.agent == agent and other.facts.decided]
        if own:
            passed = sum(fact.passed is True for fact in own)
            said.append(f"{agent} ({must}) passed {passed} of {len(own)} trials of this task")
    answer = rules.decide(case)
    if answer.outcome != "unknown":
        said.append(f"the rules conclude {answer.outcome}/{answer.subtype}: {answer.root_cause}")
    return said
