"""The store for coding agents, by the Model Context Protocol over standard input and output: ``parallelhassnes mcp``.

Nothing listens: a client starts the program and ends it, and what it may do was said on the command line, by the roles of the HTTP
interface. ``read`` lists, explains and shows; ``submit`` adds a tool that submits a table under a budget, after a dry run;
``operate`` adds the words of operators. Everything is one call of a function that the command line calls, too, and
stands in ledgers as done by ``mcp:<user>@<host>``. Attempts are started by a tick in a process of its own, and outlive the client.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes.actions.registry import ACTIONS, Action
from parallelhassnes.actions.submit import submit, validate
from parallelhassnes.admin.tokens import ROLES, Role
from parallelhassnes.attempt_data.follow_logs import open_logs
from parallelhassnes.errors import UserError, extra
from parallelhassnes.execute.processes import OURSELVES
from parallelhassnes.results import aggregate, collect, error_groups
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.store import atomic, identity
from parallelhassnes.store.evidence import ledger
from parallelhassnes.views import batch_scoreboard, explain, show
from parallelhassnes.views.system_scoreboard import newest_first, system_scoreboard

MOST_LOG = 40_000
"""Bytes of one answer's logs."""
_MOST_ROWS = 50
"""Failures, jobs or batches of one answer; how many there are is said."""
_ABOUT = (
    "ParallelHassnes runs batches of Harbor trials. A batch has jobs, a job has steps (BATCH/JOB/STEP), a step has attempts. "
    "Ids may be shortened, and `latest` is the newest batch. Ask explain why something does not run, and results for pass rates."
)


class Tools:
    """What the tools do; each is a method whose docstring the client is shown."""

    def __init__(self, root: Path, most_usd: float | None = None) -> None:
        self.root, self.most_usd = root, most_usd

    @contextmanager
    def _opened(self) -> Iterator[Context]:
        ctx = replace(open_context(self.root), starts_attempts=False)
        identity.check(ctx.layout)
        with ledger.speaking_for(f"mcp:{ledger.person()}"):
            yield ctx

    def _tick(self) -> None:
        """Have what may start started, by a process whose end ends no attempt."""
        command = [*OURSELVES, "parallelhassnes", "tick", "--quiet", "--root", str(self.root)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, process_group=0, check=False)

    # --- read -----------------------------------------------------------------------------------------

    def list_batches(self, experiment: str = "", limit: int = 20) -> dict[str, Any]:
        """List batches, newest first: state, counts of trials, experiment."""
        with self._opened() as ctx:
            board = system_scoreboard(ctx.layout)
        found = [line for line in sorted(board.batches, key=newest_first) if experiment in ("", line.experiment)]
        shown = found[: max(1, min(limit, _MOST_ROWS))]
        fields = {"batch_id", "state", "experiment", "source_name", "created_at", "held", "trials", "counts"}
        return {"total": len(found), "batches": [line.model_dump(mode="json", include=fields) for line in shown]}

    def batch_status(self, batch: str = "latest") -> dict[str, Any]:
        """Tell how one batch stands: counts by state, results by agent, what runs, what waits, what failed."""
        with self._opened() as ctx:
            board = batch_scoreboard.batch_scoreboard(ctx.layout, collect.choose(ctx.layout, batch).batch_ids[0])
        return _bounded(board.model_dump(mode="json"))

    def explain(self, target: str = "latest") -> dict[str, Any]:
        """Say why steps of a batch, job or step are where they are: what they wait for, or how they ended and what follows."""
        with self._opened() as ctx:
            return explain.explain(ctx, target).model_dump(mode="json")

    def show(self, target: str = "latest") -> dict[str, Any]:
        """Show what the store has on a batch, job, step or attempt: state, report, verdict, names of files."""
        with self._opened() as ctx:
            return _bounded(show.show(ctx.layout, target).model_dump(mode="json"))

    def results(self, batch: str = "latest", by: list[str] | None = None) -> dict[str, Any]:
        """Give pass rates with intervals, mean rewards, money and time per group; `by` takes agent, model, task, job, reward."""
        with self._opened() as ctx:
            found = aggregate.results(ctx.layout, collect.choose(ctx.layout, batch), by or aggregate.DEFAULT_BY)
        return _bounded(found.model_dump(mode="json"))

    def errors(self, batch: str = "latest") -> dict[str, Any]:
        """Group the failures of a batch by class and message, with how many attempts each has and where to look."""
        with self._opened() as ctx:
            found = error_groups.errors(ctx.layout, collect.choose(ctx.layout, batch))
        return _bounded(found.model_dump(mode="json"))

    def logs(self, target: str = "latest", file: str = "", lines: int = 200) -> dict[str, Any]:
        """Read the end of an attempt's logs, its agent's and its verifier's; of a step, job or batch the newest attempt's."""
        with self._opened() as ctx:
            found = open_logs(ctx.layout, target)
            texts, _ = found.tails(file or None, MOST_LOG)
            share = MOST_LOG // max(1, len(texts))
            cut = {name: "\n".join(text.splitlines()[-max(1, lines) :])[-share:] for name, text in texts.items()}
            return {"id": str(found.found), "ended": found.ended, "files": found.files(), "logs": cut}

    # --- submit ---------------------------------------------------------------------------------------

    def submit(
        self,
        table: dict[str, Any],
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        dry_run: bool = True,
        again: bool = False,
    ) -> dict[str, Any]:
        """Submit a launch table under a budget; with dry_run, the default, only say what it would run and what is wrong with it.

        A budget is needed, in USD or tokens: nothing more starts once it is spent. The same table again is the same batch,
        unless `again`. Relative paths are looked for in the root.
        """
        data = atomic.dumps(self._budgeted(table, budget_usd, budget_tokens)).encode()
        with self._opened() as ctx:
            folders = [ctx.layout.root]
            if dry_run:
                return {
                    "dry_run": True,
                    **validate(ctx, data, name="mcp.json", folders=folders).model_dump(mode="json"),
                }
            done = submit(ctx, data, name="mcp.json", folders=folders, again=again)
        self._tick()
        return {"dry_run": False, **done.model_dump(mode="json")}

    def _budgeted(self, table: dict[str, Any], usd: float | None, tokens: int | None) -> dict[str, Any]:
        if usd is None and tokens is None:
            raise UserError("a submission needs a budget", fix="give budget_usd or budget_tokens")
        if self.most_usd is not None and (usd is None or usd > self.most_usd):
            raise UserError(
                f"a submission may spend {self.most_usd:g} USD at most here", fix="give a smaller budget_usd"
            )
        own = table.get("budget")
        asked = {name: value for name, value in (("usd", usd), ("tokens", tokens)) if value is not None}
        if isinstance(own, dict):  # what the table says is not raised
            asked = {**own, **{name: min(value, own.get(name) or value) for name, value in asked.items()}}
        return {**table, "budget": asked}

    # --- operate --------------------------------------------------------------------------------------

    def action(self, action: Action) -> Callable[..., dict[str, Any]]:
        """Return the tool of an operator's word."""

        def do(target: str, reason: str = "") -> dict[str, Any]:
            if action.needs_reason and not reason.strip():
                raise UserError(f"{action.name} needs a reason")
            with self._opened() as ctx:
                done = action.do(ctx, target, reason)
            self._tick()
            return {"lines": done.lines()}

        return do


_READ = ("list_batches", "batch_status", "explain", "show", "results", "errors", "logs")


class _Sdk(NamedTuple):
    """What is taken of the official package, whose second version has other names for it."""

    server: Any
    tool_error: Any
    annotations: Any


def _sdk() -> _Sdk:
    with extra("mcp", "the Model Context Protocol needs"):
        import mcp.types
    name = "mcpserver" if find_spec("mcp.server.mcpserver") else "fastmcp"
    module = import_module(f"mcp.server.{name}")
    errors = import_module(f"mcp.server.{name}.exceptions")
    made = module.MCPServer if name == "mcpserver" else module.FastMCP
    return _Sdk(made, errors.ToolError, mcp.types.ToolAnnotations)


def server(root: Path, role: Role, most_usd: float | None = None) -> Any:
    """Return the server with the tools that a role has.

    Args:
        most_usd: what one submission may ask for at most.

    Raises:
        UserError: the package of the protocol is not installed.
    """
    sdk = _sdk()
    tools, made = Tools(root, most_usd), sdk.server("parallelhassnes", instructions=_ABOUT, log_level="WARNING")
    may = ROLES[: ROLES.index(role) + 1]

    def add(function: Callable[..., dict[str, Any]], name: str, about: str | None, *, danger: bool | None) -> None:
        hints = {"readOnlyHint": danger is None, "destructiveHint": bool(danger)}
        told = _told(function, sdk.tool_error)
        made.add_tool(told, name=name, description=about, annotations=sdk.annotations.model_validate(hints))

    for name in _READ:
        function = getattr(tools, name)
        add(function, name, function.__doc__, danger=None)
    if "submit" in may:
        add(tools.submit, "submit", tools.submit.__doc__, danger=False)
    for action in ACTIONS if "operate" in may else ():
        if not action.by_hand:
            about = f"{action.help} {action.target_help}".strip()
            add(tools.action(action), action.name.replace("-", "_"), about, danger=action.danger)
    return made


def serve(root: Path, role: Role, most_usd: float | None = None) -> None:
    """Serve one client on standard input and output until it closes them.

    Raises:
        UserError: there is no store, or the package of the protocol is not installed.
    """
    made = server(root, role, most_usd)
    identity.check(open_context(root).layout)
    made.run("stdio")


def _told(function: Callable[..., dict[str, Any]], error_of_tool: type[Exception]) -> Callable[..., dict[str, Any]]:
    """Have what is wrong with a call told in the words of the command line."""

    @wraps(function)
    def call(*said: Any, **named: Any) -> dict[str, Any]:
        try:
            return function(*said, **named)
        except UserError as error:
            raise error_of_tool("\n".join(error.lines())) from None
        except (OSError, atomic.CorruptFile) as error:
            raise error_of_tool(atomic.describe_damage(error)) from None

    return call


def _bounded(document: dict[str, Any]) -> dict[str, Any]:
    """With the first of each long list, and how many more there are."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, list) and len(value) > _MOST_ROWS:
            found[name], found[f"{name}_left_out"] = value[:_MOST_ROWS], len(value) - _MOST_ROWS
        else:
            found[name] = value
    return found
