"""What there is to go by when an attempt has failed: found in exceptions, their tracebacks, and what agents' programs left.

An agent inside a trial is a program whose output holds its model's prose, tool output and, at its end, an event or a line
that says why it gave up. Only the latter counts: a transcript that talks of rate limits is no rate limit. Harbor puts
the beginning and the end of that output into the exception's message; where the event is cut there, the log files under
the trial's ``agent/`` folder hold it whole. An agent on the host fails with an exception of its client's library, whose
traceback names the answer that it was made from (``Error code: 402 - {…}``).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.failures import RULES, Evidence, FailureVerdict, Phase, classify
from parallelhassnes.steps.step_types import Failure

PROGRAM_TYPES = frozenset(
    {
        "NonZeroAgentExitCodeError",
        "ApiError",
        "ApiRateLimitError",
        "ApiUsageLimitError",
        "ApiInternalServerError",
        "ApiOverloadedError",
        "ApiConnectionClosedError",
        "ApiResponseStalledError",
        "OutputTokenExceededError",
        "ContextWindowExceededError",
        "UnknownApiError",
        "ApiProviderResourceNotFoundError",
        "AgentSafetyRefusalError",
        "AgentAuthenticationError",
        "ModelNotFoundError",
        "NetworkConnectionError",
        "ApiConnectionError",
    }
)
"""Harbor's exceptions of an agent's program that ended badly; all but the first are Harbor's guess at the cause."""
_OF_OUTPUT = "Command failed (exit "
"""How the message of such an exception begins."""
_CUT = re.compile(r"\[\d+ chars truncated\]")
_LIBRARIES = re.compile(
    r"^(?:litellm|openai|anthropic|google\.(?:genai|api_core|auth)|botocore|httpx|httpcore|groq|mistralai|cohere)\b[\w.]*?\.(\w+): ?(.*)",
    re.MULTILINE,
)
"""A line of a traceback in which a client's library names its exception."""
_PROVIDER_TYPES = frozenset(
    name
    for rule in RULES
    for name in rule.types.split()
    if rule.name
    in (
        "rate type",
        "overload type",
        "key type",
        "quota type",
        "model type",
        "provider type",
        "refused, type",
        "refusal type",
        "unsupported parameter, type",
    )
) - PROGRAM_TYPES | {"APIStatusError", "ClientError", "ServerError", "ClientException"}
_STATUS = re.compile(
    r"(?:error code:?|status(?:[ _]?code)?[\"']?[:= ]|api[ _]error[ _]?status[\"']?:?|api error:?|last status:|http(?:/[\d.]+)?|(?:client|server) error '|rejected)"
    r"[\s(]*([45]\d\d)\b|^\W{0,3}([45]\d\d) (?-i:[A-Z<{])|\(([45]\d\d)\)",
    re.IGNORECASE | re.MULTILINE,
)
_BODY_STATUS = re.compile(r"\\*[\"'](?:code|status|status_?code)\\*[\"']\s*:\s*\\*[\"']?([45]\d\d)\b", re.IGNORECASE)
_CODE = re.compile(
    r"\\*[\"'](?:code|type|__type|status|error_?code|reason|name|error)\\*[\"']\s*:\s*\\*[\"']([\w.#:/-]{2,80}?)\\*[\"']",
    re.IGNORECASE,
)
_AWS = re.compile(r"error occurred \((\w+)\)|\b(\w+Exception)\b")
MOST_SAID = 20_000
_LOG_TAIL = 512 * 1024
_MOST_LOGS = 20
_MOST_LISTED = 2000
_FIRST = ("claude-code.txt", "codex.txt")
_LAST_LINES = 10
_ERROR_LINE = re.compile(
    r"^\W*(?:[\d:TZ./ -]{8,40}\W*)?(?:\[?api error|(?:fatal|unexpected|stream|provider|request|http)? ?error\b(?! handling)"
    r"|[\w.]*(?:Error|Exception)\b\s*[:(]|unexpected status \d{3})",
    re.IGNORECASE,
)


class Event(NamedTuple):
    """How a program's events say that it ended."""

    failed: bool
    said: str = ""
    status: int | None = None
    known: bool = True
    """False where there are events, and none of them is about the end."""


def of_provider(said: str, status: int | None = None, type_name: str = "") -> Evidence:
    """Tell what a provider's answer, or a program's event about it, gives to go by.

    Args:
        said: the message, or the body as it came: JSON, HTML or nothing.
        status: the HTTP status, where the event has it; else one is looked for in what was said.
    """
    said = said[:MOST_SAID]
    if status is None and (found := _STATUS.search(said) or _BODY_STATUS.search(said)):
        status = int(next(filter(None, found.groups())))
    codes = {code.rpartition("#")[2].lower() for code in _CODE.findall(said)}
    codes |= {name.lower() for pair in _AWS.findall(said) for name in pair if name}
    return Evidence(type_name, said, "agent", said, status, frozenset(codes))


def of_exception(
    type_name: str, message: str, phase: Phase | None, traceback: str = "", logs: Iterable[Path] = ()
) -> Evidence:
    """Tell what an exception gives to go by.

    Args:
        type_name: the exception's name; a qualified one counts by its last part.
        traceback: as ``traceback.format_exc`` makes it, with the exceptions that it was made from.
        logs: folders in which an agent's program may have left its output.
    """
    name = type_name.rsplit(".", 1)[-1]
    plain = Evidence(name, message, phase)
    if phase in ("create", "environment_setup"):
        return plain
    if name in PROGRAM_TYPES:
        return _of_program(plain, logs)
    chain = _LIBRARIES.findall(traceback[-200_000:])
    if name in _PROVIDER_TYPES:
        said = "\n".join(dict.fromkeys([message, *(text for _, text in reversed(chain))]))
    elif phase == "agent" and chain and name not in _OWN_TYPES:
        name, said = chain[-1][0], "\n".join(dict.fromkeys(text for _, text in reversed(chain)))
    elif phase == "agent" and name not in _OWN_TYPES and (_STATUS.search(message)):
        said = message
    else:
        return plain
    found = of_provider(said)
    return found._replace(type=name, message=message, phase=phase)


_OWN_TYPES = frozenset(
    name
    for rule in RULES
    for name in rule.types.split()
    if rule.name
    in ("canceled", "context type", "agent's deadline", "verifier", "environment type", "missing extra", "build")
)
"""Types that say themselves what happened."""


def verdict_of(
    type_name: str, message: str, phase: Phase | None, traceback: str = "", logs: Iterable[Path] = (), harbor: str = ""
) -> FailureVerdict:
    """Return the class of an exception; the arguments are those of ``of_exception``, and ``Evidence.harbor``."""
    return classify(of_exception(type_name, message, phase, traceback, logs)._replace(harbor=harbor))


def failure_of(said: str, status: int | None = None) -> Failure:
    """Return the failure that a provider's answer or a program's event speaks of; the arguments are those of ``of_provider``."""
    found = classify(of_provider(said, status))
    line = safe_read.first_line(said) or "its provider refused and did not say why"
    return Failure(found.failure_class, line, said, found.guessed)


def failure_of_client(error: Exception, where: str | None) -> Failure:
    """Return the failure that an exception of the ``openai`` client is; ``where`` is the endpoint's address."""
    body = getattr(error, "body", None)
    said = str(getattr(error, "message", "") or error)
    more = json.dumps(body, default=str)[:MOST_SAID] if isinstance(body, dict) else ""
    found = of_provider(f"{said}\n{more}".strip(), getattr(error, "status_code", None))
    verdict = classify(found._replace(type=type(error).__name__))
    line = f"{where or 'OpenAI'}: {safe_read.first_line(said)}"
    return Failure(verdict.failure_class, line, said, verdict.guessed)


def _of_program(plain: Evidence, logs: Iterable[Path]) -> Evidence:
    """Tell what an agent's program that ended badly gives to go by."""
    message, phase = plain.message, plain.phase
    output = message.partition("\nstdout: ")[2] if message.startswith(_OF_OUTPUT) else message
    output = output.replace("\nstderr: ", "\n")
    event = last_event(output)
    if not event.failed:
        event = next((found for text in _texts(logs) if (found := last_event(text)).failed), event)
    if event.failed:
        named = of_provider(event.said or "the program's last event names no cause", event.status)
        return named._replace(type=plain.type, message=message, phase=phase)
    said = _fragment(output) or "\n".join(_error_lines(output))
    if said:
        return of_provider(said)._replace(type=plain.type, message=message, phase=phase)
    # Harbor looks for words in all of the output. Where that is events, and none of them an error, the words are prose.
    prose = not event.known and not _CUT.search(output) and message.startswith(_OF_OUTPUT)
    return plain._replace(type="NonZeroAgentExitCodeError") if prose else plain


def last_event(output: str) -> Event:
    """Tell how the events in a program's output, JSON objects one a line, say that it ended."""
    found, seen = Event(False), False
    for line in map(str.strip, output.splitlines()):
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and "type" in event:
            seen = True
        told = _end(safe_read.mapping(event))
        found = told or found
    return found if found.failed or not seen else Event(False, known=False)


def _end(event: Mapping[str, Any]) -> Event | None:
    """Tell what one event says of the end; None where it is about something else."""
    kind, subtype = event.get("type"), safe_read.text(event.get("subtype")) or ""
    if kind == "result":
        if not event.get("is_error") and not subtype.startswith("error"):
            return Event(False)
        if subtype == "error_max_turns":
            return Event(True, "the agent used up its turns")
        said = safe_read.text(event.get("result"), MOST_SAID) or _words(event) or subtype
        return Event(True, said, safe_read.whole(event.get("api_error_status")))
    if kind == "turn.completed":
        return Event(False)
    if kind in ("turn.failed", "error") or (kind is None and event.get("error")):
        said = _words(event)
        return None if said.startswith("Reconnecting") else Event(True, said, _status(event))
    return None


def _words(event: Mapping[str, Any]) -> str:
    """Tell what an error event says: its message, and the whole of it below where that holds more."""
    error = event.get("error")
    own = safe_read.mapping(error)
    data = safe_read.mapping(own.get("data"))
    for holder in (own, data, event):
        message = safe_read.text(holder.get("message"), MOST_SAID)
        if message:
            more = {**own, **data}
            more.pop("message", None)
            return message if not more else f"{message}\n{json.dumps(more, default=str)[:2000]}"
    said = safe_read.text(error, MOST_SAID)
    if said:
        return said
    errors = [safe_read.text(each, 2000) or "" for each in safe_read.sequence(event.get("errors"))]
    return "; ".join(filter(None, errors))


def _status(event: Mapping[str, Any]) -> int | None:
    error = safe_read.mapping(event.get("error"))
    for holder in (event, error, safe_read.mapping(error.get("data"))):
        for key in ("status", "status_code", "statusCode", "api_error_status", "code"):
            found = safe_read.whole(holder.get(key))
            if found is not None and 400 <= found < 600:
                return found
    return None


def _fragment(output: str) -> str:
    """Return the end of an output whose last event was cut, if what is left is an error."""
    for line in reversed(output.splitlines()):
        if re.search(r'"api_error_status"\s*:\s*[45]\d\d|"type"\s*:\s*"turn\.failed"', line):
            return line
        if re.search(r'"is_error"\s*:\s*true', line) and '"type":"result"' in line.replace(" ", ""):
            return line
    return ""


def _error_lines(output: str) -> list[str]:
    """Of the last lines those in which a program says an error, and what follows them; events are none."""
    lines = [line.strip() for line in output.splitlines()]
    last = [line for line in lines if line and line != "None" and not line.startswith('{"type"')][-_LAST_LINES:]
    begin = next((n for n, line in enumerate(last) if _ERROR_LINE.match(line)), None)
    return [] if begin is None else last[begin:]


def _texts(folders: Iterable[Path]) -> Iterable[str]:
    """Yield the ends of the log files that an agent's program may have left, those of known programs first."""
    for folder in folders:
        if folder.is_symlink():
            continue
        try:
            with os.scandir(folder) as entries:
                listed = [entry.name for _, entry in zip(range(_MOST_LISTED), entries, strict=False)]
        except OSError:
            continue
        wanted = [n for n in listed if n.endswith((".txt", ".log", ".jsonl")) and n not in _FIRST]
        for name in [*(n for n in _FIRST if n in listed), *sorted(wanted)][:_MOST_LOGS]:
            data = safe_read.read_bytes(folder / name, _LOG_TAIL, end=True)
            if data:
                yield data.decode("utf-8", "replace")


MOST_SEC = 7 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_UNIT = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
_SPAN = rf"{_NUMBER}\s*{_UNIT}(?![a-z])(?:\s*{_NUMBER}\s*{_UNIT}(?![a-z]))*"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # The header, as clients print it: Retry-After: 30, 'retry-after': '30', retry_after=1.5 (seconds).
        rf"retry[-_ ]after(?:[-_](?P<unit>ms|seconds|sec))?[\"']?\s*[:=]?\s*[\"']?(?P<bare>{_NUMBER})(?![\d.]*\s*{_UNIT}(?![a-z]))",
        rf"retry[-_ ]after[\"']?\s*[:=]?\s*[\"']?(?P<span>{_SPAN})",
        # OpenAI: "Please try again in 6m0s"; Google: "retryDelay": "34s", "Please retry in 34.07s".
        rf"(?:try|retry)(?:ing)?(?: again)? (?:in|after) (?P<span>{_SPAN})",
        rf"retry_?delay[\"']?\s*[:=]?\s*[\"']?(?P<span>{_SPAN})",
        rf"(?:wait|resets? in|available in) (?P<span>{_SPAN})",
    )
)
_PART = re.compile(rf"({_NUMBER})\s*({_UNIT})", re.IGNORECASE)


def retry_after_sec(message: str) -> float | None:
    """Return the seconds to wait, 0 to a week; None where the message names no time."""
    for pattern in _PATTERNS:
        found = pattern.search(message[:20_000])
        if found is None:
            continue
        parts = found.groupdict()
        if parts.get("bare"):
            seconds = float(parts["bare"]) * (0.001 if parts.get("unit") == "ms" else 1.0)
        else:
            seconds = sum(float(n) * _factor(unit) for n, unit in _PART.findall(parts["span"] or ""))
        return min(seconds, MOST_SEC)
    return None


def _factor(unit: str) -> float:
    unit = unit.lower()
    return _UNITS["ms"] if unit.startswith(("ms", "milli")) else _UNITS[unit[0]]
