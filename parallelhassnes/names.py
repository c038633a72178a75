"""Names: safe ids, ids of batches and attempts, queue keys.

Ids become file names, so they are checked here before they touch a path. Everything else that is
written as a file name, a queue key above all, is encoded by an injective function of this module.
"""

import re
import string
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from parallelhassnes.errors import UserError

MAX_NAME = 128
"""Characters of the longest safe file name."""

BATCH_FILES = frozenset(
    {
        "batch_meta.json",
        "packed.tar.zst",
        "packed.seals.jsonl",
        "packed.json",
        "control.json",
        "index.json",
        "launch_table.json",
        "launch_table.yaml",
        "launch_table.yml",
        "ledger.jsonl",
        "scoreboard.batch.json",
        "scoreboard.shown.json",
        "spans.batch.json",
        "trials.batch.json",
    }
)
"""What lies in a batch's folder beside its jobs' folders, so that no job can be called so."""

MAX_KEY = 1000
"""Characters of the longest queue key."""

CONFIG_NAME = "parallelhassnes.toml"
"""A root's settings."""
_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_BATCH_ID_ALPHABET = "234567" + string.ascii_lowercase
"""In the order in which file names sort."""
_PARTS = 32 * 32
"""Into which an id divides a second."""
_ARRIVAL = len("20261121T013645Z-k3")
_BATCH_ID = re.compile(r"\d{8}T\d{6}Z-(?![0-9a-f]{8}$)[2-7a-z]{8}", re.ASCII)
_RUN_ID_ALPHABET = string.ascii_lowercase + string.digits


# --- ids --------------------------------------------------------------------------------------------


def is_safe_id(text: object) -> bool:
    """Tell whether ``text`` can be a file name as it is: ``[A-Za-z0-9._-]``, 1–128 characters, no leading dot."""
    return isinstance(text, str) and _SAFE_ID.fullmatch(text) is not None


def check_id(text: object, what: str) -> str:
    """Return ``text`` itself, if it is a safe id; ``what`` is the noun for the message (``job id``).

    Raises UserError.
    """
    if isinstance(text, str) and is_safe_id(text):
        return text
    shown = repr(text) if len(repr(text)) <= 60 else repr(text)[:57] + "..."
    raise UserError(
        f"{shown} is not a {what}", fix="use 1 to 128 of the characters A-Z a-z 0-9 . _ - and no leading dot"
    )


def as_folder(text: str) -> str:
    """Tell what a name is to a file system that folds names: two ids that are alike here would share one folder somewhere.

    Case and Unicode's ways of writing one character (macOS, Windows), dots and spaces at the end (Windows, SMB).
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text).casefold())
    return folded.rstrip(". ") or folded


class Ids(Collection[str]):
    """Names that are taken, beside which one that differs by no more than a file system may fold is taken too."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._names.setdefault(as_folder(name), name)

    def like(self, name: str) -> str | None:
        """Return the name that is taken and that this one would share a folder with."""
        return self._names.get(as_folder(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and as_folder(name) in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._names)


def safe_id(text: str, taken: Ids | None = None) -> str:
    """Return a safe id for any text, the same one every time: ``org/name`` becomes ``org-name``.

    Long ones are cut and get a short hash of the whole; one that is in ``taken`` gets ``-2``, ``-3`` …
    """
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", text, flags=re.ASCII).lstrip(".-").rstrip("-")
    if not base:
        base = f"x{_digest(text, 8)}"
    if len(base) > 96:
        base = f"{base[:87].rstrip('.-')}-{_digest(text, 8)}"
    if taken is None or base not in taken:
        return base
    number = 2
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"


def new_batch_id(now: datetime | None = None, after: str = "") -> str:
    """Return ``20261121T013645Z-k3mzq7ab``: sorts by time to the millisecond, has no dot. ``now`` must be aware of its zone.

    The first two characters behind the dash are the part of the second, the other six (30 bits) are random.

    Args:
        after: ``arrival_of`` the newest batch that the store has: a clock that went back makes no id before it.
    """
    arrival = arrival_of(now or datetime.now(UTC))
    if arrival <= after:
        arrival = _next(after)
    import secrets

    return arrival + "".join(secrets.choice(_BATCH_ID_ALPHABET) for _ in range(6))


def arrival_of(moment: datetime) -> str:
    """Return the part of a batch's id that says when it arrived; these sort by time."""
    part = moment.microsecond * _PARTS // 1_000_000
    return f"{_stamp(moment)}-{_BATCH_ID_ALPHABET[part // 32]}{_BATCH_ID_ALPHABET[part % 32]}"


def arrival_in(batch_id: str) -> str | None:
    """Return the same part of an id; None where it is no id of this form, or one of an earlier version, which says when the table
    was last changed.
    """
    return batch_id[:_ARRIVAL] if _BATCH_ID.fullmatch(batch_id) else None


def _next(arrival: str) -> str:
    """Return the arrival that follows at once."""
    moment = datetime.strptime(arrival[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    high, low = (_BATCH_ID_ALPHABET.index(char) for char in arrival[17:_ARRIVAL])
    part = high * 32 + low + 1
    # In the middle of its part of the second, so that no rounding brings it back.
    moment += timedelta(microseconds=(2 * part + 1) * 1_000_000 // (2 * _PARTS))
    return arrival_of(moment)


def new_run_id() -> str:
    """Twelve lowercase letters and digits (62 bits): unique in the store and beyond, also in lowercase."""
    import secrets

    return "".join(secrets.choice(_RUN_ID_ALPHABET) for _ in range(12))


def attempt_name(run_id: str, now: datetime | None = None) -> str:
    """Return the name of an attempt's directory: ``20261121T013645Z_<run_id>``."""
    return f"{_stamp(now)}_{run_id}"


def begun(attempt: str) -> datetime:
    """Tell when an attempt was prepared, by the name of its directory, to the second."""
    return datetime.strptime(attempt.partition("_")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def run_id_of(attempt: str) -> str:
    """Return the run id in the name of an attempt's directory."""
    return attempt.partition("_")[2]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` was probably meant to be; None where there is none."""
    lowered: dict[str, str] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), candidate)
    import difflib

    meant = word.lower()[:200]
    hits = difflib.get_close_matches(meant, lowered, n=5, cutoff=0.6)
    # Their order is by letters in common, which calls n_trials as near to n_trails as n_tasks is.
    return lowered[min(hits, key=lambda hit: edits(meant, hit))] if hits else None


def edits(one: str, other: str) -> int:
    """Count the letters that are put in, left out, changed, or changed for the next one to make one word of another.

    The optimal string alignment distance: two neighbours that changed places count once.
    """
    before, last = list[int](), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            least = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and (letter, one[row - 2]) == (other[column - 2], wanted)
            line.append(min(least, before[column - 2] + 1) if swapped else least)
        before, last = last, line
    return last[-1]


def did_you_mean(word: str, known: Iterable[str], otherwise: str, shown: Callable[[str], str] = str) -> str:
    """Return what to do about an unknown word: "did you mean X?", else ``otherwise``.

    Args:
        shown: writes the known word, such as ``repr``.
    """
    near = nearest(word, known)
    return f"did you mean {shown(near)}?" if near else otherwise


def suggestion(word: str, known: Iterable[str], otherwise: str = "known are", most: int = 10) -> str:
    """Return what to do about an unknown word: "did you mean X?", else the words that are known.

    Args:
        otherwise: what stands before these words.
        most: words that are shown.
    """
    known = list(dict.fromkeys(known))
    shown = [*known[:most], *(["…"] if len(known) > most else [])]
    return did_you_mean(word, known, f"{otherwise} {', '.join(shown) or 'none'}")


def _stamp(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _digest(text: str, length: int) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


# --- queue keys -------------------------------------------------------------------------------------


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
    return name if len(name) <= MAX_NAME else f"{name[:105]}_-h{_digest(key, 20)}"


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
