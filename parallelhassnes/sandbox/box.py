"""One running sandbox: start it, run jobs in it, kill one of them, end it."""

import asyncio
import contextlib
import functools
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from parallelhassnes.sandbox import keeper
from parallelhassnes.sandbox.engines.blueprint import SandboxLaunch
from parallelhassnes.sandbox.keeper_process import KeeperProcess, NotStarted
from parallelhassnes.sandbox.streams import Listener, PipeReader

_STOP_SEC = 5.0
_KILL_SEC = 5.0
# Docker lets go of an exec two seconds after its process has ended, whoever still holds its pipes. The same here, and
# at once when nothing more comes.
_LINGER_SEC = 2.0
_QUIET_SEC = 0.2
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

    def __init__(self, process: KeeperProcess, folder: Path, owner: int | None) -> None:
        self._process = process
        self._folder = folder
        self._owner = owner
        self._number = 0
        self._left: list[PipeReader] = []

    @classmethod
    async def start(cls, name: str, launch: SandboxLaunch, folder: Path, owner: int | None) -> "Box":
        """Start a keeper.

        Args:
            name: of the engine, for messages.
            folder: shared with the keeper, mounted by the blueprint.
            owner: whom the files in it are given to.

        Raises SandboxError, and TimeoutError where nothing happens for long.
        """
        try:
            return cls(await KeeperProcess.start(launch), folder, owner)
        except NotStarted as error:
            raise SandboxError(f"{name} could not make a sandbox: {str(error) or 'it ended'}") from error

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
                await asyncio.wait({job.status.ended, self._process.ended}, return_when="FIRST_COMPLETED")
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
        if job.code is None and self._process.ended.done():
            job.close()
            raise SandboxError("the sandbox has ended")
        return Finished(_KILLED if job.code is None else job.code, *job.streams)

    def processes(self) -> list[int]:
        """Return the keeper, as the host numbers it: all there is in the sandbox before the first job."""
        return self._process.processes()

    def death(self) -> str | None:
        """Tell how the sandbox has ended by itself, in a line; None while it lives."""
        return self._process.death()

    def _tell(self, name: str) -> None:
        gone = "the sandbox has ended"
        if self._process.is_let_go or self._process.ended.done():
            raise SandboxError(gone)
        try:
            self._process.tell(name)
        except OSError as error:
            raise SandboxError(gone) from error

    async def stop(self) -> None:
        """End the sandbox and everything in it; returns when nothing of it is left."""
        self._process.let_go()
        for stream in self._left:
            stream.close()
        await asyncio.wait({self._process.ended}, timeout=_STOP_SEC)
        self._process.kill()
        await self._process.ended


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
