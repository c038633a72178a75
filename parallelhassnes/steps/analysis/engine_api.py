"""The engine ``api``: any endpoint that speaks OpenAI's chat completions, through the ``openai`` client.

``base_url`` (else OPENAI_BASE_URL, else OpenAI itself), ``model``, and ``key_name``: the environment variable that holds
the key, OPENAI_API_KEY if it is left out. An endpoint that does not know JSON schemas is asked again without one.
"""

import json
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps.analysis.engine import AnalysisEngine, EngineFailed, Question, Reply
from parallelhassnes.steps.analysis.record import Tokens
from parallelhassnes.steps.failure_evidence import failure_of_client

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

KEY = "OPENAI_API_KEY"


class ApiEngine:
    """Asks an endpoint."""

    def ask(self, question: Question) -> Reply:
        import openai

        settings = question.settings
        model = settings.get("model")
        if not model:
            raise EngineFailed("configuration", "the engine api needs a model")
        key_name = settings.get("key_name") or KEY
        url = settings.get("base_url") or question.environ.get("OPENAI_BASE_URL")
        client = openai.OpenAI(
            api_key=question.environ.get(key_name) or "none", base_url=url, max_retries=0, timeout=question.timeout_sec
        )
        try:
            done = _complete(client, model, question)
        except openai.OpenAIError as error:
            failure = failure_of_client(error, url)
            raise EngineFailed(failure.failure_class, failure.line, failure.evidence) from None
        finally:
            client.close()
        return Reply(_document(done), done.model or model, None, _tokens(done))


def _complete(client: "OpenAI", model: str, question: Question) -> "ChatCompletion":
    import openai

    schema = {"name": "analysis", "schema": dict(question.schema), "strict": True}
    shape: Any = {"type": "json_schema", "json_schema": schema}
    messages: Any = [{"role": "user", "content": question.prompt}]
    try:
        return client.chat.completions.create(model=model, messages=messages, response_format=shape)
    except openai.BadRequestError as error:
        if "response_format" not in error.message:
            raise
    told = f"\nThe schema:\n{json.dumps(question.schema)}\nAnswer with the JSON object alone."
    messages[0]["content"] += told
    return client.chat.completions.create(model=model, messages=messages)


def _document(done: "ChatCompletion") -> Any:
    """The JSON of the answer, also inside a Markdown fence; None where there is none."""
    text = (done.choices[0].message.content or "") if done.choices else ""
    first, last = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[first : last + 1])
    except (ValueError, RecursionError):
        return None


def _tokens(done: "ChatCompletion") -> Tokens:
    used = done.usage
    if used is None:
        return Tokens()
    cached = used.prompt_tokens_details.cached_tokens if used.prompt_tokens_details else None
    return Tokens(input=used.prompt_tokens, cache=cached, output=used.completion_tokens)


def api() -> AnalysisEngine:
    return ApiEngine()
