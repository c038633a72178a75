"""From what a user types to what it names: a batch, a job, a step or an attempt.

Taken are ``BATCH``, ``BATCH/JOB``, ``BATCH/JOB/STEP``, ``BATCH/JOB/STEP/ATTEMPT``, each part whole or as a
prefix of one thing only; ``latest`` for the newest batch; an attempt's number, name or run id, the last
two also alone; and the path of any of these, as the scoreboards print it.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from parallelhassnes import names
from parallelhassnes.errors import UnknownId
from parallelhassnes.formatting import counted
from parallelhassnes.store import attempts, batches, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

LATEST = "latest"
SPEAK_OF_OTHERS = frozenset({"verdict", "baseline"})
"""Kinds of steps that do no work of their own: what they say is about other steps."""
_SHORTEST_RUN = 4
"""Characters of the shortest prefix that can be told from an attempt's number."""
_RUN_ID = re.compile(rf"(?:\d{{8}}T\d{{6}}Z_)?([a-z0-9]{{{_SHORTEST_RUN},12}})")


class Found(NamedTuple):
    """What an id names; the parts that it does not go down to are None."""

    batch_id: str
    job_id: str | None = None
    step_id: str | None = None
    attempt: str | None = None
    """Name of the attempt's folder."""

    @property
    def what(self) -> str:
        """``batch``, ``job``, ``step`` or ``attempt``."""
        return ("batch", "job", "step", "attempt")[len(self.parts) - 1]

    @property
    def parts(self) -> list[str]:
        return [part for part in self if part is not None]

    def __str__(self) -> str:
        return "/".join(self.parts)

    def folder(self, layout: Layout) -> Path:
        """Return its folder in the store."""
        if self.job_id is None:
            return layout.batch(self.batch_id)
        if self.step_id is None:
            return layout.job(self.batch_id, self.job_id)
        step_dir = layout.step(self.batch_id, self.job_id, self.step_id)
        return step_dir if self.attempt is None else step_dir / "attempts" / self.attempt


def resolve(layout: Layout, text: str) -> Found:
    """Tell what ``text`` names.

    Raises:
        UnknownId: nothing, or more than one thing; the nearest known names are in the message.
    """
    parts = _parts(layout, text)
    if not parts:
        raise UnknownId("an empty id names nothing", fix="name a batch, or latest")
    known = layout.batch_ids()
    if len(parts) == 1 and parts[0] != LATEST and not any(b.startswith(parts[0]) for b in known):
        by_run = _by_run_id(layout, known, parts[0])
        if by_run is not None:
            return by_run
    batch_id = _newest_batch(layout) if parts[0] == LATEST else _batch(known, parts[0])
    found = Found(batch_id)
    if len(parts) > 1:
        job_ids = batches.read_about(layout.batch(batch_id))["job_ids"]
        found = found._replace(job_id=_one(parts[1], job_ids, "job", batch_id))
    if len(parts) > 2:
        job = batches.read_job(found.folder(layout))
        found = found._replace(step_id=_one(parts[2], job.places, "step", str(found)))
    if len(parts) > 3:
        found = found._replace(attempt=_attempt(layout, found, parts[3]))
    return found


def newest_attempt(layout: Layout, text: str) -> Found:
    """Return the attempt that ``text`` names, or the newest one of the step, the job or the batch.

    Of a job or batch: the newest attempt of a step that works (trial, agent, command, analysis); of one that only speaks
    of others (verdict, baseline) where no other has been attempted.

    Raises:
        UnknownId: it names nothing, more than one thing, or something that was never attempted.
    """
    found = resolve(layout, text)
    return found if found.attempt is not None else _newest(layout, found)


def _newest(layout: Layout, found: Found) -> Found:
    if found.step_id is not None:
        places = [(found.job_id or "", found.step_id, True)]
    else:
        job_dirs = [found.folder(layout)] if found.job_id else batches.job_dirs(layout, found.batch_id)
        places = [
            (path.name, step.step_id, step.kind not in SPEAK_OF_OTHERS)
            for path in job_dirs
            for step in batches.read_job(path).steps
        ]
    newest: tuple[tuple[bool, str], Found] | None = None
    for job_id, step_id, works in places:
        ref = attempts.newest(layout.step(found.batch_id, job_id, step_id))
        if ref is not None and (newest is None or (works, ref.name) > newest[0]):
            newest = (works, ref.name), Found(found.batch_id, job_id, step_id, ref.name)
    if newest is None:
        raise UnknownId(f"{found} has not been attempted yet", fix="look at it with show")
    return newest[1]


def _parts(layout: Layout, text: str) -> list[str]:
    """Return the parts of an id; of a path those that name something."""
    text = text.strip().removeprefix(f"{layout.root}/").removeprefix("./").strip("/")
    parts = text.split("/") if text else []
    if parts[:1] == ["runs"]:
        parts = parts[1:]
    if len(parts) > 2 and parts[2] == "steps":
        parts = parts[:2] + parts[3:]
    if len(parts) > 3 and parts[3] == "attempts":
        parts = parts[:3] + parts[4:]
    if len(parts) > 4:
        raise UnknownId(f"{text} has too many parts", fix="write BATCH/JOB/STEP/ATTEMPT")
    return parts


def _newest_batch(layout: Layout) -> str:
    newest = layout.newest_batch()
    if newest is None:
        raise UnknownId("there is no batch yet", fix="submit a table")
    return newest


def _batch(known: list[str], text: str) -> str:
    endings = [batch_id for batch_id in known if batch_id.endswith(f"-{text}")]
    return endings[0] if len(endings) == 1 else _one(text, known, "batch", "the store")


def _one(text: str, known: Iterable[str], noun: str, within: str) -> str:
    known = list(known)
    if text in known:
        return text
    fitting = [name for name in known if name.startswith(text)] if text else []
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = ", ".join(fitting[:3]) + (" …" if len(fitting) > 3 else "")
        raise UnknownId(
            f"{text} is {len(fitting)} {noun}{'es' if noun == 'batch' else 's'}: {shown}", fix="write more of the name"
        )
    if known:
        newest = known[-3:][::-1] if noun == "batch" else known[:3]
        fix = f"there {'is' if len(known) == 1 else 'are'} {', '.join(newest)}{' …' if len(known) > 3 else ''}"
    else:
        fix = "it has none"
    raise UnknownId(f"{within} has no {noun} {text}", fix=names.did_you_mean(text, known, fix))


def _attempt(layout: Layout, found: Found, text: str) -> str:
    known = attempts.names(found.folder(layout))
    if text == LATEST and known:
        return known[-1]
    if text.isdecimal() and 1 <= int(text) <= len(known):
        return known[int(text) - 1]
    if text.isdecimal() and len(text) < _SHORTEST_RUN:  # a number, though names begin with it
        fix = f"its attempts are 1 to {len(known)}" if known else "it has none"
        raise UnknownId(f"{found} has no attempt {text}", fix=fix)
    by_run = [name for name in known if name.partition("_")[2].startswith(text)] if text else []
    return by_run[0] if len(by_run) == 1 else _one(text, known, "attempt", str(found))


def _by_run_id(layout: Layout, known: list[str], text: str) -> Found | None:
    """Return the attempt whose run id (or name) is or starts with ``text``, by the ledgers, newest batch first."""
    match = _RUN_ID.fullmatch(text)
    if match is None:
        return None
    run_id = match[1]
    pattern = re.compile(rb'^.*"run_id":"' + run_id.encode() + rb"[a-z0-9]*\".*$", re.MULTILINE)
    hits: dict[str, Found] = {}
    for batch_id in reversed(known):
        data = b""
        with members.apart(layout.batch(batch_id), lambda _: None):
            data = (layout.batch(batch_id) / ledger.LEDGER).read_bytes()
        for line in pattern.findall(data):
            try:
                event = json.loads(line)
                hit = Found(batch_id, event["job_id"], event["step_id"], event["attempt"])
                hits[event["run_id"]] = hit
            except (ValueError, KeyError):  # an unfinished or foreign line
                continue
        if run_id in hits:
            return hits[run_id]
    if len(hits) > 1:
        raise UnknownId(f"{text} is {counted(len(hits), 'attempt')}", fix="write more of the run id")
    return next(iter(hits.values()), None)
