"""How fast trials start in one environment: a token bucket each, so that 100 containers do not start at once.

    _system/starts/<environment>.json   what is left of the bucket, and whether a ready step waits for it

Written under ``tick.lock`` by the pass that launches; not derived, and safe to delete.
"""

import time
from pathlib import Path

from parallelhassnes.names import safe_id
from parallelhassnes.plan import Record, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_paths import environment_of
from parallelhassnes.store import atomic, batches, tickets
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump


class Bucket(Record):
    """What is left of an environment's starts."""

    environment: str
    tokens: float
    at: float
    """When it was last filled; seconds since the epoch."""
    waits: bool = False
    """A ready step was refused for lack of a token."""
    rate: float
    """Tokens per second; as many fit in."""

    def filled(self, now: float, rate: float) -> "Bucket":
        most = max(1.0, rate)
        tokens = min(most, self.tokens + max(0.0, now - self.at) * rate)
        return self.model_copy(update={"tokens": tokens, "at": now, "rate": rate})

    def started(self, now: float, rate: float) -> "Bucket":
        """As it is once the start has been made that a token was taken for; getting there may have taken long.

        The start counts from now on: what has come in meanwhile does not fit in beside the token.
        """
        whole = self.model_copy(update={"tokens": self.tokens + 1.0}).filled(now, rate)
        return whole.model_copy(update={"tokens": whole.tokens - 1.0})

    @property
    def next_at(self) -> float:
        """When it has a whole token."""
        return self.at + max(0.0, 1.0 - self.tokens) / self.rate


class Starts:
    """The buckets in one pass."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._now: dict[str, Bucket] = {}

    def environment(self, ticket_path: Path) -> str | None:
        """The environment with a start rate that the step of this ticket starts in; None where there is none."""
        if not self.ctx.config.start_rate or not ticket_path.name.endswith(".trial"):
            return None
        try:
            ticket = tickets.read(ticket_path)
        except FileNotFoundError:
            return None
        return self._named(batches.read_step(self.ctx.layout, ticket)[1])

    def _named(self, step: StepSpec) -> str | None:
        name = environment_of(step.spec.get("config") or {})
        return name if name in self.ctx.config.start_rate else None

    def take(self, environment: str) -> bool:
        """Take a token; False where there is none yet, which is noted."""
        bucket = self._bucket(environment)
        enough = bucket.tokens >= 1.0
        change = {"tokens": bucket.tokens - 1.0} if enough else {"waits": True}
        self._now[environment] = bucket.model_copy(update=change)
        return enough

    def started(self, environment: str) -> None:
        """Take in that the start was made that a token was taken for."""
        rate = self.ctx.config.start_rate[environment]
        self._now[environment] = self._now[environment].started(time.time(), rate)

    def give_back(self, environment: str) -> None:
        """A token that was taken for a step that did not start."""
        bucket = self._now[environment]
        self._now[environment] = bucket.model_copy(update={"tokens": bucket.tokens + 1.0})

    def save(self) -> None:
        """Write what changed: what was taken, and whether anybody waits."""
        for environment, bucket in self._now.items():
            path = _path(self.ctx.layout, environment)
            path.parent.mkdir(exist_ok=True)
            atomic.write_json(path, dump(bucket), durable=False)
        for bucket in waiting(self.ctx.layout):
            if bucket.environment not in self._now:
                path = _path(self.ctx.layout, bucket.environment)
                quiet = bucket.model_copy(update={"waits": False})
                atomic.write_json(path, dump(quiet), durable=False)

    def _bucket(self, environment: str) -> Bucket:
        if environment not in self._now:
            rate, now = self.ctx.config.start_rate[environment], time.time()
            fresh = Bucket(environment=environment, tokens=max(1.0, rate), at=now, rate=rate)
            filled = (_known(_path(self.ctx.layout, environment)) or fresh).filled(now, rate)
            self._now[environment] = filled.model_copy(update={"waits": False})
        return self._now[environment]


def waiting(layout: Layout) -> list[Bucket]:
    """The buckets that a ready step waits for."""
    paths = atomic.json_files(f"{layout.system}/starts")
    found = [bucket for path in paths if (bucket := _known(path)) is not None]
    return [bucket for bucket in found if bucket.waits]


def _known(path: Path | str) -> Bucket | None:
    """The bucket in a file; None where there is none, or one that is torn: it is full again then."""
    try:
        return atomic.read_record(Bucket, path)
    except atomic.DAMAGE:
        return None


def _path(layout: Layout, environment: str) -> Path:
    return layout.system / "starts" / f"{safe_id(environment)}.json"
