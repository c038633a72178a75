"""What steps say themselves of when and where they ran, in a file outside the store.

A line each: ``<seconds since the machine's start> S|E <batch/job/step> <run_id> <host> <pid> <queue key>``; the machine's clock is the same on all its
hosts, whatever their own say. A trial's agent says them for it (``witness_agent``). The lab adds what befell a host: ``<seconds> cut|frozen|thawed <host>``.
"""

import time
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """witness=$1 key=$3
say() {
    read -r now _ </proc/uptime
    read -r host </proc/sys/kernel/hostname
    echo "$now $1 $PARALLELHASSNES_BATCH_ID/$PARALLELHASSNES_JOB_ID/$PARALLELHASSNES_STEP_ID $PARALLELHASSNES_RUN_ID $host $$ $key" >>"$witness"
}
say S
trap 'say E; exit 143' TERM
sleep "$2" &
wait $!
say E
"""


class Ran(NamedTuple):
    """One run of a step's program."""

    step: str
    run_id: str
    host: str
    key: str
    began: float
    ended: float | None
    """None where it did not come to its end."""
    stopped: float | None
    """When its host was cut or frozen, where that was before its end."""
    late: float | None
    """Seconds from its host's thaw to its end, where it was frozen."""

    def until(self, now: float) -> float:
        """When it ran no longer, as far as others are concerned; ``now`` where it still may."""
        over = [at for at in (self.ended, self.stopped) if at is not None]
        return min(over, default=now)


class Witness:
    """The file, and the program that writes to it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.program = folder / "witness", folder / "step.sh"
        self.path.touch()
        self.program.write_text(_SCRIPT)

    def command(self, seconds: float, key: str = "-") -> list[str]:
        """A step's command that runs so long."""
        return ["sh", str(self.program), str(self.path), f"{seconds:g}", key]

    def befell(self, what: str, host: str) -> None:
        """Note a fault of the lab's."""
        now = float(Path("/proc/uptime").read_text().split()[0])
        with self.path.open("a") as stream:
            stream.write(f"{now:.2f} {what} {host}\n")

    def runs(self) -> list[Ran]:
        """Every run so far, by when it began."""
        began: dict[tuple[str, ...], float] = {}
        ended: dict[tuple[str, ...], float] = {}
        faults: list[tuple[float, str, str]] = []
        for line in self.path.read_text().splitlines():
            at, what, *who = line.split()
            if what == "S":
                began[tuple(who)] = float(at)
            elif what == "E":
                ended[tuple(who)] = float(at)
            else:
                faults.append((float(at), what, who[0]))
        found = []
        for who, since in began.items():
            step, run_id, host, _, key = who
            end = ended.get(who)
            stops = [at for at, what, name in faults if name == host and what in ("cut", "frozen") and at >= since]
            stopped = next((at for at in stops if end is None or at < end), None)
            thaws = [at for at, what, name in faults if name == host and what == "thawed" and stopped and at >= stopped]
            late = end - thaws[0] if end is not None and thaws else None
            found.append(Ran(step, run_id, host, key, since, end, stopped, late))
        return sorted(found, key=lambda ran: ran.began)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
