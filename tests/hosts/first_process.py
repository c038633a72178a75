"""The first process of an emulated host: names it, hides the machine's identity, and reaps. ``first_process.py NAME FOLDER``.

FOLDER holds ``boot_id`` and ``machine_id`` of the host, which are mounted over the machine's own. Says ``up`` when it is.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys


def main(name: str, folder: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    socket.sethostname(name)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for own, machines in (("boot_id", "/proc/sys/kernel/random/boot_id"), ("machine_id", "/etc/machine-id")):
        if os.path.exists(machines):
            subprocess.run(["mount", "--bind", f"{folder}/{own}", machines], check=True)
    for name in (
        ".profile",
        ".bash_profile",
        ".bashrc",
    ):  # what a login runs there may leave locks behind when the host dies
        started = os.path.expanduser(f"~root/{name}")
        if os.path.isfile(started):
            subprocess.run(["mount", "--bind", "/dev/null", started], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)  # the machine's network has it up
    print("up", flush=True)
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait([signal.SIGCHLD])


if __name__ == "__main__":
    main(*sys.argv[1:])
