"""An emulated host: a name, boot, process table, mounts, network and clock of its own on this machine.

What runs on a host, and what is mounted there, is gone with the host's first process; the kernel sees to it, also where
the process that made the host was killed. The clock is libfaketime's: monotonic time goes on, files keep their times.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import probes
from stores import SUPPORT, wait_for

from tests.hosts.file_systems import FileSystem

HERE = Path(__file__).resolve().parent
PYTHON = (sys.executable, "-I", "-S", "-E")
DYING = ("setpriv", "--pdeathsig", "KILL", "--")
"""What a program starts with that is to die with the process that started it."""
_SERVER = "LAB_FILE_SYSTEM"
"""In the environment of what serves a mount."""
_SLEEP = """import select
import time

time.sleep = lambda seconds: (select.select((), (), (), seconds), None)[1]
"""
"""libfaketime breaks ``time.sleep``."""


class Host:
    """A host that is up from the beginning, until ``power_cut`` or ``close``; ``boot`` brings it up again."""

    def __init__(self, name: str, place: Path, *, own_network: bool = True) -> None:
        """Boot it.

        Args:
            place: an empty folder that the host may fill.
            own_network: False leaves it the machine's.
        """
        self.name, self.place, self.own_network = name, place, own_network
        self.clock = "+0s"
        """How far the host's clock is off, as in ``+2h``, for what is started from now on."""
        self.package: Path | None = None
        """Folder of another copy of the package, which what is started from now on is of; None for this checkout's."""
        self._mounts: list[tuple[FileSystem, Path, Path]] = []
        self._outside: list[subprocess.Popen[bytes]] = []
        self.started: list[subprocess.Popen[Any]] = []
        place.mkdir(parents=True)
        (place / "machine_id").write_text(f"{uuid.uuid4().hex}\n")
        (place / "sitecustomize.py").write_text(_SLEEP)
        self.boot()

    def boot(self) -> None:
        """Bring the host up, with another boot id and the same machine; mounts what was mounted."""
        (self.place / "boot_id").write_text(f"{uuid.uuid4()}\n")
        spaces = ["--uts", "--pid", "--mount", "--ipc", *(["--net"] if self.own_network else [])]
        first = (*PYTHON, str(HERE / "first_process.py"), self.name, str(self.place))
        self._init = subprocess.Popen(
            [*DYING, "unshare", *spaces, "--fork", "--kill-child", "--mount-proc", *first],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._init.stdout is not None
        said = self._init.stdout.readline()
        if said != b"up\n":
            self._init.kill()
            self._init.communicate()
            raise RuntimeError(f"host {self.name} does not come up")
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        self.pid = int(children[0])
        """Its first process, as seen from outside."""
        self._table = os.readlink(f"/proc/{self.pid}/ns/pid")
        for kind, source, target in self._mounts:
            self._attach(kind, source, target)

    def mount(self, kind: FileSystem, source: Path, target: Path) -> None:
        """Mount a folder of the machine on the host."""
        self._mounts.append((kind, source, target))
        self._attach(kind, source, target)

    def _attach(self, kind: FileSystem, source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        argv = [*PYTHON, str(HERE / "enter.py"), str(self.pid), "pid,mnt", *kind.command(source, target)]
        with (self.place / "mount.log").open("a") as log:
            server = subprocess.Popen(
                argv, env={**os.environ, _SERVER: "1"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if kind.stays:
            self._outside.append(server)
        else:
            assert server.wait(20) == 0, argv
        mounts = Path(f"/proc/{self.pid}/mountinfo")
        wait_for(lambda: f" {target} " in mounts.read_text(), f"the mount of {target} on {self.name}", 20)

    # --- what runs there

    def popen(
        self, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None, **more: Any
    ) -> "subprocess.Popen[str]":
        """Start a program on the host; SIGTERM and SIGINT to what is returned reach it."""
        spaces = "uts,ipc,pid,mnt" + (",net" if self.own_network else "")
        process = subprocess.Popen(
            [*PYTHON, str(HERE / "enter.py"), str(self.pid), spaces, *argv],
            env={**os.environ, **self._clock_environment(), "PYTHONPATH": self._python_path(), **(env or {})},
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            text=True,
            **more,
        )
        self.started.append(process)
        return process

    def run(
        self, *argv: str, env: dict[str, str] | None = None, timeout_sec: float = 60, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program on the host to its end."""
        process = self.popen(*argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, said = process.communicate(timeout=timeout_sec)
        finally:
            process.kill()
            process.wait()
            self.started.remove(process)
        done = subprocess.CompletedProcess(argv, process.returncode, out, said)
        assert not check or done.returncode == 0, f"{argv} on {self.name}: exit {done.returncode}\n{out}\n{said}"
        return done

    def ours(self, *arguments: str, root: Path, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run ``parallelhassnes`` on the host to its end."""
        return self.run(sys.executable, "-m", "parallelhassnes", *arguments, "--root", str(root), **more)

    def _clock_environment(self) -> dict[str, str]:
        if self.clock == "+0s":
            return {}
        return {
            "LD_PRELOAD": str(probes.faketime_library()),
            "FAKETIME": self.clock,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def _python_path(self) -> str:
        own = [] if self.clock == "+0s" else [str(self.place)]  # where sitecustomize.py is
        return os.pathsep.join((*own, *([str(self.package)] if self.package else ()), SUPPORT["PYTHONPATH"]))

    def pids(self) -> list[int]:
        """Every process of the host, as seen from outside; without its first, and without what its kernel would do: mounts."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdecimal() and os.readlink(f"/proc/{entry}/ns/pid") == self._table:
                    found.append(int(entry))
        return [pid for pid in found if pid != self.pid and not _serves(pid)]

    def programs(self) -> list[str]:
        """The command lines of what runs on the host, zombies left out."""
        lines = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                lines.append(line)
        return [line for line in lines if line]

    # --- what befalls it

    def freeze(self) -> None:
        """Stop every process: a host that is cut off, or swaps. ``thaw`` lets them go on."""
        end, told = time.monotonic() + 10, set[int]()
        while running := {pid for pid in self.pids() if _state(pid) not in "TtZX?"}:
            if running <= told and all(_state(pid) == "D" for pid in running):
                break  # in the kernel, as the parent of a child that was stopped before its exec; stops when it is out
            assert time.monotonic() < end, f"{self.name} does not stop: {self.programs()}"
            told = running
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            time.sleep(0.005)

    def thaw(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def power_cut(self) -> None:
        """Kill everything at once; mounts, locks and network go with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._init.wait(20)
        assert self._init.stdout is not None
        self._init.stdout.close()
        for process in [*self.started, *self._outside]:
            process.kill()
            process.wait(20)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self.started.clear()
        self._outside.clear()

    close = power_cut

    @property
    def is_up(self) -> bool:
        return self._init.poll() is None


def _serves(pid: int) -> bool:
    try:
        return f"{_SERVER}=1".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"
