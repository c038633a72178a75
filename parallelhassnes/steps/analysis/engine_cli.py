"""The engines ``codex`` and ``claude``: the agents' own programs, once, read-only, in the trial's attempt folder."""

from parallelhassnes.steps.agent.adapters.agent_cli import NotInstalled
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import ask
from parallelhassnes.steps.analysis.engine import AnalysisEngine, EngineFailed, Question, Reply
from parallelhassnes.steps.analysis.record import Tokens


class CliEngine:
    """Asks a coding agent's program."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, question: Question) -> Reply:
        cli = agent(self.name)
        try:
            version = cli.version(question.environ)
            answer = ask(
                cli,
                question.prompt,
                question.case.files.attempt_dir,
                question.folder,
                environ=question.environ,
                schema=question.schema,
                model=question.settings.get("model"),
                timeout_sec=question.timeout_sec,
            )
        except NotInstalled as error:
            raise EngineFailed("task_definition", str(error)) from None
        if answer.failure is not None:
            failure = answer.failure
            raise EngineFailed(failure.failure_class, failure.line, failure.evidence)
        used = Tokens(input=answer.tokens.input, cache=answer.tokens.cache, output=answer.tokens.output)
        return Reply(answer.document, answer.model, f"{self.name} {version}", used, answer.cost_usd)


def codex() -> AnalysisEngine:
    return CliEngine("codex")


def claude() -> AnalysisEngine:
    return CliEngine("claude")
