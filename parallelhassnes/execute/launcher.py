"""Starting supervisors: a warm fork.

The process that launches has imported what its attempts need, runs one thread and no event loop, and
has frozen its heap (``gc.freeze``), so a fork costs a few milliseconds and its child shares nearly all
memory with it. Each supervisor is the leader of a session of its own: a Ctrl-C at a terminal, the end
of a cron job or the death of the launching process does not reach it.

A process that has done with its own attempt takes over one of those that it starts instead of forking for it,
which saves most of what a short attempt costs.
"""

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from parallelhassnes.execute import own_files, processes
from parallelhassnes.store import locks, space

START_VARIABLE = "PARALLELHASSNES_START"
"""``spawn`` has every supervisor started as a fresh interpreter, as where fork is not safe."""
_CANNOT_FORK = 71
PATIENCE_SEC = 0.2
"""For so long a process goes on with a pass that has taken over an attempt in it."""
MOST_ACTS = 16
"""So much it does meanwhile for other attempts at most: settles, starts and passes together, each of bounded length."""
_GARBAGE = 50_000
"""Objects after which the collector looks for garbage, in a process that has loaded what it needs."""
_launched: set[int] = set()


class _Become(BaseException):
    """In a freshly forked child of a supervisor: leave the parent's frames and run this instead."""

    def __init__(self, target: Callable[[], None], log: Path) -> None:
        self.target, self.log = target, log


class _Heap:
    modules_frozen = 0


class _Trampoline:
    running = False
    is_free = False
    """The process has nothing of its own to do any more."""
    taken: _Become | None = None
    """What it does next."""
    lock: int = -1
    """The descriptor of the lock that goes with that."""
    since: float = 0.0
    """When it was taken."""
    acts: int = 0
    """What has been done for others since."""


def fork_is_safe() -> bool:
    """Tell whether this process may fork without an exec: Linux, one thread, and nobody said otherwise."""
    return sys.platform == "linux" and threading.active_count() == 1 and os.environ.get(START_VARIABLE) != "spawn"


def start(target: Callable[[], None], *, log: Path) -> None:
    """Run ``target`` in a forked, detached process.

    Supervisors start supervisors, a batch long, so a child must not run on top of its parent's stack:
    in a supervisor's child the call leaves by ``_Become``, which unwinds to the one frame at the bottom.
    Nor may it descend from a supervisor, which ends whatever descends from it together with its next attempt:
    there the child is forked by a child that ends at once.

    Args:
        target: what to run; the process ends when it returns.
        log: the file that the process's stdout and stderr are appended to.

    Raises:
        OSError: there can be no further process now.
    """
    reap()
    sys.stdout.flush()
    sys.stderr.flush()
    freeze_heap()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if not _Trampoline.running:
            _launched.add(pid)
        elif os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == _CANNOT_FORK:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return
    if _Trampoline.running:
        _fork_and_end()
    locks.drop_held()
    _launched.clear()
    if _Trampoline.taken is not None:
        os.close(_Trampoline.lock)
    _Trampoline.is_free, _Trampoline.taken = False, None
    if _Trampoline.running:
        raise _Become(target, log)
    _Trampoline.running = True
    _run(target, log)


def start_module(name: str, *arguments: str, log: Path, cwd: Path, keep: tuple[int, ...] = ()) -> None:
    """Run a module of ours in a fresh interpreter, detached, where this process may not fork without an exec.

    Args:
        log: the file that its stdout and stderr are appended to.
        keep: descriptors that it inherits.
    """
    reap()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*processes.OURSELVES, name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=keep,
            start_new_session=True,
            cwd=cwd,
        )
    process.returncode = 0  # ``reap`` waits for it, and the object would warn of a process that outlives it
    _launched.add(process.pid)


def start_beside(target: Callable[[], None], module: str, *arguments: str, log: Path, cwd: Path) -> None:
    """Run ``target`` in a detached process: a fork, or where this process may not fork, the module with these arguments."""
    if fork_is_safe():
        start(target, log=log)
    else:
        start_module(module, *arguments, log=log, cwd=cwd)


def _fork_and_end() -> None:
    """Go on in a child of this process, which ends here: nothing of its parent's is undone on the way out."""
    try:
        child = os.fork()
    except OSError:
        os._exit(_CANNOT_FORK)
    if child:
        os._exit(0)


def offer() -> None:
    """Say that this process is free to take over what it is about to start; only one that ``start`` made can do so."""
    processes.leave_orphans()
    _Trampoline.is_free = _Trampoline.running


def take_over(target: Callable[[int], None], log: Path, lock: int) -> bool:
    """Have this process itself run ``target`` at ``run_taken``; False where it is not free, or has one already.

    Args:
        target: is given a descriptor of its own of the lock, which no process that is started until then keeps.
    """
    if not _Trampoline.is_free:
        return False
    own = os.dup(lock)
    _Trampoline.is_free = False
    _Trampoline.taken, _Trampoline.lock = _Become(lambda: target(own), log), own
    _Trampoline.since, _Trampoline.acts = time.monotonic(), 0
    return True


def has_taken() -> bool:
    return _Trampoline.taken is not None


def is_awaited() -> bool:
    """Asked before each act for another attempt: whether what was taken over has waited long enough, and comes first."""
    if not has_taken():
        return False
    _Trampoline.acts += 1
    waited = time.monotonic() - _Trampoline.since
    return waited > PATIENCE_SEC or _Trampoline.acts > MOST_ACTS


def is_too_long() -> bool:
    """Asked before work of no bounded length: whether it is left to another process, as is then all that follows."""
    if has_taken():
        _Trampoline.acts = MOST_ACTS
    return has_taken()


def lent(seconds: float) -> None:
    """Let what was taken over wait for so long besides: something had to be done for another attempt while no lock was held."""
    _Trampoline.since += seconds


def run_taken() -> None:
    """Go on as what was taken over, which does not return; or, where nothing was, stop being free."""
    taken, _Trampoline.taken, _Trampoline.is_free = _Trampoline.taken, None, False
    if taken is not None:
        raise taken


def freeze_heap() -> None:
    """Take what was imported out of the collector's sight, and of the counting of references, so that no child copies what it only uses.

    ``gc.get_freeze_count`` does not tell whether that was done: Python 3.12 starts with some objects frozen.
    """
    if len(sys.modules) > _Heap.modules_frozen:
        from parallelhassnes.execute import shared_heap  # by then: a pass that starts nothing does without

        gc.collect()
        shared_heap.share()
        gc.freeze()
        gc.set_threshold(_GARBAGE, 20, 20)
        _Heap.modules_frozen = len(sys.modules)


def _run(target: Callable[[], None], log: Path) -> NoReturn:
    while True:
        try:
            _detach(log)
            target()
            sys.stdout.flush()
            os._exit(0)
        except _Become as become:
            target, log = become.target, become.log
        except BaseException as error:  # noqa: BLE001 - the last frame of a process: log it, whatever it is
            if isinstance(error, OSError) and space.is_full(error):
                line = f"{error.strerror} ({error.filename}); what it was to do is done again by a later tick"
                print(f"{log.stem}: {line}", file=sys.stderr)
            else:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)


def _detach(log: Path) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    reset_signals()
    processes.close_inherited()
    null = os.open(os.devnull, os.O_RDONLY)
    out = own_files.open_log(log)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for handle in (null, out):
        if handle > 2:
            os.close(handle)


def reset_signals() -> None:
    """Give every signal its default action: one that a parent ignored (nohup, ``&``) would stay ignored.

    A Ctrl-C that reached us between the fork and our own session is dropped: it was meant for the parent.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reap() -> None:
    """Collect those of our own that have ended."""
    for pid in tuple(_launched):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                _launched.discard(pid)
        except ChildProcessError:
            _launched.discard(pid)
