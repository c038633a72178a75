"""What all who are at work in a run share, and how often they do what."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.store.layout import Layout
from tests.together import shapes
from tests.together.servers import Client, Server, Wrong


class Pace(NamedTuple):
    """How often what happens."""

    gap_sec: float = 4.0
    """Mean time from one table to the next: the queue is at times full and at times empty."""
    run_sec: float = 12.0
    """Mean time from the end of one ``run`` to the next."""
    trouble_sec: float = 40.0
    """Mean time from one server's end to the next."""
    cron_sec: float = 15.0
    """Time from one tick of cron to the next."""


class Made(NamedTuple):
    """A table."""

    shape: str
    label: str
    file: Path


class Together:
    """One run."""

    def __init__(self, root: Path, servers: list[Server], seed: int, pace: Pace, only: Sequence[str]) -> None:
        self.layout, self.servers, self.pace = Layout(root), servers, pace
        self._seed, self._only = seed, only
        self.marks = root / "marks"
        self.wrong = Wrong()
        self.stop = threading.Event()
        """Nothing more is submitted, and nobody starts anything new."""
        self.over = threading.Event()
        """Everything has run: who only listens ends."""
        self.made: dict[str, Made] = {}
        """Batch → what it was made from."""
        self.counts: Counter[str] = Counter({"server kills": 0, "server stops": 0})
        self.uploaded = ""
        """Where the uploaded task is stored."""
        self._lock = threading.Lock()
        self._number = 0
        self._to_come: list[str] = []

    def client(self, name: str) -> Client:
        return Client(self.servers, self.chance(name), self.wrong)

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def next_table(self) -> Made:
        """A table that was not there before: each shape once, in an order of chance, then again."""
        with self._lock:
            self._number += 1
            label = f"table-{self._number:05d}"
            made = shapes.tables(label, self.marks, self.uploaded)
            if not self._to_come:
                self._to_come = list(self._only)
                self.chance(label).shuffle(self._to_come)
            shape = self._to_come.pop()
        file = self.layout.root / "tables" / f"{label}.json"
        file.write_text(json.dumps(made[shape]))
        return Made(shape, label, file)

    def chance(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")
