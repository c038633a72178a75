"""What ``run`` says last, below its results: where the files are, and what to type next."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from parallelhassnes.store.layout import Layout, find_root
from parallelhassnes.views import endpoints
from parallelhassnes.views.scoreboard_models import BatchScoreboard


def lines(layout: Layout, board: BatchScoreboard) -> Iterator[str]:
    """Yield five lines: the files, a failure or the rates, the browser, a report, one's own task; and that a model's server is down."""
    root, program = root_option(layout), _program()
    batch = board.batch_id
    yield f"files:       {_short(layout.batch(batch))}"
    yield f"{_closer(board, program)}{root}"
    for line in endpoints.silent(layout, batch) if board.failures else ():
        yield f"server down: {line}; start it, then {program} retry {batch} --failed{root} and {program} tick --until-idle{root}"
    yield f"in browser:  {program} view {batch}{root}"
    yield f"report:      {program} report {batch} -o report.html{root}"
    yield f"own task:    {program} run PATH -a terminus-2 -m openai/gpt-5.2 --secret OPENAI_API_KEY{root}"


def _closer(board: BatchScoreboard, program: str) -> str:
    """Return the command that tells most of how the batch went."""
    batch = board.batch_id
    if board.failures:
        return f"a failure:   {program} show {shlex.quote(f'{batch}/{board.failures[0].step}')}"
    if board.broken_tasks:
        return f"broken task: {program} show {shlex.quote(f'{batch}/{board.broken_tasks[0].job}')}"
    if board.blocked or board.held:
        return f"it waits:    {program} explain {batch}"
    return f"rates:       {program} results {batch} --by agent,task"


def _program() -> str:
    """Return what starts this program here: its name, or the path of it where the shell would not find it."""
    if shutil.which("parallelhassnes"):
        return "parallelhassnes"
    own = Path(sys.executable).with_name("parallelhassnes")
    return shlex.quote(_short(own)) if own.exists() else f"{shlex.quote(sys.executable)} -m parallelhassnes"


def root_option(layout: Layout) -> str:
    """Return `` --root DIR`` where a command typed here would work on another root; else nothing."""
    return "" if find_root(Path.cwd()) == layout.root else f" --root {shlex.quote(_short(layout.root))}"


def _short(path: Path) -> str:
    """Return the path as it is typed here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
