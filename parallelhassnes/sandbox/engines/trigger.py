"""Learning of the first socket of a sandbox: its network is joined to the world only when somebody is about to use it.

A second seccomp filter has the kernel ask us (``SECCOMP_RET_USER_NOTIF``) whenever a process of the sandbox wants a socket of the
internet or one that tells of interfaces. The process waits until we let it go on; we never refuse, that is the other filter's
work, so nothing is won by changing a call's arguments meanwhile. Its descriptor comes to us over a socket pair from the process that installs the filter.
Where the kernel does not do this, there is none, and the network is joined at once.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct

from parallelhassnes.sandbox.engines import kernel, seccomp

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV, _SEND; of ``struct seccomp_notif`` (80 bytes) and ``seccomp_notif_resp``."""
_CONTINUE = 1


class Trigger:
    """For one keeper: made before the fork, installed by the child."""

    def __init__(self) -> None:
        self._program = seccomp.socket_program()
        self._ours, self._theirs = socket.socketpair()

    def install(self) -> None:
        """Install the filter in this process; needs no_new_privs, or the right to administer its user namespace."""
        with contextlib.suppress(OSError):  # then nobody is told, and the network is joined at once
            listener = kernel.listen_for_calls(self._program)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", listener))
            self._theirs.sendmsg([b"."], [rights])
            os.close(listener)

    def listener(self) -> int | None:
        """Once the keeper runs: the descriptor on which the kernel asks us; None where it asks nobody."""
        found = None
        with contextlib.suppress(BlockingIOError):
            _, more, _, _ = self._ours.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
            found = next((int(struct.unpack("i", data)[0]) for _, _, data in more), None)
        self.close()
        return found

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def question(listener: int) -> bytes | None:
    """Return the number of a call that waits; None where there is none, or it waits no more."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not any(event & select.POLLIN for _, event in poll.poll(0)):
        return None
    asked = bytearray(80)
    try:
        fcntl.ioctl(listener, _RECEIVE, asked)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # who asked was killed
            return None
        raise
    return bytes(asked[:8])


def is_over(listener: int) -> bool:
    """Tell whether no process is left that could ask."""
    poll = select.poll()
    poll.register(listener, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def let_go_on(listener: int, number: bytes) -> None:
    """Have the call be made as if nobody had asked."""
    with contextlib.suppress(FileNotFoundError):  # who asked was killed
        fcntl.ioctl(listener, _SEND, struct.pack("8sqiI", number, 0, 0, _CONTINUE))
