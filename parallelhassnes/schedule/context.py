"""What every part of a pass is given."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from parallelhassnes.config import Config
from parallelhassnes.env_file import read_env_file
from parallelhassnes.schedule import configuration, ephemeral_secrets
from parallelhassnes.store import atomic, hosts, privacy, space
from parallelhassnes.store.evidence import seal
from parallelhassnes.store.layout import Layout

ENTRY_POINTS = "parallelhassnes.schedule.entry_points"
"""The module where a process of ours begins that may not be forked; by name, for it imports what starts one."""


class Options(BaseModel):
    """What was said on the command line of the tick; supervisors carry it on to the passes that they run."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    concurrency: int | None = None
    """Live attempts on this host at most, instead of the configured number."""
    limits: dict[str, int] = {}
    """Queue key → live attempts at most, besides the configured ones."""
    no_codex: bool = False
    """Answer agent steps by the deterministic stand-in."""
    is_pulled: bool = False
    """This runner's loop is one that somebody else starts and ends (``parallelhassnes runner``): the end of an attempt starts none."""
    environment_of: tuple[str, ...] | None = None
    """Batches that the environment variables of this process and its children are for; None for all (``credentials``)."""


@dataclass(frozen=True)
class Context:
    """One root, its configuration and the options in force."""

    layout: Layout
    config: Config
    options: Options = field(default_factory=Options)
    starts_attempts: bool = True
    """False in a process that must start none (a server): a pass is only wished for, and another process runs it."""

    @property
    def runner_id(self) -> str:
        """The name of this host under ``runners/``."""
        return self.layout.runner or self.config.runner_id

    @property
    def concurrency(self) -> int:
        return self.options.concurrency or self.config.concurrency

    def shortage(self) -> str | None:
        """Tell why nothing may start on this host now (disk, memory), in one line; None where there is enough."""
        return space.shortage(self.layout.runs, self.config)

    def secrets(self) -> dict[str, str]:
        """Return every variable at hand: the process's own, those of ``env_file``, what was lent; ``credentials`` has what a batch gets.

        Raises:
            BadEnvFile: the env_file is named and cannot be read.
        """
        return {**os.environ, **self.filed(), **ephemeral_secrets.known()}

    def filed(self) -> dict[str, str]:
        """Tell what stands in ``env_file``; nothing where none is named.

        Raises:
            BadEnvFile: it cannot be read.
        """
        if self.config.env_file is None:
            return {}
        return read_env_file(self.layout.root / self.config.env_file)


def open_context(root: Path, options: Options | None = None) -> Context:
    """Return the context of a root; sets this process's durability and file mode creation mask, for it and its children.

    Raises:
        UserError: the configuration is invalid and no earlier one is known, or ``runs/`` is private and another user's.
    """
    layout = hosts.standing(Layout(root.absolute()))
    atomic.set_temp(layout.temp)
    config = configuration.in_force(layout).config
    _settle(layout, config)
    return Context(layout, config, options or Options())


def renewed(ctx: Context) -> Context:
    """Return the context with the configuration as it is now; the same one where that has not changed."""
    config = configuration.in_force(ctx.layout).config
    if config is ctx.config:
        return ctx
    if config != ctx.config:
        _settle(ctx.layout, config)
    return replace(ctx, config=config)


def _settle(layout: Layout, config: Config) -> None:
    atomic.set_durable(config.durable)
    seal.set_private(config.private)
    privacy.set_mask(config.private)
    if config.private:
        privacy.check_owner(layout.runs)
        privacy.close(layout.runs)
