"""The process of a keeper, as the host has it: start it, tell it things, know of its end.

An engine either starts a process around the keeper, or one that leaves the keeper behind as our child (``SandboxLaunch.leaves_it``).
"""

import asyncio
import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import IO

from parallelhassnes.sandbox.engines.blueprint import SandboxLaunch
from parallelhassnes.sandbox.keeper import READY

_START_SEC = 30.0
_DYING_SEC = 2.0
_PF_EXITING = 0x4
"""Of a process's flags (field 9 of ``/proc/PID/stat``): it has begun to end; a zombie has it, too."""


class NotStarted(Exception):
    """It did not come about; what it said, in one line."""


class KeeperProcess:
    """A keeper that runs, until ``ended`` is done."""

    def __init__(self, pid: int, stdin: IO[bytes], *, is_around: bool) -> None:
        self._pid, self._stdin, self._is_around = pid, stdin, is_around
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit code, or minus the signal that ended it."""
        self._handle = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    @classmethod
    async def start(cls, launch: SandboxLaunch) -> "KeeperProcess":
        """Start it and wait until it is ready. Raises NotStarted; TimeoutError where nothing happens for ``_START_SEC``."""
        try:
            process = launch.popen(subprocess.PIPE)
        except subprocess.SubprocessError as error:
            raise NotStarted(str(error)) from error
        words: list[bytes] = []
        async with contextlib.AsyncExitStack() as stack:
            out, err = [await _lines(stack, pipe) for pipe in (process.stdout, process.stderr)]
            try:
                async with asyncio.timeout(_START_SEC):
                    # The two lines come in any order.
                    while READY not in words or (launch.leaves_it and launch.left_in(words) is None):
                        if not (line := await out.readline()):
                            raise NotStarted(" ".join((await err.read(4096)).decode(errors="replace").split()))
                        words.append(line.strip())
            except BaseException:
                _give_up(process, launch.left_in(words))
                raise
        assert process.stdin is not None  # noqa: S101 - as it was asked for
        if not launch.leaves_it:
            process.returncode = 0  # ``_reap`` waits for it
            return cls(process.pid, process.stdin, is_around=True)
        process.wait()
        return cls(launch.left_in(words) or 0, process.stdin, is_around=False)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.ended.set_result(os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]))

    def tell(self, line: str) -> None:
        """Hand it a line. Raises OSError where it has ended."""
        os.write(self._stdin.fileno(), f"{line}\n".encode())

    def let_go(self) -> None:
        """Close its standard input, at which it ends."""
        self._stdin.close()

    @property
    def is_let_go(self) -> bool:
        return self._stdin.closed

    def kill(self) -> None:
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, 9)

    def processes(self) -> list[int]:
        """Return the keeper, as the host numbers it: all there is in the sandbox before the first job."""
        return _children(self._pid) if self._is_around else [self._pid]

    def death(self) -> str | None:
        """Tell how it has ended by itself, in a line; None while it lives.

        A process around the keeper has memory to give back, so it may end some time after the keeper.
        """
        deadline = time.monotonic() + _DYING_SEC
        while (code := self._exit_code()) is None:
            if not self._is_ending():
                return None
            if time.monotonic() > deadline:
                return "the sandbox died under the trial"
            time.sleep(0.01)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"the sandbox died under the trial ({how})"

    def _exit_code(self) -> int | None:
        """As the kernel has it, for the loop may not have heard of it yet."""
        if self.ended.done():
            return self.ended.result()
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _is_ending(self) -> bool:
        keeper = self.processes()
        return not keeper or any(_is_ending(pid) for pid in (self._pid, *keeper))


async def _lines(stack: contextlib.AsyncExitStack, pipe: IO[bytes] | None) -> asyncio.StreamReader:
    """Return a reader of the pipe, which the stack closes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    stack.callback(transport.close)
    return reader


def _give_up(process: "subprocess.Popen[bytes]", left: int | None) -> None:
    """End what was started: what has not said its number ends when its standard input does."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    if left is not None:
        os.kill(left, 9)
        os.waitpid(left, 0)


def _children(pid: int) -> list[int]:
    """Return the processes started by a process."""
    known = Path(f"/proc/{pid}/task/{pid}/children")
    if known.exists():  # not in every kernel
        return [int(child) for child in known.read_text(encoding="ascii").split()]
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _is_ending(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[6]) & _PF_EXITING)
