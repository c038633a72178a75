"""Where everything lies. The one place that knows the names of the store's folders and files.

runs/_system/                    configuration snapshots, tick.lock, ingest.lock, pass.wanted
runs/_system/tmp/                content that waits for its rename
runs/_system/limits/<key>.json   what is known of a queue key: pauses, adaptive limit, operators' limits
runs/_system/starts/<env>.json   when trials in an environment with a start rate may start
runs/_tasks/<sha256>/            a task that was uploaded
runs/_system/tokens/<name>.json  who may use the HTTP interface, and for what
runs/_system/checkpoints/        how far the ledgers had come, signed
runs/_system/sessions/<sha256>.json  browsers that have logged in with a token
runs/_system/notices/new|told/   what people are to be told of, and what they were told of
runs/_system/archive/            what is to be sent to the archive, and how far that has come
runs/_system/imports/<batch_id>/…    attempts of another program on their way into a batch; under import.lock
runs/_system/sandboxes/<run_id>.json  sandboxes of trials at a provider's that may be up (steps/trial_data/remote_sandboxes.py)
runs/_queue/incoming/            tables, put there by rename
runs/_queue/accepted|rejected/   tables as submitted, with .ack.json or .error.json
runs/_queue/ready/<key>/<batch_id>/<chunk>/<ticket>    what could start now
runs/_queue/turns/<key>/…         whose turn it is among the batches that wait on a key
runs/_queue/delayed/…                                  what may start again later, by batch and by time
runs/_queue/running/<key>/<ticket>                     one per live attempt
runs/_queue/ended/<ticket>                             sealed, not settled yet
runs/_queue/added/<batch_id>     steps were added, and have no tickets yet
runs/_queue/blocked/<batch_id>.json                    why the ready steps of a batch are not started
runs/_system/directories/<hash>.lock                   held while an agent step works alone in a folder
runners/.hosts/                  who of several hosts has joined, and who decides (store/hosts.py)
runners/.credential.key          what marks of credentials are made with; not below runs/, which people share
worktrees/<batch_id>/<run_id>                          an agent step's isolated workspace
runs/<batch_id>/<job_id>/steps/<step_id>/attempts/<attempt>/
"""

import os
import re
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, override

from parallelhassnes import file_stamp, names
from parallelhassnes.file_stamp import FileStamp

SNAPSHOT, RETENTION_NOTES, AT_REST = "scoreboard.system.json", "retention.json", "at_rest.json"
KEPT_LOOKS = (SNAPSHOT, RETENTION_NOTES, AT_REST)
"""What looks at the whole store keep in ``_system`` of what they found; whoever looks next makes it anew."""


class ListedBatch(NamedTuple):
    """What is known of a batch without reading it."""

    arrival: str
    """What its arrival sorts by; empty for what is no batch of ours."""
    about: FileStamp | None
    """The version of its ``batch_meta.json``; None where that cannot be looked at."""


class Layout:
    """Paths of one root; makes none of them."""

    def __init__(self, root: Path, runner: str = "") -> None:
        """Name the paths of a root.

        Args:
            runner: the runner that this process belongs to, on a root of several hosts (``store.hosts``); empty on one of one host.
        """
        self.root = root
        self.runner = runner

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and (self.root, self.runner) == (other.root, other.runner)

    @override
    def __hash__(self) -> int:
        return hash((self.root, self.runner))

    @cached_property
    def runs(self) -> Path:
        return self.root / "runs"

    @cached_property
    def runners(self) -> Path:
        return self.root / "runners"

    @cached_property
    def hosts(self) -> Path:
        return self.runners / ".hosts"

    @cached_property
    def credential_key(self) -> Path:
        return self.runners / ".credential.key"

    @cached_property
    def pilots(self) -> Path:
        return self.runners / ".pilots"

    @cached_property
    def system(self) -> Path:
        return self.runs / "_system"

    @cached_property
    def queue(self) -> Path:
        return self.runs / "_queue"

    @cached_property
    def temp(self) -> Path:
        return self.system / "tmp"

    @cached_property
    def tick_lock(self) -> Path:
        return self.system / "tick.lock"

    @cached_property
    def tick_waiting(self) -> Path:
        return self.system / "tick.waiting"

    @cached_property
    def ingest_lock(self) -> Path:
        return self.system / "ingest.lock"

    @cached_property
    def waker_lock(self) -> Path:
        return self.runners / self.runner / "loop.lock" if self.runner else self.system / "waker.lock"

    @cached_property
    def checkpoint_lock(self) -> Path:
        return self.system / "checkpoint.lock"

    @cached_property
    def checkpoint_wanted(self) -> Path:
        return self.system / "checkpoint.wanted"

    @cached_property
    def configured(self) -> Path:
        return self.system / "harness_config.json"

    @cached_property
    def failing(self) -> Path:
        return self.system / "health.json"

    @cached_property
    def told(self) -> Path:
        return self.system / "told.json"

    @cached_property
    def at_rest(self) -> Path:
        return self.system / AT_REST

    @cached_property
    def starts(self) -> Path:
        return self.system / "starts"

    @cached_property
    def images(self) -> Path:
        return self.system / "images"

    @cached_property
    def limits(self) -> Path:
        return self.system / "limits"

    @cached_property
    def notices(self) -> Path:
        return self.system / "notices"

    @cached_property
    def archive(self) -> Path:
        return self.system / "archive"

    @cached_property
    def tasks(self) -> Path:
        return self.runs / "_tasks"

    @cached_property
    def imports(self) -> Path:
        return self.system / "imports"

    @cached_property
    def import_lock(self) -> Path:
        return self.system / "import.lock"

    @cached_property
    def gc_lock(self) -> Path:
        return self.system / "gc.lock"

    @cached_property
    def tokens(self) -> Path:
        return self.system / "tokens"

    @cached_property
    def sessions(self) -> Path:
        return self.system / "sessions"

    @cached_property
    def pass_wanted(self) -> Path:
        return self.system / "pass.wanted"

    @cached_property
    def incoming(self) -> Path:
        return self.queue / "incoming"

    @cached_property
    def accepted(self) -> Path:
        return self.queue / "accepted"

    @cached_property
    def rejected(self) -> Path:
        return self.queue / "rejected"

    @cached_property
    def tables_by_sha(self) -> Path:
        return self.queue / "by_sha256"

    @cached_property
    def ready(self) -> Path:
        return self.queue / "ready"

    @cached_property
    def turns(self) -> Path:
        return self.queue / "turns"

    @cached_property
    def delayed(self) -> Path:
        return self.queue / "delayed"

    @cached_property
    def running(self) -> Path:
        return self.queue / "running"

    @cached_property
    def ended(self) -> Path:
        return self.queue / "ended"

    @cached_property
    def blocked(self) -> Path:
        return self.queue / "blocked"

    @cached_property
    def added(self) -> Path:
        return self.queue / "added"

    def folders(self) -> tuple[Path, ...]:
        """Return every folder that a store has even when it is empty."""
        return (
            self.system,
            self.temp,
            self.system / "config_versions",
            self.incoming,
            self.accepted,
            self.rejected,
            self.tables_by_sha,
            self.ready,
            self.delayed,
            self.running,
            self.ended,
            self.blocked,
            self.added,
        )

    @cached_property
    def worktrees(self) -> Path:
        return self.root / "worktrees"

    def directory_lock(self, directory: Path) -> Path:
        """Return the lock of a folder in which one agent step at a time may run; of one below the root the same wherever the root is."""
        import hashlib

        place, root = directory.resolve(), self.root.resolve()
        named = f"{{root}}/{place.relative_to(root)}" if place.is_relative_to(root) else place
        digest = hashlib.sha256(os.fsencode(named)).hexdigest()[:32]
        return self.system / "directories" / f"{digest}.lock"

    def batch(self, batch_id: str) -> Path:
        return _below(self.runs, batch_id)

    def job(self, batch_id: str, job_id: str) -> Path:
        return _below(self.runs, batch_id, job_id)

    def step(self, batch_id: str, job_id: str, step_id: str) -> Path:
        return _below(self.runs, batch_id, job_id, "steps", step_id)

    def attempt(self, batch_id: str, job_id: str, step_id: str, attempt: str) -> Path:
        return _below(self.runs, batch_id, job_id, "steps", step_id, "attempts", attempt)

    def batch_ids(self) -> list[str]:
        """Return every batch that was ingested whole, in the order of arrival; before them folders of others that look like one.

        One that cannot be looked into is among them: whoever reads it is told.
        """
        return list(self.arrivals())

    def newest_batch(self) -> str | None:
        """Return the batch that arrived last; None where there is none."""
        return next((b for b, arrival in reversed(self.arrivals().items()) if arrival), None)

    def arrivals(self) -> dict[str, str]:
        """Return batch → what its arrival sorts by (``names.arrival_of``), in that order; empty for what is no batch of ours.

        By the batch's id, which this host made at its arrival; of older ids, which say when the table was last changed, and
        of names that we do not make, by the time that ``batch_meta.json`` begins with.
        """
        return {batch_id: found.arrival for batch_id, found in self.listed().items()}

    def listed(self) -> dict[str, ListedBatch]:
        """Return the same batches, in the same order, with what the look at each has told."""
        # Plain strings: there may be 10,000, and a Path costs more than a stat.
        runs = str(self.runs)
        try:
            found = [name for name in os.listdir(runs) if name[0] not in "_."]
        except FileNotFoundError:
            return {}
        metas = ((name, f"{runs}/{name}/batch_meta.json") for name in found)
        there = ((name, meta, stamp) for name, meta in metas if (stamp := _stamp(meta)) is not None)
        arrivals = [(names.arrival_in(name) or _arrival(name, meta, stamp), name, stamp) for name, meta, stamp in there]
        return {name: ListedBatch(arrival, stamp or None) for arrival, name, stamp in sorted(arrivals)}


def find_root(start: Path) -> Path:
    """Return the nearest folder from ``start`` upwards that holds a configuration, else ``start``.

    Inside a task's folder it is the folder above the task: a store within would be a part of the task.
    """
    for folder in (start, *start.parents):
        if (folder / names.CONFIG_NAME).is_file():
            return folder
    tasks = [folder for folder in (start, *start.parents) if (folder / "task.toml").is_file()]
    return tasks[-1].parent if tasks else start


@lru_cache(maxsize=256)
def _below(folder: Path, *names: str) -> Path:
    """Return a path; the same object for what is asked for again and again, which knows its text by then."""
    return folder.joinpath(*names)


_BEGINNING = 4096
_SAYS_ITSELF = re.compile(rb'"batch_id":\s*"([^"]+)"\s*,\s*"created_at":\s*"([^"]+)"')


@lru_cache(maxsize=1 << 14)
def _arrival(name: str, meta: str, _: FileStamp | tuple[()]) -> str:
    """Tell when a batch arrived by the beginning of its ``batch_meta.json``; empty where that is none of ours.

    A process that stays reads each version of the file once.
    """
    try:
        with open(meta, "rb") as stream:  # noqa: PTH123 - hot path
            said = _SAYS_ITSELF.search(stream.read(_BEGINNING))
        if said is None or said[1] != os.fsencode(name):
            return ""
        return names.arrival_of(datetime.fromisoformat(said[2].decode("ascii")).astimezone(UTC))
    except (OSError, ValueError):
        return ""


def _stamp(path: str) -> FileStamp | tuple[()] | None:
    """Tell which version of a file it is; None where there is none."""
    try:
        return file_stamp.at(path)
    except OSError:  # whoever reads the batch is told
        return ()
