"""From what an agent's events say of a failure to its class: by HTTP status, else by the words.

The words are those of Codex CLI 0.169 and Claude Code 2.1 and of the providers behind them; rules are tried from
top to bottom, and the first that fits decides.
"""

import re

from parallelhassnes.steps.kinds import Failure
from parallelhassnes.steps.untrusted import first_line

_WORDS: tuple[tuple[str, str], ...] = (
    ("task_definition", r"invalid schema|invalid_json_schema"),
    ("rate_limit", r"per[ -](second|minute|min\b|hour)|\b[rt]pm\b"),
    ("quota", r"quota|billing|credit balance|usage limit|insufficient[_ ]funds|hit your limit"),
    ("context_length", r"context window|context[_ ]length|prompt is too long|maximum context"),
    ("refusal", r"content[_ ]policy|usage policy|flagged|safety|cyber_policy|invalid_prompt"),
    ("unknown_model", r"model .{0,120}(does not exist|not found|not supported|may not exist)|model_not_found"),
    ("auth", r"\b401\b|\b403\b|unauthori[sz]ed|forbidden|authenticat|api key|not logged in|please run /login|token expired"),
    ("rate_limit", r"\b429\b|too many requests|rate[ _-]?limit"),
    ("overloaded", r"\b529\b|\b503\b|overloaded|at capacity|high demand|service unavailable"),
    ("transient_provider", r"\b5\d\d\b|stream (disconnected|closed|error)|connection|timed? ?out|reset by peer|network|temporar"),
)  # fmt: skip
_STRONG = frozenset({"task_definition", "quota", "context_length", "refusal", "unknown_model"})
"""Classes whose words say more than a status can."""
_STATUS = {
    401: "auth", 402: "quota", 403: "auth", 404: "unknown_model", 413: "context_length", 429: "rate_limit",
    503: "overloaded", 529: "overloaded",
}  # fmt: skip
_STATUS_IN_TEXT = re.compile(r"(?:status:?|api error:?|rejected) \(?(\d{3})\b", re.IGNORECASE)
CODEX_5XX = "We’re currently experiencing high demand, which may cause temporary errors."
"""What Codex says for a 500, which is no overload."""


def classify(message: str, status: int | None = None) -> Failure:
    """The failure that an agent's events speak of.

    Args:
        message: what the event says.
        status: the provider's HTTP status, where the event has it.
    """
    if status is None and (found := _STATUS_IN_TEXT.search(message)):
        status = int(found[1])
    line = first_line(message) or "its provider refused and did not say why"
    return Failure(_class(message, status), line, message)


def _class(message: str, status: int | None) -> str:
    if message.strip() == CODEX_5XX:
        return "transient_provider"
    said = next((name for name, words in _WORDS if re.search(words, message, re.IGNORECASE)), None)
    if said in _STRONG:
        return said
    if status in _STATUS:
        return _STATUS[status]
    if status is not None and status >= 500:
        return "transient_provider"
    return said or "agent_error"
