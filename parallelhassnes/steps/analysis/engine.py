"""What an engine with a model is: the Protocol, what it is asked, what it hands back; and how programs and endpoints are asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from parallelhassnes.errors import UserError, extra
from parallelhassnes.steps.agent.adapters.by_name import agent
from parallelhassnes.steps.agent.ask import AgentAnswer, ask
from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.failure_evidence import failure_of_client
from parallelhassnes.steps.usage import Tokens, Usage

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

KEY = "OPENAI_API_KEY"


class EngineFailed(Exception):
    """An engine came to no answer: the analysis is missing, which says nothing about the trial."""

    def __init__(self, failure_class: str, line: str, evidence: str = "") -> None:
        super().__init__(line)
        self.failure_class, self.line, self.evidence = failure_class, line, evidence


@dataclass(frozen=True)
class Question:
    """What an engine is asked."""

    prompt: str
    schema: Mapping[str, Any]
    facts: Sequence[str]
    """What the rules have found."""
    case: Case
    name: str
    """Of a Harbor trial, should it take one."""
    folder: Path
    """An empty folder of its own, inside the analysis's attempt; not below TMPDIR."""
    settings: Mapping[str, Any]
    """The step's ``spec``: ``model``, ``base_url`` …"""
    environ: Mapping[str, str]
    timeout_sec: float


@dataclass(frozen=True)
class Reply:
    """What came back."""

    document: Any
    """Of the question's schema, if the engine kept to it; None where it said no JSON."""
    model: str | None = None
    version: str | None = None
    used: Usage = Usage()


class AnalysisEngine(Protocol):
    """Who looks at a trial. Implementations are stateless."""

    def ask(self, question: Question) -> Reply:
        """Ask once, in a conversation of its own.

        Raises:
            EngineFailed: it came to no reply; the class says whether another attempt may help.
        """


class ProgramEngine:
    """Asks a coding agent's own program, ``codex`` or ``claude``: once, read-only, in the trial's attempt folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, question: Question) -> Reply:
        answer, version = ask_program(
            self.name,
            question.prompt,
            question.case.files.attempt_dir,
            question.folder,
            model=question.settings.get("model"),
            environ=question.environ,
            timeout_sec=question.timeout_sec,
            schema=question.schema,
        )
        return Reply(answer.document, answer.model, f"{self.name} {version}", answer.used)


class EndpointEngine:
    """Asks an endpoint; see ``ask_endpoint``."""

    def ask(self, question: Question) -> Reply:
        done = ask_endpoint(
            question.settings,
            question.prompt,
            environ=question.environ,
            timeout_sec=question.timeout_sec,
            schema=question.schema,
        )
        return Reply(_document(done), done.model or question.settings["model"], None, _used(done))


def ask_program(
    name: str,
    prompt: str,
    folder: Path,
    work: Path,
    *,
    model: str | None,
    environ: Mapping[str, str],
    timeout_sec: float,
    schema: Mapping[str, Any] | None = None,
) -> tuple[AgentAnswer, str]:
    """Ask a coding agent's program once; its answer and its version. The folders are those of ``agent.ask.ask``.

    Raises:
        EngineFailed: it is not there, or its run failed.
    """
    cli = agent(name)
    try:
        version = cli.version(environ)
        answer = ask(cli, prompt, folder, work, environ=environ, schema=schema, model=model, timeout_sec=timeout_sec)
    except UserError as error:
        raise EngineFailed("task_definition", str(error)) from None
    if answer.failure is not None:
        raise EngineFailed(answer.failure.failure_class, answer.failure.line, answer.failure.evidence)
    return answer, version


def ask_endpoint(
    settings: Mapping[str, Any],
    prompt: str,
    *,
    environ: Mapping[str, str],
    timeout_sec: float,
    schema: Mapping[str, Any] | None = None,
    max_retries: int = 0,
) -> "ChatCompletion":
    """Ask any endpoint that speaks OpenAI's chat completions once, through the ``openai`` client.

    An endpoint that does not know JSON schemas is asked again without one.

    Args:
        settings: ``base_url`` (else OPENAI_BASE_URL, else OpenAI itself), ``model``, and ``key_name``: the environment
            variable that holds the key, OPENAI_API_KEY if it is left out.

    Raises:
        EngineFailed: no model is named, or the endpoint refuses.
    """
    try:
        with extra("models", "the engine api needs"):
            import openai
    except UserError as error:
        raise EngineFailed("configuration", str(error)) from None
    if not settings.get("model"):
        raise EngineFailed("configuration", "the engine api needs a model")
    key = environ.get(settings.get("key_name") or KEY) or "none"
    url = settings.get("base_url") or environ.get("OPENAI_BASE_URL")
    try:
        with openai.OpenAI(api_key=key, base_url=url, max_retries=max_retries, timeout=timeout_sec) as client:
            return _complete(client, settings["model"], prompt, schema)
    except openai.OpenAIError as error:
        failure = failure_of_client(error, url)
        raise EngineFailed(failure.failure_class, failure.line, failure.evidence) from None


def _complete(client: "OpenAI", model: str, prompt: str, schema: Mapping[str, Any] | None) -> "ChatCompletion":
    import openai

    messages: Any = [{"role": "user", "content": prompt}]
    if schema is not None:
        named = {"name": "analysis", "schema": dict(schema), "strict": True}
        shape: Any = {"type": "json_schema", "json_schema": named}
        try:
            return client.chat.completions.create(model=model, messages=messages, response_format=shape)
        except openai.BadRequestError as error:
            if "response_format" not in error.message:
                raise
        messages[0]["content"] += f"\nThe schema:\n{json.dumps(schema)}\nAnswer with the JSON object alone."
    return client.chat.completions.create(model=model, messages=messages)


def text_of(done: "ChatCompletion") -> str:
    """Return the answer's text; empty where it has none."""
    return (done.choices[0].message.content or "") if done.choices else ""


def _document(done: "ChatCompletion") -> Any:
    """Return the JSON of the answer, also inside a Markdown fence; None where there is none."""
    text = text_of(done)
    first, last = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[first : last + 1])
    except (ValueError, RecursionError):
        return None


def _used(done: "ChatCompletion") -> Usage:
    used = done.usage
    if used is None:
        return Usage()
    cached = used.prompt_tokens_details.cached_tokens if used.prompt_tokens_details else None
    return Usage(tokens=Tokens(used.prompt_tokens, cached, used.completion_tokens))
