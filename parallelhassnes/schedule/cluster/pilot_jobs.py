"""Pilots, the jobs of a cluster that are runners of this root: what was asked for, and Slurm's word on it.

    runners/.pilots/<pilot>.json    what was asked for, written before Slurm is; then with the job's id (``actions/pilots.py``)
    runners/.pilots/<pilot>.log     what the runner said; appended to
    runners/.slurm/pilots.json      Slurm's word on each of them, as the host that decides has had it last

That host asks every half minute, as long as one is not over, so that views tell why one waits and need not wait for Slurm.
"""

import shutil
import time
from typing import Literal, NamedTuple

from parallelhassnes.execute import slurm
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed
from parallelhassnes.store.records import parse_time

PREFIX = "parallelhassnes-"
"""A job's name holds its pilot's."""
OVER = "OVER"
"""Our own word: Slurm has no such job any more."""
LOOK_SEC = 30.0
_WORD = "pilots.json"


class Pilot(Record):
    """``<pilot>.json``."""

    schema_version: Literal[1] = 1
    pilot: str
    engine: Literal["slurm"] = "slurm"
    job_id: str | None = None
    """None where whoever asked for it has not lived to note it, or Slurm has refused."""
    asked_at: str
    options: tuple[str, ...]


class PilotWord(NamedTuple):
    """What Slurm says of a pilot."""

    job_id: str | None
    state: str
    """Empty where nobody has asked yet."""
    reason: str = ""
    """Why it is pending."""
    node: str = ""


def records(layout: Layout) -> list[Pilot]:
    """Return every pilot that is remembered, the oldest first."""
    found = []
    for name in members.names(layout.pilots):
        if name.endswith(".json"):
            with members.apart(layout.pilots / name):
                found.append(atomic.read_record(Pilot, layout.pilots / name))
    return sorted(found, key=lambda each: each.asked_at)


def are_wanted(layout: Layout) -> bool:
    """Tell whether any pilot is not known to be over, and Slurm can be asked here."""
    if not members.is_there(layout.pilots) or shutil.which("squeue") is None:
        return False
    known = words(layout)
    return any(known.get(each.pilot, _UNKNOWN).state != OVER for each in records(layout))


def word_on(record: Pilot, jobs: dict[str, slurm.ClusterJob]) -> PilotWord:
    """Tell what Slurm says of a pilot now.

    Args:
        jobs: by name, all of this user's that are not over.
    """
    job = jobs.get(PREFIX + record.pilot)
    if job is not None:
        return PilotWord(job.job_id, job.state, job.reason if job.state == "PENDING" else "", job.node)
    is_new = (
        time.time() - parse_time(record.asked_at) < LOOK_SEC and record.job_id is None
    )  # it is just being submitted
    return PilotWord(record.job_id, "" if is_new else OVER)


def note(layout: Layout, jobs: list[slurm.ClusterJob]) -> None:
    """Keep what Slurm says of every pilot, for those who only look."""
    live = {job.name: job for job in jobs if job.state in slurm.LIVE}
    said = {each.pilot: word_on(each, live)._asdict() for each in records(layout)}
    if said != {pilot: word._asdict() for pilot, word in words(layout).items()}:
        document = {"schema_version": 1, "pilots": said}
        atomic.write_json(layout.runners / handed.JOBS / _WORD, document, durable=False)


def words(layout: Layout) -> dict[str, PilotWord]:
    """Pilot → Slurm's word on it, as the host that decides has had it last."""
    said = atomic.read_derived(layout.runners / handed.JOBS / _WORD).get("pilots", {})
    try:
        return {pilot: PilotWord(**word) for pilot, word in said.items()}
    except (AttributeError, TypeError):  # of another version
        return {}


_UNKNOWN = PilotWord(None, "")
