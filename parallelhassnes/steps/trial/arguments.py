"""Keeping values of variables out of process arguments, which every user of the host may read.

Harbor runs ``docker compose exec -e NAME=VALUE``. Compose takes the value from its own environment where there is only a name, so the
arguments get the names and the process the values. What Docker's programs read themselves stays as it is: the container's
``PATH`` must not become theirs.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

_DOCKERS_OWN = re.compile(
    r"(?:PATH|HOME|USER|PWD|TMPDIR|SHELL|TERM|LANG|(?:LD|LC|DOCKER|COMPOSE|BUILDKIT|BUILDX|XDG|SSH|GO|OTEL)_.*"
    r"|GODEBUG|GOMAXPROCS|SSL_CERT_(?:FILE|DIR))"
)
_values: ContextVar[dict[str, str]] = ContextVar("values")


def split(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """A Compose command with the names alone, and the values that go with them; only ``exec`` has any."""
    if command[:1] != ["exec"]:
        return command, {}
    made, values, at = [command[0]], {}, 1
    while at + 1 < len(command) and command[at] in ("-e", "-w", "-u"):
        option, value = command[at], command[at + 1]
        name, sign, rest = value.partition("=")
        if option == "-e" and sign and not _DOCKERS_OWN.fullmatch(name):
            value, values[name] = name, rest
        made += [option, value]
        at += 2
    return [*made, *command[at:]], values


def keep_values_out(environment: type[Any]) -> None:
    """Have Harbor's Docker environment pass values by the environment, in this process."""
    if hasattr(environment, "_keeps_values_out"):
        return
    environment._keeps_values_out = True  # noqa: SLF001 - Harbor offers no other place
    run: Callable[..., Awaitable[Any]] = environment._run_docker_compose_command  # noqa: SLF001
    variables: Callable[..., dict[str, str]] = environment._compose_env_vars  # noqa: SLF001

    @functools.wraps(run)
    async def run_by_names(self: Any, command: list[str], *args: Any, **kwargs: Any) -> Any:
        command, values = split(command)
        token = _values.set(values)
        try:
            return await run(self, command, *args, **kwargs)
        finally:
            _values.reset(token)

    @functools.wraps(variables)
    def with_values(self: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
        return {**variables(self, *args, **kwargs), **_values.get({})}

    environment._run_docker_compose_command = run_by_names  # noqa: SLF001
    environment._compose_env_vars = with_values  # noqa: SLF001
