"""What rules quote: the lines of a trial's files that show what a rule has found."""

import re
from collections.abc import Iterator

from parallelhassnes.steps.analysis.case import Case
from parallelhassnes.steps.analysis.evidence import place
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
    """The first line of the file that holds the words, as a quote."""
    for line, text in files.lines_with(name, *words):
        yield Quote(file=name, line=line, quote=text.strip()[:1000])
        return


def exception_name(case: Case) -> str:
    return case.exception[0] if case.exception else ""


def said(case: Case) -> str:
    """The exception, or the failure where none was recorded, in one line."""
    if case.exception is None:
        failure = case.files.report.get("failure")
        return str(failure.get("line")) if isinstance(failure, dict) else "no exception"
    name, message, _ = case.exception
    return short(f"{name}: {message}" if message else name)


def short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def exception_quotes(case: Case) -> tuple[Quote, ...]:
    """Where the exception's type stands: Harbor's trace, its result, our own record, or the report."""
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
    """The last line that the tests printed."""
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
    """The commands as they stand in the trajectory."""
    found = []
    for command in commands[:5]:
        lines = [line.strip() for line in command.text.splitlines()]
        told = next((line for line in lines if READ.search(line) or WRITE.search(line)), "")[:1000]
        quotes = [Quote(file=name, quote=told) for name in case.files.trajectories]
        found += [q for q in quotes if place(case.files, q) is not None]
    return tuple(found)


def read_secrets(case: Case) -> list[AgentAction]:
    """Commands that read below /tests or /solution and did not just hear that nothing is there."""
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
