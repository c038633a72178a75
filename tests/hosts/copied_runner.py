"""A runner whose machine may be copied as it runs: ``copied_runner.py ROOT CAPACITY``; at SIGUSR1 it is there twice.

The copy is a fork in the middle of the loop: as after a snapshot of a machine's memory, both have the same identity, locks and state, and
neither is told. What each says goes to its own ``ROOT/../runner.PID.log``.
"""

import os
import signal
import sys
from pathlib import Path

from parallelhassnes.actions.pull_runner import pull


def main(root: str, capacity: str) -> None:
    _say_to(root)

    def copy(*_: object) -> None:
        if os.fork() == 0:
            _say_to(root)

    signal.signal(signal.SIGUSR1, copy)
    pull(Path(root), capacity=int(capacity))


def _say_to(root: str) -> None:
    log = os.open(f"{root}/../runner.{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


if __name__ == "__main__":
    main(*sys.argv[1:])
