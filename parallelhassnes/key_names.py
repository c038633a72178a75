"""Queue keys: the one spelling of each, and their names as folders and files."""

import re
import string
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.names import MAX_NAME, digest

MAX_KEY = 1000
"""Characters of the longest queue key."""


class KeyRule(NamedTuple):
    """One way of writing a model that is folded into the key of its provider."""

    pattern: str
    """Regular expression over the whole of the key, after lowercasing and dashes."""
    key: str
    """What it becomes; ``\\1`` is the first group."""
    why: str


KEY_RULES: tuple[KeyRule, ...] = (
    # Routes first: what they name has a quota of its own, whoever made the model.
    KeyRule(
        r"bedrock/(?:converse|converse-like|invoke)/(.+)",
        r"bedrock/\1",
        "the API form of Bedrock does not change the quota",
    ),
    KeyRule(
        r"((?:(?:us|eu|apac|au|ca|jp|global)\.)?(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek)\..+)",
        r"bedrock/\1",
        "a bare Bedrock id means Bedrock",
    ),
    KeyRule(
        r"(?:bedrock|azure|azure-ai|openrouter|groq|cerebras|fireworks-ai|deepinfra|replicate"
        r"|huggingface|nvidia-nim|sambanova|hosted-vllm|ollama|ollama-chat|lm-studio)/.+",
        r"\g<0>",
        "a route with its own quota stays apart, as it is written",
    ),
    KeyRule(r"together(?:-ai)?/(.+)", r"together-ai/\1", "two spellings of one route"),
    KeyRule(
        r"vertex-ai(?:-beta)?/(?:google/)?(gemini.*?)(?:[@-]latest|@default|@\d{8})*",
        r"google/\1",
        "one Gemini model is one key, however it is reached",
    ),
    KeyRule(
        r"vertex-ai(?:-beta)?/(?:anthropic/)?(claude.*?)(?:@latest|@default|@\d{8})*",
        r"vertex-ai/\1",
        "Claude on Vertex has its own quota and stays apart; a version after @ shares it",
    ),
    KeyRule(
        r"(?:anthropic/)?(claude-.+?)(?:[@-]latest|@default|[@-]\d{8})*",
        r"anthropic/\1",
        "a bare name means its maker; a dated snapshot shares its model's quota",
    ),
    KeyRule(
        r"(?:openai/)?(?:openai/|responses/|chat/)?((?:gpt-|chatgpt-|codex-|o[134](?:-|$)).*?)"
        r"(?:-latest|-\d{4}-\d{2}-\d{2}|@\d{8})*",
        r"openai/\1",
        "a bare name means its maker; a dated snapshot shares its model's quota",
    ),
    KeyRule(
        r"(?:(?:gemini|google|google-genai|google-ai-studio)/)?(?:models/)?(gemini-.+?)(?:[@-]latest)*",
        r"google/\1",
        "one Gemini model is one key, however it is reached",
    ),
    KeyRule(r"(?:gemini|google-genai|google-ai-studio)/(.+)", r"google/\1", "spellings of Google"),
    KeyRule(r"(?:(?:xai|x-ai|grok)/)?(grok-.+?)(?:-latest)*", r"xai/\1", "a bare name means its maker"),
    KeyRule(r"x-ai/(.+)", r"xai/\1", "two spellings of one provider"),
    KeyRule(r"(?:deepseek(?:-ai)?/)?(deepseek-.+)", r"deepseek/\1", "a bare name means its maker"),
    KeyRule(
        r"(?:mistral(?:ai)?/)?((?:open-)?(?:mistral|mixtral|ministral|magistral|codestral|devstral"
        r"|pixtral|voxtral)-.+?)(?:-latest)*",
        r"mistral/\1",
        "a bare name means its maker",
    ),
    KeyRule(r"mistralai/(.+)", r"mistral/\1", "two spellings of one provider"),
    KeyRule(r"(?:moonshot(?:ai)?/)?((?:kimi|moonshot)-.+?)(?:-latest)*", r"moonshot/\1", "a bare name means its maker"),
    KeyRule(r"(?:z-ai|zai|zhipuai|zai-org)/(.+)", r"zai/\1", "spellings of one provider"),
)
"""Tried in order; the first that matches the whole key decides; none leaves the key as it is.

``docs/queue-keys.md`` holds this table; a test compares the two.
"""


@lru_cache
def _compiled() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(rule.pattern), rule.key) for rule in KEY_RULES)


def normalise_queue_key(text: str, aliases: Mapping[str, str] | None = None) -> str:
    """Return the one spelling of a queue key: ``Claude Sonnet_4-5`` becomes ``anthropic/claude-sonnet-4-5``.

    ``aliases`` maps a key, or a pattern with ``*``, to the key to use instead; it is looked at before and
    after ``KEY_RULES``, and what an alias points to is final. Normalising twice changes nothing.

    Raises UserError where nothing is left to be a key.
    """
    return _normalise(text, tuple(aliases.items()) if aliases else ())


def queue_key(provider: str | None, model: str, aliases: Mapping[str, str] | None = None) -> str:
    """Return the key of a model; ``provider`` is put before a model that does not name it already."""
    if provider and not model.lower().startswith(f"{provider.lower()}/"):
        model = f"{provider}/{model}"
    return normalise_queue_key(model, aliases)


def agent_key(name: str) -> str:
    """Return the key of an agent that has no model: ``agent:oracle``."""
    return _shape(f"agent:{name}")


def key_rules_markdown() -> str:
    """Return ``KEY_RULES`` as the Markdown table of ``docs/queue-keys.md``."""
    rows = ["| # | the whole key matches | becomes | why |", "|---|---|---|---|"]
    for number, rule in enumerate(KEY_RULES, 1):
        cells = (rule.pattern, rule.key)
        shown = " | ".join(f"`{cell.replace('|', chr(92) + '|')}`" for cell in cells)
        rows.append(f"| {number} | {shown} | {rule.why} |")
    return "\n".join(rows) + "\n"


@lru_cache(maxsize=4096)
def _normalise(text: str, aliases: tuple[tuple[str, str], ...]) -> str:
    key = _shape(text)
    shaped = [(_shape(pattern), _shape(target)) for pattern, target in aliases]
    targets = {target for _, target in shaped}
    if key in targets:
        return key
    for candidate in (key, _fold(key)):
        for pattern, target in shaped:
            if fnmatchcase(candidate, pattern):
                return target
    return _fold(key)


def _fold(key: str) -> str:
    for pattern, template in _compiled():
        match = pattern.fullmatch(key)
        if match:
            folded = match.expand(template)
            # Makers write a version with a dot or with a dash; Anthropic's own ids have dashes.
            if re.match(r"(?:anthropic|vertex-ai)/claude-", folded):
                folded = re.sub(r"(?<=\d)\.(?=\d)", "-", folded)
            return _shape(folded)
    return key


def _shape(text: str) -> str:
    """Lowercase; runs of space, underscore and dash are one dash; no segment is empty or starts with ``-`` or ``.``."""
    if len(text) > MAX_KEY:
        raise UserError(f"a queue key of {len(text)} characters is too long", fix=f"use at most {MAX_KEY}")
    text = re.sub(r"[\s_-]+", "-", text.lower())
    slashed = []
    for part in text.split("/"):
        pieces = [piece.lstrip("-.").rstrip("-") for piece in part.split(":")]
        joined = ":".join(piece for piece in pieces if piece)
        if joined:
            slashed.append(joined)
    if not slashed:
        raise UserError(f"{text!r} is not a queue key", fix="write provider/model, such as openai/gpt-5.2")
    return "/".join(slashed)


# --- queue keys as file names -----------------------------------------------------------------------

_PLAIN = frozenset(string.ascii_lowercase + string.digits + ".-")
_DECODE = re.compile(
    r"(?P<plain>[a-z0-9.]|-)"
    r"|(?P<colon_escape>__)(?=-)"  # a segment never starts with a dash, so this is ':' and an escape
    r"|(?P<slash>__)"
    r"|_-(?P<hex>[0-9a-f]+)-"
    r"|(?P<colon>_)"
)


def key_dir(key: str) -> str:
    """Return a normalised queue key as a file name: ``/`` is ``__``, ``:`` is ``_``, other characters are ``_-<hex>-``.

    Different keys have different names. A name that would be over 128 characters is cut and ends in ``_-h`` and
    a hash. Raises UserError for a key that is not normalised.
    """
    if _shape(key) != key:
        raise UserError(f"{key!r} is not a normalised queue key", fix=f"write {_shape(key)!r}")
    name = "".join(
        character
        if character in _PLAIN
        else "__"
        if character == "/"
        else "_"
        if character == ":"
        else f"_-{ord(character):x}-"
        for character in key
    )
    return name if len(name) <= MAX_NAME else f"{name[:105]}_-h{digest(key, 20)}"


def key_from_dir(name: str) -> str:
    """Return the queue key whose ``key_dir`` is ``name``. Raises UserError for any other name, and for a cut one."""
    key, position = "", 0
    while position < len(name):
        match = _DECODE.match(name, position)
        if match is None:
            break
        group = match.lastgroup or ""
        if group == "colon_escape":
            # '__-': one underscore is the colon, the other belongs to the escape that follows.
            key, position = key + ":", position + 1
            continue
        if group == "hex":
            code = int(match["hex"], 16)
            key += chr(code) if code < 0x110000 else "\0"
        else:
            key += {"slash": "/", "colon": ":"}.get(group, match[0])
        position = match.end()
    try:
        if position == len(name) and name and key_dir(key) == name:
            return key
    except UserError:
        pass
    raise UserError(f"{name!r} is not the name of a queue key's folder")
