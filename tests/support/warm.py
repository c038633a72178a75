"""Programs as forks of a process that has imported what they run: tests start thousands, and loading is most of what each costs.

``Program`` is ``parallelhassnes`` in a process of its own, with its own environment, folder, descriptors and end, and is used as any
``subprocess.Popen``; ``run`` is ``subprocess.run``. Its parent runs a single thread and has done nothing but import; a test process has one
for servers, which load more, and one for everything else. What depends on how an interpreter begins (``PYTHON*``, ``LD_*``, another package
first on the path) is not for it: ``serves`` says so.

    test ── JSON and four descriptors ──▶ nursery ── fork ──▶ keeper ── fork ──▶ program
    test ◀────────────── pid, then the end ─────────────── keeper
"""

import atexit
import contextlib
import functools
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import setproctitle

import parallelhassnes
from parallelhassnes import __main__ as entry
from parallelhassnes.cli import app
from parallelhassnes.errors import UserError
from parallelhassnes.execute import launcher
from parallelhassnes.steps.trial.preload import preload

PLACE = str(Path(__file__).parents[2])
USUAL = {**os.environ, "PYTHONPATH": PLACE}
"""What programs are started with where a test says nothing else."""
UMASK = os.umask(0)
os.umask(UMASK)
_LONGEST = 1 << 20
_NUMBER = 12
"""Bytes of a pid or an end, as a keeper tells it."""
_BEGINS = ("PYTHON", "LD_", "TZ", "LC_", "LANG", "COVERAGE")
"""Of variables that are read when an interpreter begins."""


# --- in a test ----------------------------------------------------------------------------------------


def serves(env: Mapping[str, str]) -> bool:
    """Whether a program with this environment may be a fork. Folders behind ours on the path are added to it."""
    return sys.platform == "linux" and _at_the_beginning(env) == _at_the_beginning(USUAL)


def _at_the_beginning(env: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in env.items() if name.startswith(_BEGINS)}
    first, *_ = found.get("PYTHONPATH", "").split(os.pathsep)
    return {**found, "PYTHONPATH": first}


class Program(subprocess.Popen[str]):
    """``parallelhassnes ARGUMENTS``, as ``subprocess.Popen`` of Python and the package.

    Args:
        arguments: the words behind the program's name.
        env: as one that ``serves``.
        more: descriptors and text, as Popen has them. What is not said is read from nothing, and written where the test's is.
    """

    def __init__(self, arguments: list[str], *, env: Mapping[str, str], cwd: Path, **more: Any) -> None:
        self._said = -1
        super().__init__(arguments, env=env, cwd=cwd, text=True, **more)

    def _execute_child(self, *positional: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *positional).arguments
        pipes = {name: asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")}
        nothing = os.open(os.devnull, os.O_RDONLY)
        self._said, said = os.pipe()
        try:
            ends = (pipes["p2cread"], nothing), (pipes["c2pwrite"], 1), (pipes["errwrite"], 2)
            handles = [own if own != -1 else other for own, other in ends]
            words, env = asked["args"], dict(asked["env"])
            request = json.dumps([words, env, str(asked["cwd"])]).encode("utf-8", "surrogateescape")
            socket.send_fds(_nursery("servers" if words[:1] == ["api"] else "commands"), [request], [*handles, said])
        finally:
            os.close(nothing)
            os.close(said)
            self._close_pipe_fds(*pipes.values())
        self.pid = int(os.read(self._said, _NUMBER))
        self._child_created = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        """Whether it has ended, without waiting."""
        if self._waitpid_lock.acquire(blocking=False):
            try:
                self._look(0)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        with self._waitpid_lock:
            if not self._look(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def _look(self, timeout: float | None) -> bool:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._said, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                return False
            self.returncode = int(os.read(self._said, _NUMBER))
            os.close(self._said)
        return True


def run(
    arguments: list[str], *, env: Mapping[str, str], cwd: Path, timeout: float, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``parallelhassnes ARGUMENTS`` to its end, which is given what is ``typed``; as ``subprocess.run(capture_output=True, text=True)``."""
    pipe = subprocess.PIPE
    with Program(arguments, env=env, cwd=cwd, stdin=pipe if typed else None, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = process.communicate(typed, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@functools.cache
def _nursery(what: str) -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, what, str(its.fileno())],
            env=USUAL,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


# --- in a nursery -------------------------------------------------------------------------------------

_OTHERS = ("api", "compat", "frames", "__main__")
"""Rooms that commands load seldom: servers, and what makes tables of pandas."""
_TABLE = '{"spec_version": "2.0", "jobs": [{"job_id": "j", "steps": [{"step_id": "s", "kind": "command", "command": ["true"]}]}]}'


def _serve(what: str, number: int) -> None:
    """Fork a program for each request until the test process has ended; in a fork, be the program."""
    setproctitle.getproctitle()  # it takes the room for a title from the environment as it is now
    _warm_up()
    if what == "servers":
        _warm_up_servers()
    assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 1, "what runs threads cannot be forked"
    often = gc.get_threshold()
    launcher.freeze_heap()  # so that forks share it, and none has to see to that again
    gc.set_threshold(*often)
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
    first, *more = env["PYTHONPATH"].split(os.pathsep)
    behind = sys.path.index(first) + 1
    sys.path[behind:behind] = more
    os.chdir(cwd)
    sys.argv = ["parallelhassnes", *arguments]
    atexit._clear()  # what an interpreter does at its end it would do to a copy
    code: object = 0
    try:
        entry.main()
    except SystemExit as end:
        code = end.code or 0
    threading._shutdown()  # as an interpreter's end waits for threads
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
    os.write(handles[3], b"%*d" % (_NUMBER, child))
    _, status = os.waitpid(child, 0)
    os.write(handles[3], b"%*d" % (_NUMBER, os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _warm_up() -> None:
    """Import what commands and trials import when they begin, and build what they build at first use, by calling a few."""
    for module in pkgutil.walk_packages(parallelhassnes.__path__, "parallelhassnes."):
        if module.name.split(".")[1] not in _OTHERS:
            importlib.import_module(module.name)
    importlib.import_module("rich.live")
    preload()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        table = Path(folder) / "table.json"
        table.write_text(_TABLE)
        for words in (
            "init",
            f"validate {table}",
            "tick",
            "tick --json",
            "scoreboard",
            "scoreboard --json",
            "results",
            "results --json",
        ):
            with contextlib.suppress(SystemExit, UserError):
                app.app([*words.split(), "--root", folder], standalone_mode=False)
    os.umask(UMASK)


def _warm_up_servers() -> None:
    """Make a server of a store without anything, which never answers."""
    import uvicorn

    from parallelhassnes.admin.init import init
    from parallelhassnes.api import app as application
    from parallelhassnes.api import serve

    with tempfile.TemporaryDirectory() as folder:
        init(Path(folder))
        serving = serve.listen(Path(folder), host=None, port=0, unix_socket=None, auth=None, ticking=False)
        with serving.socket:
            made = application.create_app(serving.site)
            application._warm(made, serving.site)
            uvicorn.Config(made).load()
        serving.site.leave()
    os.umask(UMASK)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
