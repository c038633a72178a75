"""What rules quote: the lines of a trial's files that show what a rule has found; and looking up the quotes of engines.

A quote must stand word for word in a file of the trial, or it is struck out. It may be of several lines; spaces at the ends
of its lines and of the whole do not count, everything else counts. The line that an engine gave is corrected to where the words
stand. Each struck quote halves the confidence, and an answer without one that holds is worth ``MAX_WITHOUT`` at most.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.record import Quote
from parallelhassnes.steps.trial_data.trial_files import AgentAction, TrialFiles

TRIAL_RESULT = "trial/result.json"
READ = re.compile(r"(?<![\w/.-])/(tests|solution)(?=[/\s'\"`;|&)]|$)")
WRITE = re.compile(
    r"(?:>>?|\btee(?:\s+-a)?)\s*['\"]?/(?:tests|logs/verifier)/"
    r"|\bsed\s+-i\b[^\n;|&]*\s/tests/"
    r"|\b(?:cp|mv|ln|install)\b[^\n;|&]*\s/(?:tests|logs/verifier)(?:/[^\s;|&]*)?\s*(?:$|[\n;|&])"
)
ABSENT = re.compile(r"no such file or directory|cannot access|not found", re.IGNORECASE)


def words(files: TrialFiles, name: str, *words: str) -> Iterator[Quote]:
    """Yield the first line of the file that holds the words, as a quote."""
    for line, text in files.lines_with(name, *words):
        yield Quote(file=name, line=line, quote=text.strip()[:1000])
        return


def exception_name(case: Case) -> str:
    return case.exception[0] if case.exception else ""


def said(case: Case) -> str:
    """Return the exception, or the failure where none was recorded, in one line."""
    if case.exception is None:
        failure = case.files.report.get("failure")
        return str(failure.get("line")) if isinstance(failure, dict) else "no exception"
    name, message, _ = case.exception
    return short(f"{name}: {message}" if message else name)


def short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def exception_quotes(case: Case) -> tuple[Quote, ...]:
    """Tell where the exception's type stands: Harbor's trace, its result, our own record, or the report."""
    kind = exception_name(case)
    steps = [n for n in case.files.names if n.startswith("trial/steps/") and n.endswith("/exception.txt")]
    for name in ("trial/exception.txt", *steps, TRIAL_RESULT, "worker_error.json", "final.json"):
        text = case.files.text(name)
        if not kind or text is None:
            continue
        numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if kind in line]
        if numbered:
            line, text = numbered[-1]
            return (Quote(file=name, line=line, quote=text.strip()[:500]),)
    return tuple(words(case.files, "final.txt", ""))


def reward_quotes(case: Case) -> tuple[Quote, ...]:
    for name in (TRIAL_RESULT, "final.json"):
        quotes = tuple(words(case.files, name, '"reward"'))
        if quotes:
            return (quotes[0].model_copy(update={"quote": quotes[0].quote[:200]}),)
    return ()


def output_end(case: Case) -> tuple[Quote, ...]:
    """Return the last line that the tests printed."""
    for name in reversed(case.files.verifier_outputs):
        numbered = [
            (number, line)
            for number, line in enumerate((case.files.text(name) or "").splitlines(), 1)
            if len(line.strip()) > 2
        ]
        if numbered:
            return (Quote(file=name, line=numbered[-1][0], quote=numbered[-1][1].strip()[:1000]),)
    return ()


def tests_naming(files: TrialFiles, path: str) -> Iterator[Quote]:
    for name in files.tests:
        yield from words(files, name, path)


def command_quotes(case: Case, commands: list[AgentAction]) -> tuple[Quote, ...]:
    """Return the commands as they stand in the trajectory."""
    found = []
    for command in commands[:5]:
        lines = [line.strip() for line in command.text.splitlines()]
        told = next((line for line in lines if READ.search(line) or WRITE.search(line)), "")[:1000]
        quotes = [Quote(file=name, quote=told) for name in case.files.trajectories]
        found += [q for q in quotes if place(case.files, q) is not None]
    return tuple(found)


def read_secrets(case: Case) -> list[AgentAction]:
    """Return the commands that read below /tests or /solution and did not just hear that nothing is there."""
    found = []
    for command in case.files.commands:
        if not READ.search(command.text) or WRITE.search(command.text):
            continue
        step = case.files.steps[command.step - 1]
        if not ABSENT.search(str(step.get("observation") or "")):
            found.append(command)
    return found


def said_done(files: TrialFiles) -> bool:
    return any(
        isinstance(call, dict) and call.get("function_name") == "mark_task_complete"
        for step in files.steps
        for call in step.get("tool_calls") or []
    )


MAX_WITHOUT = 0.3
"""The highest confidence of an answer whose every quote was struck, or that has none."""
MIN_QUOTE = 3
"""Characters below which a quote proves nothing."""


class LookedUp(NamedTuple):
    """What became of an answer's quotes."""

    found: tuple[Quote, ...]
    struck: tuple[Quote, ...]
    confidence: float


def look_up(files: TrialFiles, quotes: Sequence[Quote], confidence: float) -> LookedUp:
    """Sort the quotes into those that stand in the trial's files and those that are not there."""
    found: list[Quote] = []
    struck: list[Quote] = []
    for quote in quotes:
        line = place(files, quote)
        if line is None:
            struck.append(quote)
        else:
            found.append(quote.model_copy(update={"line": line}))
    left = confidence * 0.5 ** len(struck)
    if not found:
        left = min(left, MAX_WITHOUT)
    return LookedUp(tuple(found), tuple(struck), round(left, 4))


def place(files: TrialFiles, quote: Quote) -> int | None:
    """Return the number of the line where the quote begins; None where it does not stand in that file.

    Of several places the one nearest to the line that the engine gave. Text inside a JSON file may also be quoted
    as it reads when its escapes are undone.
    """
    wanted = [line.strip() for line in quote.quote.strip().splitlines()]
    if len("".join(wanted)) < MIN_QUOTE:
        return None
    text = files.text(quote.file)
    if text is None:
        return None
    lines = text.splitlines()
    at = _starts(lines, wanted)
    if not at and quote.file.endswith(".json"):
        escaped = json.dumps(quote.quote.strip(), ensure_ascii=False)[1:-1]
        ascii_only = json.dumps(quote.quote.strip())[1:-1]
        at = [n for n, line in enumerate(lines, 1) if escaped in line or ascii_only in line]
    return min(at, key=lambda number: abs(number - (quote.line or 1))) if at else None


def _starts(lines: Sequence[str], wanted: Sequence[str]) -> list[int]:
    if len(wanted) == 1:
        return [number for number, line in enumerate(lines, 1) if wanted[0] in line]
    found = []
    for start in range(len(lines) - len(wanted) + 1):
        window = [line.strip() for line in lines[start : start + len(wanted)]]
        middle = window[1:-1] == list(wanted[1:-1])
        if middle and window[0].endswith(wanted[0]) and window[-1].startswith(wanted[-1]):
            found.append(start + 1)
    return found
