"""The records of a benchmark: what goes to JSON and into the table."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel

from benchmarks.meter import Usage

type Unit = Literal["s", "ms", "MB", "count", "ratio"]
OURS = "parallelhassnes"


class Side(BaseModel):
    """One of the programs that are compared, and what each of its runs cost."""

    name: str
    command: list[str]
    runs: list[Usage] = []
    """The timed ones, in order; the n-th of each side were run one after the other."""
    memory: Usage | None = None
    """A run of its own whose memory was sampled."""


class Figure(BaseModel):
    """One number, with what it is held against."""

    measure: str
    """What was measured: ``wall``, ``CPU per job``."""
    unit: Unit
    ours: float
    """Median of our runs."""
    peer: float | None = None
    """Median of the peer's."""
    peer_name: str = ""
    ratio: float | None = None
    """Median of ours / peer's over the pairs."""
    pairs: list[float] = []
    """The ratio of each pair."""
    goal: float | None = None
    """At most this: a bound on ``ratio`` where there is one, else on ``ours``."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        return (self.ours if self.ratio is None else self.ratio) <= self.goal


class Row(BaseModel):
    """One piece of work."""

    name: str
    work: str
    """What is done, in words."""
    load_1min: float = 0.0
    """Load of the machine just before; other people's work spoils times."""
    sides: list[Side] = []
    figures: list[Figure] = []
    skipped: str | None = None
    """Why it was not measured."""


def compare(ours: Side, peer: Side, goals: dict[str, float]) -> list[Figure]:
    """Wall, CPU and memory of two sides whose runs were made in pairs."""
    figures = []
    for measure, key in (("wall", "wall_sec"), ("CPU", "cpu_sec")):
        here, there = values(ours, key), values(peer, key)
        pairs = [a / b for a, b in zip(here, there, strict=True)]
        figures.append(
            Figure(
                measure=measure,
                unit="s",
                ours=median(here),
                peer=median(there),
                peer_name=peer.name,
                ratio=median(pairs),
                pairs=pairs,
                goal=goals.get(measure),
            )
        )
    if ours.memory and peer.memory and ours.memory.peak_pss_bytes and peer.memory.peak_pss_bytes:
        here_mb, there_mb = ours.memory.peak_pss_bytes / 1e6, peer.memory.peak_pss_bytes / 1e6
        figures.append(
            Figure(
                measure="peak memory (PSS)",
                unit="MB",
                ours=here_mb,
                peer=there_mb,
                peer_name=peer.name,
                ratio=here_mb / there_mb,
                goal=goals.get("memory"),
            )
        )
    return figures


def values(side: Side, key: str) -> Sequence[float]:
    return [float(getattr(run, key)) for run in side.runs]
