"""Programs as forks of a process that has imported the command line: tests start thousands, and loading is most of what each costs.

``run`` starts ``parallelhassnes`` in a process of its own, with its own environment, folder, descriptors and end, as
``subprocess.run`` does. Its parent, one per test process, runs a single thread and has done nothing but import. What depends on how an
interpreter begins (``PYTHON*``, ``LD_*``, another package on the path) is not for it: ``serves`` says so.

    test ── JSON and four descriptors ──▶ server ── fork ──▶ keeper ── fork ──▶ program
    test ◀────────────── pid, then the end ─────────────── keeper
"""

import atexit
import contextlib
import functools
import gc
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import setproctitle

from parallelhassnes import __main__ as entry
from parallelhassnes.cli import app
from parallelhassnes.errors import UserError

USUAL = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
"""What programs are started with where a test says nothing else."""
UMASK = os.umask(0)
os.umask(UMASK)
_LONGEST = 1 << 20
_BEGINS = ("PYTHON", "LD_", "TZ", "LC_", "LANG", "COVERAGE")
"""Of variables that are read when an interpreter begins."""


# --- in a test ----------------------------------------------------------------------------------------


def serves(env: Mapping[str, str]) -> bool:
    """Whether a program with this environment may be a fork."""
    return sys.platform == "linux" and _at_the_beginning(env) == _at_the_beginning(USUAL)


def _at_the_beginning(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_BEGINS)}


def run(arguments: list[str], *, env: Mapping[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run ``parallelhassnes ARGUMENTS`` to its end; as ``subprocess.run(capture_output=True, text=True)``."""
    out, err, said = (os.pipe() for _ in range(3))
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        request = json.dumps([arguments, dict(env), str(cwd)]).encode("utf-8", "surrogateescape")
        socket.send_fds(_server(), [request], [nothing, out[1], err[1], said[1]])
    finally:
        for handle in (nothing, out[1], err[1], said[1]):
            os.close(handle)
    texts = _read_all({out[0]: "out", err[0]: "err", said[0]: "said"}, arguments, timeout)
    end = int(texts["said"].split()[1])
    return subprocess.CompletedProcess(arguments, end, texts["out"], texts["err"])


def _read_all(pipes: dict[int, str], arguments: list[str], timeout: float) -> dict[str, str]:
    found = dict.fromkeys(pipes.values(), b"")
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for handle in pipes:
            selector.register(handle, selectors.EVENT_READ)
        try:
            while selector.get_map():
                for key, _ in selector.select(max(0.0, end - time.monotonic())):
                    data = os.read(key.fd, 1 << 16)
                    found[pipes[key.fd]] += data
                    if not data:
                        selector.unregister(key.fd)
                if time.monotonic() > end:
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(int(found["said"].split()[0]), signal.SIGKILL)
                    raise subprocess.TimeoutExpired(arguments, timeout, found["out"], found["err"])
        finally:
            for handle in pipes:
                os.close(handle)
    return {name: data.decode().replace("\r\n", "\n").replace("\r", "\n") for name, data in found.items()}


@functools.cache
def _server() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(its.fileno())],
            env=USUAL,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


# --- the server ---------------------------------------------------------------------------------------


def _serve(number: int) -> None:
    """Fork a program for each request until the test process has ended; in a fork, be the program."""
    setproctitle.getproctitle()  # it takes the room for a title from the environment as it is now
    _warm_up()
    gc.collect()
    gc.freeze()  # so that forks share it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need nobody
    with socket.socket(fileno=number) as asked:
        while True:
            request, handles, _, _ = socket.recv_fds(asked, _LONGEST, 4)
            if not request:
                return
            if os.fork() == 0:
                break
            for handle in handles:
                os.close(handle)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _keep(handles)
    arguments, env, cwd = json.loads(request)
    for target, handle in enumerate(handles[:3]):
        os.dup2(handle, target)
    for handle in handles:
        os.close(handle)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["parallelhassnes", *arguments]
    atexit._clear()  # what an interpreter does at its end it would do to a copy
    code: object = 0
    try:
        entry.main()
    except SystemExit as end:
        code = end.code or 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # a program may close its own
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def _keep(handles: list[int]) -> None:
    """Go on in a child, whose pid and end its parent tells."""
    child = os.fork()
    if child == 0:
        return
    for handle in handles[:3]:
        os.close(handle)
    os.write(handles[3], b"%d " % child)
    _, status = os.waitpid(child, 0)
    os.write(handles[3], b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _warm_up() -> None:
    """Import what commands import when they are called, and build what they build at first use, by calling a few."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for words in ("init", "tick", "tick --json", "scoreboard", "scoreboard --json", "results", "results --json"):
            with contextlib.suppress(SystemExit, UserError):
                app.app([*words.split(), "--root", folder], standalone_mode=False)
    os.umask(UMASK)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
