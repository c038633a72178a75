"""What a secret looks like in a file: the named values in each of their encodings, and the usual shapes of keys.

Named values are found as they are, as inside JSON, a Python repr, a URL, HTML, and inside base64 at any
alignment. Shapes (``sk-…``, ``AKIA…``, a PEM private key …) are found without anybody having named them.
"""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MIN_VALUE = 6
"""Characters below which a value is not looked for: ``1`` or ``true`` stand everywhere."""
_WRAPPED_FROM = 16
MAX_SHAPE = 16_384
"""No shape matches more bytes than these, so that a match never ends beyond what is held in memory."""


class Literal(NamedTuple):
    """One form of a named value."""

    name: str
    form: bytes
    digits: bool
    """The value is a number; what stands for it must be one, or JSON around it would break."""


class Wrapped(NamedTuple):
    """A form that may have line breaks in it, as base64 has every 64 or 76 characters."""

    name: str
    pieces: tuple[bytes, ...]
    """Of at most 30 bytes: one of them is unbroken wherever the breaks are."""
    form: bytes

    def pattern(self) -> re.Pattern[bytes]:
        """The form with a line break, as it is or as in JSON, between any two of its characters; slow to make."""
        characters = (re.escape(bytes([each])) for each in self.form)
        return re.compile(rb"(?:\r?\n|\\r?\\?n)?".join(characters))


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
    _shape(
        "bearer", "earer", r"\b[Bb]earer(?: |%20|\+){1,4}(?P<secret>[A-Za-z0-9._~+/=-]{20,4000})"
    ),
    _shape(
        "private-key",
        "PRIVATE",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.{1,15000}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    ),
)  # fmt: skip


def literals(values: Mapping[str, str]) -> list[Literal]:
    """Every form of every value, longest first, so that a form inside another does not spoil it."""
    found: dict[bytes, Literal] = {}
    for name, value in values.items():
        for part in _parts(value):
            for form in _forms(part):
                found.setdefault(form, Literal(name, form, form.isdigit()))
    return sorted(found.values(), key=lambda each: -len(each.form))


def wrapped(values: Mapping[str, str]) -> list[Wrapped]:
    """Every value in base64, wherever lines break."""
    found: dict[bytes, Wrapped] = {}
    for name, value in values.items():
        for part in _parts(value):
            raw = part.encode("utf-8", "surrogateescape")
            for form in (inner for shift in range(3) for inner in _base64(raw, shift)):
                if len(form) >= _WRAPPED_FROM:
                    found.setdefault(form, Wrapped(name, _pieces(form), form))
    return sorted(found.values(), key=lambda each: -len(each.pieces))


def _pieces(form: bytes) -> tuple[bytes, ...]:
    count = max(2, -(-len(form) // 30))
    size = -(-len(form) // count)
    return tuple(form[at : at + size] for at in range(0, len(form) - size // 2, size))


def _parts(value: str) -> Iterator[str]:
    """The value, the lines of one that has several, the password of one that is a URL."""
    if len(value.strip()) < MIN_VALUE:
        return
    yield value.strip()
    lines = value.split("\n")
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= 16)
    password = url_password(value)
    if password is not None and len(password) >= MIN_VALUE:
        yield password


_PUBLIC_NAME = re.compile(
    r"(?:^|_)(?:BASE|URL|URI|HOST|ENDPOINT|MODEL|REGION|PATH|DIR|HOME|USER|LANG|PORT)$"
)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH")


def is_public(name: str) -> bool:
    """Whether a variable by that name is no secret: ``OPENAI_BASE_URL``, ``MODEL``; only a password in it is one."""
    return bool(_PUBLIC_NAME.search(name)) and not _SECRET_NAME.search(name)


def looks_secret(name: str) -> bool:
    """Whether a variable by that name holds a secret, without anybody having said so."""
    return bool(_SECRET_NAME.search(name.upper()))


def url_password(value: str) -> str | None:
    """The password inside ``scheme://user:password@host``."""
    if "://" not in value or "@" not in value:
        return None
    try:
        return urllib.parse.urlsplit(value).password
    except ValueError:
        return None


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogateescape")
    yield raw
    quoted = urllib.parse.quote(value, safe="", errors="surrogateescape")
    spellings = {
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        repr(value)[1:-1],
        quoted,
        re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted),
        urllib.parse.quote_plus(value, errors="surrogateescape"),
        urllib.parse.quote(value, errors="surrogateescape"),
        html.escape(value),
        value.replace("'", "'\\''"),
        raw.hex(),
    }
    yield from (text.encode("utf-8", "surrogateescape") for text in spellings)
    for shift in range(3):
        yield from (inner for inner in _base64(raw, shift) if len(inner) < _WRAPPED_FROM)


def _base64(raw: bytes, shift: int) -> Iterator[bytes]:
    """The characters of base64 that depend on ``raw`` alone, where ``shift`` bytes are before it in its group of three."""
    encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
    start = (0, 2, 3)[shift]
    end = len(encoded) - (1 if (len(raw) + shift) % 3 else 0)
    inner = encoded[start:end]
    if len(inner) >= MIN_VALUE:
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
