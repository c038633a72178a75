"""Whether and how fast trials start in one environment: a token bucket each, so that 100 containers do not start at once.

Trials in Docker wait while its engine does not answer, instead of failing one after the other.

    _system/starts/<environment>.json   what is left of the bucket, and whether a ready step waits for it or for the engine

Written under ``tick.lock`` by the pass that launches; not derived, and safe to delete.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.names import safe_id
from parallelhassnes.plan import Record
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial.trial_paths import environment_of
from parallelhassnes.store import atomic, batches, clocks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets
from parallelhassnes.store.records import dump

_DOCKER = "docker"
_NO_RATE = 1000.0
"""Starts per second where none is set."""
_LOOK_SEC = 5.0
"""An engine that did not answer is asked again so often."""


class TokenBucket(Record):
    """What is left of an environment's starts."""

    environment: str
    tokens: float
    at: float
    """When it was last filled; seconds since the epoch."""
    waits: bool = False
    """A ready step was refused for lack of a token or of an engine."""
    down: str = ""
    """Why the environment's engine does not answer; empty where it does, or has none."""
    rate: float
    """Tokens per second; as many fit in."""

    def filled(self, now: float, rate: float) -> "TokenBucket":
        most = max(1.0, rate)
        tokens = min(most, self.tokens + max(0.0, now - self.at) * rate)
        return self.model_copy(update={"tokens": tokens, "at": now, "rate": rate})

    def started(self, now: float, rate: float) -> "TokenBucket":
        """As it is once the start has been made that a token was taken for; getting there may have taken long.

        The start counts from now on: what has come in meanwhile does not fit in beside the token.
        """
        whole = self.model_copy(update={"tokens": self.tokens + 1.0}).filled(now, rate)
        return whole.model_copy(update={"tokens": whole.tokens - 1.0})

    def next_at(self, now: float) -> float:
        """Tell when it has a whole token, or its engine is asked again."""
        most = _LOOK_SEC if self.down else max(0.0, 1.0 - self.tokens) / self.rate
        return clocks.latest(self.at + most, now, most)


class StartPlace(NamedTuple):
    """Where a trial starts."""

    environment: str
    needs_engine: bool
    """It needs the Docker engine that this process would use; not one that its step names."""


def _takes_default_engine(env: Mapping[str, str]) -> bool:
    from parallelhassnes.steps.trial import leftovers  # looks, which start nothing, need not load it

    return not leftovers.NAMED_BY & env.keys()


class StartRates:
    """The buckets in one pass."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._now: dict[str, TokenBucket] = {}
        self._engine: str | None = None
        """Why Docker's engine does not answer; None where nobody has asked yet."""

    def place(self, ticket_path: Path) -> StartPlace | None:
        """Tell where the step of this ticket starts; None where nothing is asked or counted there."""
        if not ticket_path.name.endswith(".trial"):
            return None
        try:
            ticket = tickets.read(ticket_path)
        except FileNotFoundError:
            return None
        step = batches.read_step(self.ctx.layout, ticket)[1]
        name = environment_of(step.spec.get("config") or {})
        needs_engine = name == _DOCKER and _takes_default_engine(step.env)
        return StartPlace(name, needs_engine) if needs_engine or name in self.ctx.config.start_rate else None

    def _rate(self, environment: str) -> float:
        return self.ctx.config.start_rate.get(environment, _NO_RATE)

    def take(self, place: StartPlace) -> bool:
        """Take a token; False where there is none yet or the engine does not answer, which is noted."""
        bucket = self._bucket(place.environment)
        down = self._down() if place.needs_engine else ""
        enough = bucket.tokens >= 1.0 and not down
        change = {"tokens": bucket.tokens - 1.0} if enough else {"waits": True, "down": down}
        self._now[place.environment] = bucket.model_copy(update=change)
        return enough

    def _down(self) -> str:
        if self._engine is None:
            from parallelhassnes.steps.trial import leftovers

            self._engine = ""
            with contextlib.suppress(UserError):  # of an env_file, which its batches wait for
                self._engine = leftovers.engine_trouble(self.ctx.secrets()) or ""
        return self._engine

    def started(self, place: StartPlace) -> None:
        """Take in that the start was made that a token was taken for."""
        name = place.environment
        self._now[name] = self._now[name].started(time.time(), self._rate(name))

    def give_back(self, place: StartPlace) -> None:
        """Give back a token that was taken for a step that did not start."""
        bucket = self._now[place.environment]
        self._now[place.environment] = bucket.model_copy(update={"tokens": bucket.tokens + 1.0})

    def save(self) -> None:
        """Write what changed: what was taken, and whether anybody waits."""
        for environment, bucket in self._now.items():
            path = _path(self.ctx.layout, environment)
            with members.apart(path):
                path.parent.mkdir(exist_ok=True)
                atomic.write_json(path, dump(bucket), durable=False)
        for bucket in waiting(self.ctx.layout):
            if bucket.environment not in self._now:
                path = _path(self.ctx.layout, bucket.environment)
                quiet = bucket.model_copy(update={"waits": False, "down": ""})
                with members.apart(path):
                    atomic.write_json(path, dump(quiet), durable=False)

    def _bucket(self, environment: str) -> TokenBucket:
        if environment not in self._now:
            rate, now = self._rate(environment), time.time()
            fresh = TokenBucket(environment=environment, tokens=max(1.0, rate), at=now, rate=rate)
            filled = (_known(_path(self.ctx.layout, environment)) or fresh).filled(now, rate)
            self._now[environment] = filled.model_copy(update={"waits": False, "down": ""})
        return self._now[environment]


def waiting(layout: Layout) -> list[TokenBucket]:
    """Return the buckets that a ready step waits for."""
    paths = atomic.json_files(layout.starts)
    found = [bucket for path in paths if (bucket := _known(path)) is not None]
    return [bucket for bucket in found if bucket.waits]


def held(layout: Layout) -> list[str]:
    """Return one line per environment whose trials wait for its engine."""
    return [f"trials in {bucket.environment} wait: {bucket.down}" for bucket in waiting(layout) if bucket.down]


def _known(path: Path | str) -> TokenBucket | None:
    """Return the bucket in a file; None where there is none, or one that is torn: it is full again then."""
    with members.apart(path, lambda _: None):
        return atomic.read_record(TokenBucket, path)
    return None


def _path(layout: Layout, environment: str) -> Path:
    return layout.starts / f"{safe_id(environment)}.json"
