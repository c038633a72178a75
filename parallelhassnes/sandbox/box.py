"""One running sandbox: start it, run jobs in it, kill one of them, end it."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from parallelhassnes.sandbox import keeper
from parallelhassnes.sandbox.engines.blueprint import SandboxLaunch, search_path
from parallelhassnes.sandbox.root_layout import UMASK
from parallelhassnes.sandbox.streams import Listener, PipeReader

_START_SEC = 30.0
_STOP_SEC = 5.0
_KILL_SEC = 5.0
_DYING_SEC = 2.0
# Docker lets go of an exec two seconds after its process has ended, whoever still holds its pipes. The same here, and
# at once when nothing more comes.
_LINGER_SEC = 2.0
_QUIET_SEC = 0.2
_PF_EXITING = 0x4
"""Of a process's flags (field 9 of ``/proc/PID/stat``): it has begun to end; a zombie has it, too."""
_KILLED = 128 + signal.SIGKILL


class SandboxError(RuntimeError):
    """The sandbox could not be made, or is gone; one line."""


class Finished(NamedTuple):
    """How a job ended."""

    code: int
    """Exit status; 128 + n for signal n."""
    stdout: PipeReader
    stderr: PipeReader


class Box:
    """A sandbox that runs."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, owner: int | None) -> None:
        self._process = process
        self._folder = folder
        self._owner = owner
        self._number = 0
        self._left: list[PipeReader] = []
        self._gone: asyncio.Task[int] = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, name: str, launch: SandboxLaunch, folder: Path, owner: int | None) -> "Box":
        """Start a keeper.

        Args:
            name: of the engine, for messages.
            folder: shared with the keeper, mounted by the blueprint.
            owner: whom the files in it are given to.

        Raises SandboxError, and TimeoutError where nothing happens for ``_START_SEC``.
        """
        try:
            process = await _start(launch)
        except subprocess.SubprocessError as error:
            raise SandboxError(f"{name} could not make a sandbox: {error}") from error
        stdout = cast("asyncio.StreamReader", process.stdout)
        stderr = cast("asyncio.StreamReader", process.stderr)
        try:
            async with asyncio.timeout(_START_SEC):
                ready = await stdout.readline() == b"ready\n"
                said = b"" if ready else await stderr.read(4096)
        except BaseException:
            process.kill()
            raise
        if not ready:
            await process.wait()
            reason = " ".join(said.decode(errors="replace").split())
            raise SandboxError(f"{name} could not make a sandbox: {reason or 'it ended'}")
        return cls(process, folder, owner)

    async def run(
        self,
        command: str,
        *,
        cwd: str,
        env: Mapping[str, str],
        become: Sequence[str] = (),
        timeout_sec: float | None = None,
        listener: Listener | None = None,
    ) -> Finished:
        """Run a command with bash and wait for it.

        Raises TimeoutError after ``timeout_sec``, SandboxError where the sandbox is gone. On both, and on cancellation,
        every process of the command has been killed.
        """
        mark = uuid.uuid4().hex
        marked = {**env, keeper.MARK: mark}
        text = keeper.script(command, cwd=cwd, env=marked, become=become)
        job = self._job(listened=listener is not None)
        return await self._run(job, text, mark, timeout_sec=timeout_sec, listener=listener)

    async def move(
        self, command: str, *, env: Mapping[str, str], source: Path | None = None, sink: Path | None = None
    ) -> Finished:
        """Run a simple command of ours with a file as its standard input, or one that takes all of its output."""
        mark = uuid.uuid4().hex
        text = keeper.inner_script(command, env={**env, keeper.MARK: mark})
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(sink.open("wb")) if sink is not None else None
            return await self._run(self._job(sink=out), text, mark, source=source)

    def _job(self, *, listened: bool = False, sink: BinaryIO | None = None) -> "_JobPipes":
        self._number += 1
        return _JobPipes(self._folder / str(self._number), sink, self._owner, listened=listened)

    async def _run(
        self,
        job: "_JobPipes",
        text: str,
        mark: str,
        *,
        timeout_sec: float | None = None,
        source: Path | None = None,
        listener: Listener | None = None,
    ) -> Finished:
        try:
            await job.open(text, source)
            self._tell(job.name)
            async with asyncio.timeout(timeout_sec):
                listening = asyncio.gather(*(stream.listen(listener) for stream in job.streams if listener is not None))
                await asyncio.wait({job.status.ended, self._gone}, return_when="FIRST_COMPLETED")
                await job.settle()
                await listening
        except BaseException:
            job.remove_files()  # what the keeper has not opened yet, it cannot begin
            _kill(job, mark)
            job.close()
            raise
        finally:
            job.remove_files()
        self._left += [stream for stream in job.streams if not stream.ended.done()]
        if job.code is None and self._gone.done():
            job.close()
            raise SandboxError("the sandbox has ended")
        return Finished(_KILLED if job.code is None else job.code, *job.streams)

    def processes(self) -> list[int]:
        """Return the keeper, as the host numbers it: all there is in the sandbox before the first job."""
        return _children(self._process.pid)

    def death(self) -> str | None:
        """Tell how the sandbox has ended by itself, in a line; None while it lives.

        The process around the keeper has memory to give back, so it may end some time after the keeper.
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
        """Of the process around the keeper, as the kernel has it, for the loop may not have heard of it yet."""
        try:
            if self._gone.done():
                return self._gone.result()
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # the loop hears of it in this moment
            return None
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _is_ending(self) -> bool:
        keeper = self.processes()
        return not keeper or any(_is_ending(pid) for pid in (self._process.pid, *keeper))

    def _tell(self, name: str) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing() or self._gone.done():
            raise SandboxError("the sandbox has ended")
        stdin.write(f"{name}\n".encode())

    async def stop(self) -> None:
        """End the sandbox and everything in it; returns when nothing of it is left."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for stream in self._left:
            stream.close()
        await asyncio.wait({self._gone}, timeout=_STOP_SEC)
        if not self._gone.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._gone


async def _start(launch: SandboxLaunch) -> asyncio.subprocess.Process:
    with launch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
        return await asyncio.create_subprocess_exec(
            *launch.argv,
            env={"PATH": search_path()},
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=launch.prepare,
            umask=UMASK,
            pass_fds=launch.handles,
        )


class _JobPipes:
    """The pipes and files of one job."""

    def __init__(self, base: Path, sink: BinaryIO | None, owner: int | None, *, listened: bool) -> None:
        self._base = base
        self._owner = owner
        self.name = base.name
        self.streams = (PipeReader(listened=listened, sink=sink), PipeReader(listened=listened))
        self.status = PipeReader()
        self._pipe: BinaryIO | None = None
        """That of ``status``."""

    def _path(self, kind: str) -> Path:
        return self._base.with_name(f"{self.name}.{kind}")

    async def open(self, text: str, source: Path | None) -> None:
        loop = asyncio.get_running_loop()
        streams = (*self.streams, self.status)
        for kind, stream in zip(("out", "err", "rc"), streams, strict=True):
            os.mkfifo(self._path(kind), 0o600)
            self._give(kind)
            # Read-only and non-blocking: opens at once, and is at its end only after a writer has come and gone.
            pipe = os.fdopen(os.open(self._path(kind), os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
            await loop.connect_read_pipe(functools.partial(_same, stream), pipe)
        self._pipe = pipe
        if source is None:
            self._path("in").symlink_to("/dev/null")
        else:
            os.link(source, self._path("in"))
            self._give("in")
        script = os.open(self._path("sh"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(script, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        self._give("sh")

    def _give(self, kind: str) -> None:
        """Have root of the sandbox own a file."""
        if self._owner is not None:
            os.chown(self._path(kind), self._owner, self._owner)

    async def settle(self) -> None:
        """Wait for the rest of the output, but not for processes that were left in the background."""
        deadline = time.monotonic() + _LINGER_SEC
        open_streams = [stream for stream in self.streams if not stream.ended.done()]
        while open_streams and time.monotonic() < deadline:
            moved = sum(stream.moved for stream in open_streams)
            await asyncio.wait([stream.ended for stream in open_streams], timeout=_QUIET_SEC)
            open_streams = [stream for stream in open_streams if not stream.ended.done()]
            if sum(stream.moved for stream in open_streams) == moved:
                break
        for stream in open_streams:
            stream.forget()

    @property
    def code(self) -> int | None:
        """The exit status; None where the job ended without saying one."""
        said = self.status.content().strip()
        return int(said) if said.isdigit() else None

    def is_under_way(self) -> bool:
        """Return the keeper's shell for it is there; takes what that says from the status, so for a job that is given up."""
        if self._pipe is None or self._pipe.closed:
            return False
        try:
            return os.read(self._pipe.fileno(), 64) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        for stream in (*self.streams, self.status):
            stream.close()

    def remove_files(self) -> None:
        """The script holds environment variables, which may be secret: it goes as soon as it was read."""
        for kind in ("out", "err", "rc", "in", "sh"):
            self._path(kind).unlink(missing_ok=True)


def _same(stream: PipeReader) -> PipeReader:
    return stream


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


def _kill(job: _JobPipes, mark: str) -> None:
    """Kill every process whose environment holds the mark, however it was detached, until there is none.

    The keeper's shell for the job does not hold it: as long as that is there, the command may be about to begin.
    A process that cleared its environment *and* left its session is not found; it ends with the sandbox.
    """
    wanted = f"{keeper.MARK}={mark}".encode()
    deadline = time.monotonic() + _KILL_SEC
    while time.monotonic() < deadline:
        may_begin = job.is_under_way()
        if not (_kill_once(wanted) or may_begin):
            return
        time.sleep(0.002)


def _kill_once(wanted: bytes) -> bool:
    """Kill what is marked now; whether there was anything."""
    found = False
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # it has ended
            continue
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found = True
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError:  # it has ended, or is another user's
            continue
        finally:
            os.close(handle)
    return found
