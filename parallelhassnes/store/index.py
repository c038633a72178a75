"""``index.json`` of a batch: its steps in one file, for views that must not open every ``job.json``.

Derived from the ``job.json`` files, written at ingest and by a rebuild. Shape: ``{"schema_version": 1, "jobs":
[[job_id, [[step_id, kind, label, queue_key, after, [dependency, …], flag …], …]], …]}``, in the table's order;
flags are there only where one is set.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import file_stamp
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.store import atomic

INDEX = "index.json"
_MOST_KEPT = 2 << 20
"""Bytes of an index that a process keeps between looks: some 30,000 steps."""


class IndexedStep(NamedTuple):
    """One step, as far as a view needs it."""

    step_id: str
    kind: str
    label: str
    queue_key: str
    after: str
    depends_on: list[str]
    gate: bool = False
    """Somebody must approve its start."""
    loop: bool = False
    """It takes turns with another step."""


def of(step: StepSpec) -> IndexedStep:
    """Return the entry of a step."""
    return IndexedStep(
        step.step_id,
        step.kind,
        step.label,
        step.queue_key,
        step.after,
        list(step.depends_on),
        step.gate is not None,
        step.loop is not None,
    )


_PLAIN = len(IndexedStep._fields) - len(IndexedStep._field_defaults)


def write(batch_dir: Path, jobs: Iterable[JobSpec]) -> None:
    document = [
        [job.job_id, [row if any(row[_PLAIN:]) else row[:_PLAIN] for row in map(of, job.steps)]] for job in jobs
    ]
    atomic.write_json(batch_dir / INDEX, {"schema_version": 1, "jobs": document}, durable=False)


def kept(batch_dir: Path) -> dict[str, list[IndexedStep]]:
    """As ``read``, which goes through the file once as long as it stays; nobody changes what is returned.

    Raises:
        FileNotFoundError, CorruptFile: as ``read``.
    """
    found = (batch_dir / INDEX).stat()
    if found.st_size > _MOST_KEPT:
        return read(batch_dir)
    return _kept(batch_dir, file_stamp.of(found))


@lru_cache(maxsize=8)
def _kept(batch_dir: Path, _as_of: FileStamp) -> dict[str, list[IndexedStep]]:
    return read(batch_dir)


def read(batch_dir: Path) -> dict[str, list[IndexedStep]]:
    """job_id → its steps.

    Raises:
        FileNotFoundError: the index is gone; ``doctor --rebuild`` writes it.
        CorruptFile: it is not one.
    """
    document = atomic.read_json(batch_dir / INDEX)
    try:
        # A batch may have 100,000 steps: with all its fields given, a tuple is made in half the time.
        make = IndexedStep._make
        return {
            job_id: [
                make((*fields, False, False)) if len(fields) == _PLAIN else IndexedStep(*fields) for fields in steps
            ]
            for job_id, steps in document["jobs"]
        }
    except (KeyError, TypeError, ValueError):
        raise atomic.CorruptFile(f"{batch_dir / INDEX}: is no index of steps") from None
