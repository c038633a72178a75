"""What a secret looks like in a file: the named values in each of their encodings, and the usual shapes of keys.

Bytes are compared *squeezed*: without spaces, line ends, NULs and the separators of hex dumps, quotes and backslashes, in any
case. So one pattern finds a value as it is, wrapped, in UTF-16 and UTF-32, quoted for a shell or in JSON; hex in either case with or
without spaces; base64, base32 and base85 at any alignment and with line breaks. Escapes and
colour codes are resolved before (``escapes.py``). Shapes (``sk-…``, ``AKIA…``, a PEM private key …) are found in bytes as they
are, without anybody having named them.
"""

import base64
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, get_args

from parallelhassnes.config import FailureClass
from parallelhassnes.store.records import AttemptMeta, AttemptState

MIN_VALUE = 8
"""Characters below which a value is not looked for: ``1`` or ``true`` stand everywhere."""
MAX_SHAPE = 16_384
"""No shape matches more bytes than these, so that a match never ends beyond what is held in memory."""
BEFORE_MARK = 64
"""No match begins more bytes than these before the end of its mark."""
_LEFT_OUT = b"\0 \t\r\n:,-\\\"'"
_HARBORS_WORDS = """
reward rewards result results exception exception_info exception_type exception_message verifier_result agent_result
agent_info agent_execution environment_setup agent_setup verifier started_at finished_at trial_name task_name
trajectory metadata step_results cost_usd n_input_tokens n_output_tokens n_cache_tokens model_name observation
tool_calls completed
"""
_OUR_WORDS = """
succeeded needs_attention canceled cancelled running pending blocked skipped analysis baseline command summary
failure failure_class evidence schema_version artifacts files_read files_written infrastructure parallelhassnes
undefined password
"""


_PLACEHOLDERS = frozenset(
    {"none", "null", "empty", "dummy", "fake", "test", "unused", "xxx", "key", "local", "ollama", "vllm", "no-key"}
)


class Pattern(NamedTuple):
    """One form of a named value, squeezed."""

    name: str
    form: bytes
    """In lower case."""
    exact: bytes | None
    """The same in its own case, where that matters: base64 of another value may differ in case alone."""
    plain: bytes
    """As it mostly stands in a file: not squeezed."""


def squeezed(data: bytes) -> bytes:
    """Return the bytes in which patterns are looked for, in any case of letters."""
    return data.translate(None, _LEFT_OUT)


KEPT = bytes(byte not in _LEFT_OUT for byte in range(256))
"""Byte → 1 where ``squeezed`` keeps it."""


def patterns(values: Mapping[str, str]) -> list[Pattern]:
    """Return every form of every value that is looked for."""
    found: dict[bytes, Pattern] = {}
    for name, value in values.items():
        for part in _parts(value):
            for form, in_case in _forms(part):
                exact = squeezed(form)
                key = exact.lower()
                if len(key) >= _MIN_FORM:
                    found.setdefault(key, Pattern(name, key, exact if in_case else None, form.strip(_LEFT_OUT)))
    return sorted(found.values(), key=lambda each: -len(each.form))


_MIN_FORM = 6


def unfit(value: str) -> str | None:
    """Tell why a value cannot be a secret that is taken out of files: it would damage results. None where it can be looked for."""
    bare = value.strip()
    if len(bare) < MIN_VALUE:
        return f"has fewer than {MIN_VALUE} characters"
    if re.fullmatch(r"[-+]?[0-9][0-9.,_ ]*(?:[eE][-+]?[0-9]+)?", bare):
        return "is a plain number"
    if bare.lower() in _words():
        return "is a word that results consist of"
    return None


def is_placeholder(value: str) -> bool:
    """Tell whether a value only says that no key is needed, as servers of local models want it."""
    return len(value.strip()) <= 2 or value.strip().lower() in _PLACEHOLDERS


def _words() -> frozenset[str]:
    return frozenset(
        {
            *_HARBORS_WORDS.split(),
            *_OUR_WORDS.split(),
            *get_args(FailureClass.__value__),
            *AttemptState.model_fields,
            *AttemptMeta.model_fields,
        }
    )


class Shape(NamedTuple):
    """A usual shape of keys."""

    name: str
    marks: tuple[bytes, ...]
    """One of these is in every match: a cheap look before the expression."""
    pattern: re.Pattern[bytes]
    """What is in group ``secret`` is taken out, else the whole match."""


def _shape(name: str, marks: str, pattern: str) -> Shape:
    return Shape(name, tuple(marks.encode().split()), re.compile(pattern.encode(), re.DOTALL))


_WORD = "[A-Za-z0-9_-]"

SHAPES = (
    _shape("openai-key", "sk-", rf"sk-(?<![A-Za-z0-9]sk-)(?=[A-Za-z_-]{{0,60}}[0-9]){_WORD}{{20,400}}"),
    _shape("aws-key", "AKIA ASIA", r"A[KS]IA(?<![A-Za-z0-9]A[KS]IA)[0-9A-Z]{16}(?![A-Za-z0-9])"),
    _shape("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{30,255}"),
    _shape("github-token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
    _shape("gitlab-token", "glpat-", rf"glpat-{_WORD}{{20,255}}"),
    _shape("slack-token", "xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,255}"),
    _shape("google-key", "AIza", rf"AIza{_WORD}{{35}}"),
    _shape("huggingface-token", "hf_", r"hf_(?<![A-Za-z0-9_]hf_)[A-Za-z0-9]{30,255}"),
    _shape("npm-token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _shape("jwt", "eyJ", rf"eyJ{_WORD}{{8,4000}}\.eyJ{_WORD}{{8,8000}}\.{_WORD}{{16,2000}}"),
    _shape("bearer", "earer", r"\b[Bb]earer(?: |%20|\+){1,4}(?P<secret>[A-Za-z0-9._~+/=-]{20,4000})"),
    _shape(
        "private-key",
        "PRIVATE",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.{1,15000}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    ),
)


def _parts(value: str) -> Iterator[str]:
    """Yield the value, the lines of one that has several, the password of one that is a URL."""
    if unfit(value) is not None:
        return
    yield value.strip()
    lines = value.split("\n")
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= 16)
    password = url_password(value)
    if password is not None and unfit(password) is None:
        yield password


_PUBLIC_NAME = re.compile(r"(?:^|_)(?:BASE|URL|URI|HOST|ENDPOINT|MODEL|REGION|PATH|DIR|HOME|USER|LANG|PORT)$")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH")


def is_public(name: str) -> bool:
    """Tell whether a variable by that name is no secret: ``OPENAI_BASE_URL``, ``MODEL``; only a password in it is one."""
    return bool(_PUBLIC_NAME.search(name)) and not _SECRET_NAME.search(name)


def looks_secret(name: str) -> bool:
    """Tell whether a variable by that name holds a secret, without anybody having said so."""
    return bool(_SECRET_NAME.search(name.upper()))


_KEY_NAME = re.compile(r"(?:^|_)(?:API_?KEY|AUTH_TOKEN|OAUTH_TOKEN|API_TOKEN)$")


def is_key(name: str) -> bool:
    """Tell whether a client of a provider takes a variable by that name for its key."""
    return bool(_KEY_NAME.search(name.upper()))


def why_no_key(value: str) -> str:
    """Tell why no client can send a value as its key, without a character of it; empty for a good one.

    A key goes out in a header of HTTP, which takes visible ASCII. Of a client that is given another one not even a request
    comes, and what it says of that sounds like trouble of the network.
    """
    for number, character in enumerate(value, 1):
        if not " " <= character <= "~":
            kind = (
                "not ASCII" if character > "\x7f" else "a line break" if character in "\r\n" else "a control character"
            )
            return f"its character {number} of {len(value)} is {kind}"
    return ""


def url_password(value: str) -> str | None:
    """Return the password inside ``scheme://user:password@host``."""
    if "://" not in value or "@" not in value:
        return None
    try:
        return urllib.parse.urlsplit(value).password
    except ValueError:
        return None


def _forms(value: str) -> Iterator[tuple[bytes, bool]]:
    """Yield (form, whether its case matters) of a value."""
    raw = value.encode("utf-8", "surrogateescape")
    yield raw, True
    if not value.isascii():
        for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "latin-1"):
            yield value.encode(codec, "replace"), True
    if " " in value:
        yield raw.replace(b" ", b"+"), True  # as forms are sent
    yield raw.hex().encode(), False
    yield b"".join(b"0x%02x" % each for each in raw), False
    for inner in _inner(raw, base64.b64encode, 3, 4):
        yield inner, True
        yield inner.translate(bytes.maketrans(b"+/", b"-_")), True
    for inner in _inner(raw, base64.b32encode, 5, 8):
        yield inner, False
    for inner in _inner(raw, base64.b85encode, 4, 5):
        yield inner, True
    for inner in _inner(raw, base64.a85encode, 4, 5):
        yield inner, True


def _inner(raw: bytes, encode: Callable[[bytes], bytes], group: int, length: int) -> Iterator[bytes]:
    """Yield the characters that depend on ``raw`` alone, wherever it begins in a group of bytes.

    Args:
        group: bytes that are encoded together.
        length: characters that they become.
    """
    for shift in range(group):
        bits = 8 * group // length if 8 * group % length == 0 else 0
        if bits:  # each character is so many bits of the group
            encoded = encode(b"\0" * shift + raw + b"\0" * group)
            first, last = -(-8 * shift // bits), 8 * (shift + len(raw)) // bits
        else:  # a group is one number: only whole ones are the same whatever is around
            encoded = encode(b"\1" * shift + raw + b"\1" * group)
            first, last = length * -(-shift // group), length * ((shift + len(raw)) // group)
        inner = encoded[first:last]
        if len(inner) >= MIN_VALUE:
            yield inner
