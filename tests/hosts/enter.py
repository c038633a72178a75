"""Run a program in the namespaces of another process: ``enter.py PID NAMESPACES PROGRAM …``, as in ``enter.py 7 uts,mnt true``.

Unlike nsenter it does not stop with what it started, which a freeze of the host stops. What is told to end passes that on.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(pid: str, namespaces: str, program: list[str]) -> int:
    _die_with_parent()
    folder = os.getcwd()
    opened = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in namespaces.split(",")]
    for descriptor in opened:
        os.setns(descriptor)
        os.close(descriptor)
    os.chdir(folder)
    child = os.fork()
    if not child:
        _die_with_parent()
        os.execvp(program[0], program)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
