"""Several hosts on one root: which runner a process belongs to, who has joined, and whose beat moves.

A *runner* is a machine under one start of it; its name stands for it under ``runners/``. On a root of one host that name
is ``runner_id`` of the configuration, and nothing of the following is there:

    runners/.hosts/shared               several hosts have joined
    runners/.hosts/right/               who decides (``store/decider.py``)
    runners/.hosts/alive.json           the runners whose beat moves, by the clock of the one that decides
    runners/<name>/member.json          this runner has shown, by ``doctor --hosts``, that the others see what it writes
    runners/<name>/beat.json            its sign of life, and what it can take
    runners/<name>/twin.json            what it ran when it found that it is there twice
    runners/<name>/handed/, taken/      what it is given (``queue/handed.py``)

A member is one as long as its machine runs on: after a restart, or from another mount, it is a stranger that has to show the
same again.
"""

import contextlib
import functools
import os
import platform
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict

from parallelhassnes import names
from parallelhassnes.errors import UserError
from parallelhassnes.plan import Record
from parallelhassnes.store import atomic, clocks, members, process_identity
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import dump, now_text

NAME_VARIABLE = "PARALLELHASSNES_RUNNER"
MEMBER, BEAT, NOTE, TWIN = "member.json", "beat.json", "boot_id", "twin.json"
MARK = b"hosts\n"


class Machine(NamedTuple):
    """What tells this host from others, and its start from earlier ones."""

    boot_id: str
    machine_id: str
    host: str
    """Its name, which may change and which two may share: never enough by itself."""


class Told(Record):
    """What hosts tell each other, be they of other versions: keys that this one does not know are passed over."""

    model_config = ConfigDict(extra="ignore")


class RunnerFacts(Told):
    """What a runner is, as it sees itself and the root."""

    schema_version: Literal[1] = 1
    name: str
    boot_id: str
    machine_id: str
    namespace: str
    """Inode of its pid namespace."""
    host: str
    root: str
    """Path of the root there."""
    mount: str
    """Device and inode of ``runs/`` there: another mount is another view."""
    version: str


class Member(RunnerFacts):
    """``member.json``: a runner that has shown that it and the others see what each writes."""

    locks_cross: bool
    """Whether a lock that one host holds keeps the others out."""
    cache_sec: float
    """Until then at the latest it sees what another has written."""
    joined_at: str
    probed_with: tuple[str, ...] = ()


class Beat(Told):
    """``beat.json``: the sign of life of a runner; judged by whether ``count`` moves."""

    schema_version: Literal[1] = 1
    name: str
    boot_id: str
    count: int
    at: str
    capacity: int
    """Attempts that it runs at once at most."""
    live: int = 0
    """Attempts that it runs or is about to."""
    draining: bool = False
    """It takes nothing more."""
    ending: bool = False
    """It ends once what runs there has, and decides nothing."""
    left_sec: float | None = None
    """Time until it ends; it is given nothing that may take longer. None for no end."""
    gives: tuple[str, ...] = ()
    """Names of the variables that it can give to an attempt besides the usual ones."""
    version: str = ""
    """Of the program that beats, which may have been upgraded since the host joined; empty from an earlier one."""
    nonce: str = ""
    """Of this very beat: who finds another than it has written last is not alone under its name. Empty from an earlier version."""


class SecondHost(UserError):
    """This host has not shown that it may work on the root beside the others."""


class StartedAnew(SecondHost):
    """This host had joined, and runs under another start, or sees the root by another mount, since."""


# --- who this is --------------------------------------------------------------------------------------


@functools.cache
def machine() -> Machine:
    """This host."""
    found = ""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            found = found or Path(path).read_text(encoding="ascii", errors="replace").strip()
    return Machine(process_identity.boot_id(), found, platform.node())


def said_name() -> str:
    """The name that the environment or the user's configuration gives this runner; empty where neither does."""
    return os.environ.get(NAME_VARIABLE) or _configured_name()


def own_name() -> str:
    """The name of this runner on a root of several hosts: from the environment, the user's configuration, or the host's name."""
    said = said_name() or platform.node().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", said).lstrip(".")[:128] or "host"


def _configured_name() -> str:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - "" is no path
    try:
        with Path(base, "parallelhassnes", "config.toml").open("rb") as stream:
            said: Any = tomllib.load(stream).get("runner")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return ""
    return said if isinstance(said, str) else ""


def mount_of(layout: Layout) -> str:
    """Tell what tells this mount of the store from another one."""
    info = os.stat(layout.runs)  # noqa: PTH116 - as the other look-ups here
    return f"{info.st_dev}:{info.st_ino}"


def is_shared(layout: Layout) -> bool:
    """Tell whether several hosts have joined."""
    return members.is_there(layout.hosts / "shared")


def standing(layout: Layout) -> Layout:
    """The layout as this host's: with its runner where several have joined and it is one of them.

    One that is none of them keeps a layout without a runner, with which it may look; ``check`` refuses the rest. A container
    is the runner of its kernel, whatever it calls itself, unless it is told a name.
    """
    if not is_shared(layout):
        return layout
    found = member(layout, own_name())
    if (found is None or not is_current(layout, found)) and not said_name():
        found = next((each for each in members_of(layout).values() if is_current(layout, each)), None)
    if found is None or not is_current(layout, found):
        return layout
    return Layout(layout.root, found.name)


def is_current(layout: Layout, found: Member) -> bool:
    """Whether a record is of this start of this host, and of this mount."""
    return (found.boot_id, found.mount) == (machine().boot_id, mount_of(layout))


def check(layout: Layout) -> None:
    """See that this host may work on the root.

    Raises:
        SecondHost: this host may not decide; nothing was changed.
    """
    if layout.runner:
        return
    known = members_of(layout) if is_shared(layout) else {}
    others = sorted(known) if known else strangers(layout)
    if not others and not is_shared(layout):
        return
    here, root = machine().host, layout.root
    probe = f"run `parallelhassnes doctor --hosts --root {root}` here and there at the same time"
    mine = known.get(own_name())
    if mine is not None and is_same_machine(mine.boot_id, mine.machine_id, mine.host):
        raise StartedAnew(
            f"this host ({here}) was started anew, or {root} was mounted anew, since it joined the other hosts",
            fix=probe,
        )
    if mine is not None:
        raise SecondHost(
            f"this host ({here}) is called {mine.name}, as another host ({mine.host}) on {root} is",
            fix=f"give it another name by {NAME_VARIABLE}, then {probe}",
        )
    raise SecondHost(
        f"{root} is worked on by {', '.join(others[:3]) or 'others'}{' and others' if len(others) > 3 else ''}, and this host "
        f"({here}) has not shown that it sees what they write, and they what it writes",
        fix=f"{probe}; or, if those hosts are gone for good, `parallelhassnes doctor --alone --root {root}`",
    )


def strangers(layout: Layout) -> list[str]:
    """Other hosts that have ticked a root of one host; none where this one has, or nobody has."""
    found = []
    for name in members.names(layout.runners):
        with contextlib.suppress(OSError):
            said = read_note(layout.runners / name / NOTE)
            if is_same_machine(*said):
                return []
            found.append(said.host or name)
    return found


def is_same_machine(boot_id: str, machine_id: str, host: str) -> bool:
    """Whether a note is of this machine, under this start of it or an earlier one.

    Images of machines are copied with their machine-id, and a name is given twice: only both together tell. Earlier versions
    noted the start and, in ``health.json``, the host's name.
    """
    here = machine()
    if boot_id == here.boot_id and boot_id != "unknown":
        return True
    return host == here.host and machine_id in (here.machine_id, "")


def read_note(path: Path) -> Machine:
    """Tell what a tick has noted of the machine that it ran on.

    Raises:
        FileNotFoundError: there is no note.
    """
    boot, *more = path.read_text(encoding="utf-8").split("\n")
    rest = [line.strip() for line in (*more, "", "")]
    host = rest[1] or str(atomic.read_derived(path.with_name("health.json")).get("host", "")) or machine().host
    return Machine(boot.strip(), rest[0], host)


def note_text() -> str:
    """Tell what a tick notes of the machine that it runs on."""
    return "\n".join(machine()) + "\n"


# --- who has joined -----------------------------------------------------------------------------------


def member(layout: Layout, name: str) -> Member | None:
    with contextlib.suppress(OSError, atomic.CorruptFile):
        return atomic.read_record(Member, layout.runners / name / MEMBER)
    return None


def members_of(layout: Layout) -> dict[str, Member]:
    """Return every runner that has joined, by its name."""
    found = ((name, member(layout, name)) for name in members.names(layout.runners))
    return {name: each for name, each in found if each is not None}


def host_of(layout: Layout, name: str) -> str:
    """The name of a runner's host; of jobs of Slurm, whose nodes are not known yet, theirs."""
    found = member(layout, name)
    return name.lstrip(".") if found is None else found.host


def join(layout: Layout, made: Member) -> None:
    """Have this runner be one of several: its record, then the mark that there are several."""
    names.check_id(made.name, "name of a runner")
    folder = layout.runners / made.name
    for path in (folder, folder / "handed", folder / "taken", layout.hosts / "right"):
        path.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / MEMBER, dump(made))
    atomic.claim(layout.hosts / "shared", b"")
    mark(layout)


def mark(layout: Layout) -> None:
    """Have processes that began when there was one host see that there are several: what they hold ``tick.lock`` by says so."""
    with layout.tick_lock.open("ab") as stream:
        if not os.fstat(stream.fileno()).st_size:
            stream.write(MARK)


def is_marked(lock: int) -> bool:
    """Whether the file of the lock that this process holds says that there are several hosts."""
    return os.fstat(lock).st_size > 0


def beat_of(layout: Layout, name: str) -> Beat | None:
    with contextlib.suppress(OSError, atomic.CorruptFile):
        return atomic.read_record(Beat, layout.runners / name / BEAT)
    return None


def version_of(found: Member, beat: Beat | None) -> str:
    """Tell which version a runner is of."""
    return (beat.version if beat is not None else "") or found.version


def write_beat(layout: Layout, beat: Beat) -> None:
    atomic.write_json(layout.runners / beat.name / BEAT, dump(beat), durable=False)


def note_twice(layout: Layout, run_ids: set[str]) -> None:
    """Note what this runner and its copy may both run, for the host that decides."""
    document = {"schema_version": 1, "at": now_text(), "run_ids": sorted(run_ids)}
    atomic.write_json(layout.runners / layout.runner / TWIN, document)


def run_twice(layout: Layout) -> frozenset[str]:
    """Return the run ids of what a runner and its copy may both run, or have run."""
    found = (atomic.read_derived(layout.runners / name / TWIN).get("run_ids") for name in members.names(layout.runners))
    return frozenset(str(run_id) for each in found if isinstance(each, list) for run_id in each)


def cache_sec(layout: Layout) -> float:
    """Until then at the latest every member sees what another has written."""
    return max((each.cache_sec for each in members_of(layout).values()), default=0.0)


def still_sec(layout: Layout, heartbeat_sec: float) -> float:
    """After so long without a movement of its counter a runner, or an attempt elsewhere, may be dead."""
    return max(6 * heartbeat_sec, 2 * cache_sec(layout))


def age_of(layout: Layout, path: Path) -> float:
    """Seconds since a file got its name, by the clock of the file system alone: that of this runner's last beat."""
    try:
        beat = (layout.runners / layout.runner / BEAT).stat().st_mtime
        return beat - path.stat().st_ctime
    except FileNotFoundError:
        return 0.0


# --- whose beat moves ---------------------------------------------------------------------------------


def alive(layout: Layout) -> set[str]:
    """Return the runners whose beat moves, as the decider's loop has seen last; this one always is."""
    known = atomic.read_derived(layout.hosts / "alive.json")
    at = known.get("boottime")
    if known.get("boot_id") != machine().boot_id or not isinstance(at, int | float):
        return {layout.runner}
    fresh = 0 <= clocks.boottime() - at < known.get("for_sec", 0)
    return {layout.runner, *(known.get("runners", ()) if fresh else ())}


def note_alive(layout: Layout, runners: set[str], for_sec: float) -> None:
    """Keep which runners' beats move, for the passes of this host."""
    document = {
        "schema_version": 1,
        "boot_id": machine().boot_id,
        "boottime": clocks.boottime(),
        "for_sec": for_sec,
        "runners": sorted(runners),
    }
    atomic.write_json(layout.hosts / "alive.json", document, durable=False)
