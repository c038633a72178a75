"""Who is at the other end of a connection, as the kernel tells it: this user, outside of any attempt, or somebody else.

    /proc/net/tcp, tcp6      whose socket it is, and its inode; of this network namespace only
    /proc/PID/fd             which processes hold that inode; of this user's processes only
    /proc/PID/ns, root       whether such a process lives in our user, process id and network namespaces, and sees our root
    /proc/PID/environ, stat  whether it or a process above it carries an attempt's mark or is an attempt's supervisor
    SO_PEERCRED              the same for a socket in the file system: process and user, as they were when it connected

Every process that holds the socket has to pass. What cannot be told counts as somebody else: a sandbox has process ids
of its own, and what relays its connections either carries the attempt's mark or hides from this user.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from parallelhassnes.execute import processes
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import tickets

CAN_TELL = sys.platform == "linux"
"""Whether this kernel has such tables."""

RELAYED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers that a proxy adds: whose connection it is then says nothing about who asks."""

_NAMESPACES = ("user", "pid", "net")
_MARK = f"{processes.RUN_ID_VARIABLE}=".encode()

type Address = tuple[str, int]
type Supervisors = Callable[[], Collection[int]]


class Peer:
    """The other end of one connection.

    Args:
        connection: as accepted.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._process: tuple[int, int] | None = None
        self._ends: tuple[Address, Address] | None = None
        self.found: str | None = None
        """What ``stranger`` says, once it has looked: a connection does not change hands."""
        try:
            if connection.family == socket.AF_UNIX:
                said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, uid, _ = struct.unpack("3i", said)
                self._process = pid, uid
            else:
                self._ends = connection.getpeername()[:2], connection.getsockname()[:2]
        except (OSError, AttributeError):  # gone already; not Linux
            pass

    def user(self) -> int | None:
        """Return the user id of who is at the other end; None where the kernel does not tell."""
        if self._process is not None:
            return self._process[1]
        entry = _socket(*self._ends) if CAN_TELL and self._ends else None
        return entry[0] if entry else None

    def stranger(self, supervisors: Supervisors) -> str:
        """Say why a token is needed of the other end; empty where it is this user outside of any attempt.

        Args:
            supervisors: gives the process ids of the attempts' supervisors.
        """
        if self.found is None:
            self.found = self._look(supervisors)
        return self.found

    def _look(self, supervisors: Supervisors) -> str:
        if not CAN_TELL:
            return "this system does not tell whose connection it is"
        if self._process is not None:
            pid, uid = self._process
            holders: list[int] = [pid] if pid else []
        else:
            entry = _socket(*self._ends) if self._ends else None
            if entry is None:
                return "this host's kernel does not tell whose connection it is"
            uid, inode = entry
            holders = list(_holders(inode)) if uid == os.geteuid() else []
        if uid != os.geteuid():
            return "it comes from another user"
        if not holders:
            return "the process that it comes from cannot be seen"
        known = supervisors()
        return next((why for pid in holders if (why := _of_attempt(pid, known))), "")


def live_supervisors(layout: Layout) -> set[int]:
    """Return the process ids of the supervisors of this store's attempts; what cannot be read is passed over."""
    found = set()
    for entry in tickets.running(layout):
        try:
            ticket = tickets.read(entry.path)
            ref = attempts.newest(layout.step(ticket.batch_id, ticket.job_id, ticket.step_id))
            state = attempts.read_state(ref.dir) if ref is not None else None
        except (atomic.CorruptFile, OSError):
            continue
        if state is not None and state.pid and state.supervisor_lives():
            found.add(state.pid)
    return found


def _socket(theirs: Address, ours: Address) -> tuple[int, int] | None:
    """Return User id and inode of the socket that connects these ends, seen from the other one; None where there is none."""
    wanted = {(a.encode(), b.encode()) for a, b in zip(_forms(*theirs), _forms(*ours), strict=True)}
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", "rb") as lines:  # noqa: PTH123 - hot path
                for line in lines:
                    fields = line.split(None, 10)
                    if (fields[1], fields[2]) in wanted and fields[9] != b"0":  # 0: nobody's any more
                        return int(fields[7]), int(fields[9])
        except OSError:
            continue
    return None


def _forms(host: str, port: int) -> tuple[str, str]:
    """Return an address as the two tables write it; one of IPv4 may stand in both."""
    try:
        four = socket.inet_aton(host.removeprefix("::ffff:"))
        both = four, bytes(10) + b"\xff\xff" + four
    except OSError:
        six = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        both = six, six
    words = [struct.unpack(f"={len(packed) // 4}I", packed) for packed in both]
    first, second = ("".join(f"{word:08X}" for word in found) + f":{port:04X}" for found in words)
    return first, second


def _holders(inode: int) -> Iterator[int]:
    """Yield the processes that hold the socket, of those that this user may look at."""
    wanted = f"socket:[{inode}]"
    for pid in os.listdir("/proc"):
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder) if pid.isdigit() else []
        except OSError:
            continue
        for name in names:
            try:
                if os.readlink(f"{folder}/{name}") == wanted:  # noqa: PTH115 - hot path
                    yield int(pid)
                    break
            except OSError:
                continue


def _of_attempt(pid: int, supervisors: Collection[int]) -> str:
    """Say why the process may be an attempt's; empty where it is none."""
    try:
        for name in _NAMESPACES:
            if not Path(f"/proc/{pid}/ns/{name}").samefile(f"/proc/self/ns/{name}"):
                return f"its process has a {name} namespace of its own, as a sandbox has"
        if not Path(f"/proc/{pid}/root").samefile("/proc/self/root"):
            return "its process has a root folder of its own, as a container has"
        _marks(pid)
    except OSError:
        return "the process that it comes from cannot be looked at"
    mine, seen = _marks(os.getpid()), set[int]()
    while pid > 1 and pid not in seen:
        seen.add(pid)
        try:
            marked = not _marks(pid) <= mine
        except OSError:  # above it: another user's, such as the login
            marked = False
        if marked or pid in supervisors:
            return "its process belongs to an attempt"
        pid = _parent(pid)
    return ""


def _marks(pid: int) -> set[bytes]:
    """Return the attempts that the process was started by; those that started this server are no reason to refuse."""
    with open(f"/proc/{pid}/environ", "rb") as stream:  # noqa: PTH123
        return {entry for entry in stream.read().split(b"\0") if entry.startswith(_MARK)}


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:  # noqa: PTH123
            return int(stream.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def is_relayed(headers: Mapping[str, str]) -> bool:
    """Tell whether a proxy says that it passes somebody else's request on."""
    return any(name in headers for name in RELAYED)
