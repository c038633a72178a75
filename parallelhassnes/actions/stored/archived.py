"""What rules ask of an archive before files go because it has them: whether its newest head names an attempt, then whether it has it whole.

An archive that lacks what was put there before, or that has nothing at all where a rule below would decide instead, is not mounted, or was lost: that is
trouble, and not an answer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from parallelhassnes.actions.archive.push_batch import goes_on, ledger_bytes, opened
from parallelhassnes.actions.archive.read_attempt import prove
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.process import archiving
from parallelhassnes.store import atomic
from parallelhassnes.store.archives import remote_batch as remote
from parallelhassnes.store.archives.object_store import ObjectStore, StoreTrouble
from parallelhassnes.store.evidence import removals


class AskedArchive:
    """An archive while rules ask it; one that has not answered once is asked no more, and whatever it does not say keeps files here."""

    def __init__(self, ctx: Context, store: ObjectStore | None = None) -> None:
        """Begin.

        Args:
            store: the archive; the configured one where none is given, which is opened when it is asked.
        """
        self._ctx, self._store, self._is_down = ctx, store, False
        self._is_empty: bool | None = None
        self.troubles: list[str] = []
        """A line for each thing that it could not be asked, or that was not as it should be."""

    @property
    def address(self) -> str:
        """Where it is; empty as long as nobody has asked."""
        return self._store.address if self._store is not None else ""

    def named(self, batch_dir: Path, *, is_last: bool = True) -> frozenset[str] | None:
        """Return the SHA-256 of the seals of the attempts that the batch's newest head names; None where that cannot be told. No attempt is read.

        Args:
            is_last: what it lacks is kept; else files may go because it lacks them.
        """

        def look(store: ObjectStore) -> frozenset[str]:
            data, head = ledger_bytes(batch_dir), remote.newest_head(store, batch_dir.name)
            size = goes_on(store, head, data) if head is not None else 0
            self._check_has_what_it_had(store, batch_dir, size)
            if head is None and not is_last:
                self._check_is_any(store)
            return frozenset(remote.ended_attempts(remote.lines_of(data[:size])))

        return self._ask(batch_dir.name, look)

    def has_whole(self, batch_id: str, wanted: Mapping[str, str]) -> bool:
        """Read attempts there, and tell whether it has them all as they were sealed.

        Args:
            wanted: SHA-256 of the seal → place.
        """
        return self._ask(batch_id, lambda store: prove(store, batch_id, wanted)) is not None

    def _check_has_what_it_had(self, store: ObjectStore, batch_dir: Path, size: int) -> None:
        had = int(archiving.sent(self._ctx.layout, batch_dir.name, store.address)["head_bytes"])
        stones = removals.of(batch_dir).values() if not size else ()
        if size < had or any(stone.archive == store.address and not stone.archived_as for stone in stones):
            what = "less of this batch than was" if size else "no such batch any more, which was"
            fix = "mount it, or bring back what it had; if that is lost, push the batch again"
            raise remote.WrongArchive(f"{store.url} has {what} sent there", fix=fix)

    def _check_is_any(self, store: ObjectStore) -> None:
        if self._is_empty is None:
            self._is_empty = not any(True for _ in store.names(remote.BATCHES))
        if self._is_empty:
            fix = "mount it, correct its address, or push a first batch there"
            raise StoreTrouble(f"{store.url}: there is no batch at all", fix=fix)

    def _ask[Said](self, batch_id: str, look: Callable[[ObjectStore], Said]) -> Said | None:
        if self._is_down:
            return None
        try:
            if self._store is None:
                self._store = opened(self._ctx, None)
            return look(self._store)
        except (UserError, atomic.CorruptFile) as error:
            self._is_down = self._store is None or isinstance(error, StoreTrouble)
            what = "what goes once it is archived" if self._is_down else f"{batch_id}: what would go of it"
            self.troubles.append(f"{what} is kept: {error}")
            return None
