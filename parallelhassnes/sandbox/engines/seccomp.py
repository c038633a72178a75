"""The system calls that no process of a sandbox may make: a filter of the kernel's, in the spirit of Docker's default profile.

Refused with EPERM is what manages the host or has been a way into its kernel: mounts and namespaces, modules, other
processes' kernel objects, keyrings, BPF, performance counters, userfaultfd, io_uring, the clock, swap, quotas, and sockets
to the hypervisor (vsock) or to the kernel's crypto. Everything that is newer than ``_NEWEST`` does not exist (ENOSYS), and neither do
the calls of other architectures (32-bit programs); nor does ``clone3``, whose arguments a filter cannot read: C libraries
then use ``clone``, where flags for new namespaces are refused.

The program is what the kernel takes, an array of ``struct sock_filter``, made here of numbers of calls: no library is needed, and none
has to be found in the hot path of a trial.
"""

import errno
import functools
import platform
import struct
from typing import NamedTuple

_NEWEST = 462
"""mseal, of Linux 6.10; calls from 424 on have the same number on all architectures."""

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT, _ARGUMENT_1 = 0, 4, 16, 24
"""Offsets in ``struct seccomp_data``; of the arguments the lower 32 bits."""
_ALLOW = 0x7FFF0000
_ASK = 0x7FC00000
"""SECCOMP_RET_USER_NOTIF."""
_ERRNO = 0x00050000
_X32 = 0x40000000

_NEW_NAMESPACE = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_NEWUSER = 0x10000000
_FAMILIES = (40, 38)
"""AF_VSOCK, AF_ALG."""
_OF_NETWORKS = (2, 10, 16)
"""AF_INET, AF_INET6, AF_NETLINK."""
_TERMINAL = (0x5412, 0x541C)
"""TIOCSTI types into a terminal; TIOCLINUX pastes into a console."""


class _Machine(NamedTuple):
    audit: int
    """AUDIT_ARCH_…: how the kernel names the architecture."""
    clone: int
    setns: int
    socket: int
    ioctl: int
    refused: tuple[int, ...]


# Of all architectures, by the common numbers: pidfd_getfd is not among them, ptrace's rules hold for it.
_COMMON = """
io_uring_setup 425, io_uring_enter 426, io_uring_register 427, open_tree 428, move_mount 429, fsopen 430, fsconfig
431, fsmount 432, fspick 433, mount_setattr 442, quotactl_fd 443, statmount 457, listmount 458
"""
_X86_64 = """
uselib 134, ustat 136, sysfs 139, vhangup 153, pivot_root 155, _sysctl 156, acct 163, settimeofday 164, mount 165,
umount2 166, swapon 167, swapoff 168, reboot 169, iopl 172, ioperm 173, create_module 174, init_module 175,
delete_module 176, get_kernel_syms 177, query_module 178, quotactl 179, nfsservctl 180, syslog 103, lookup_dcookie
212, clock_settime 227, kexec_load 246, add_key 248, request_key 249, keyctl 250, migrate_pages 256, unshare 272,
move_pages 279, perf_event_open 298, fanotify_init 300, open_by_handle_at 304, clock_adjtime 305, kcmp 312,
finit_module 313, kexec_file_load 320, bpf 321, userfaultfd 323
"""
_AARCH64 = """
lookup_dcookie 18, umount2 39, mount 40, pivot_root 41, nfsservctl 42, vhangup 58, quotactl 60, acct 89, unshare 97,
kexec_load 104, init_module 105, delete_module 106, clock_settime 112, syslog 116, reboot 142, settimeofday 170,
add_key 217, request_key 218, keyctl 219, swapon 224, swapoff 225, migrate_pages 238, move_pages 239,
perf_event_open 241, fanotify_init 262, open_by_handle_at 265, clock_adjtime 266, kcmp 272, finit_module 273, bpf
280, userfaultfd 282, kexec_file_load 294
"""
_CLONE3 = 435


def _numbers(calls: str) -> tuple[int, ...]:
    """Return the numbers in a list of calls, each with its own behind its name."""
    return tuple(int(call.split()[1]) for call in calls.split(","))


_MACHINES = {
    "x86_64": _Machine(0xC000003E, clone=56, setns=308, socket=41, ioctl=16, refused=_numbers(_X86_64)),
    "aarch64": _Machine(0xC00000B7, clone=220, setns=268, socket=198, ioctl=29, refused=_numbers(_AARCH64)),
}


def machine_is_known() -> bool:
    """Tell whether there is a filter for this architecture."""
    return platform.machine() in _MACHINES


@functools.cache
def program() -> bytes:
    """Return the filter for this architecture; empty where there is none."""
    here = _MACHINES.get(platform.machine())
    if here is None:
        return b""
    gone, forbidden = _ERRNO | errno.ENOSYS, _ERRNO | errno.EPERM
    code = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, here.audit), (_RET, 0, 0, gone), (_LD, 0, 0, _NUMBER)]
    code += _if(_JGE, _NEWEST + 1, gone)  # also x32: its numbers have bit 30
    code += _if(_JEQ, _CLONE3, gone)
    for number in sorted((*here.refused, *_numbers(_COMMON))):
        code += _if(_JEQ, number, forbidden)
    code += _if_argument(here.clone, _ARGUMENT, _if(_JSET, _NEW_NAMESPACE, forbidden))
    # An engine's last step enters the user namespace that was made for it, and nobody has another to enter.
    into_user = [(_JEQ, 1, 0, _NEWUSER), (_RET, 0, 0, forbidden)]
    code += _if_argument(here.setns, _ARGUMENT_1, into_user)
    families = [step for family in _FAMILIES for step in _if(_JEQ, family, forbidden)]
    code += _if_argument(here.socket, _ARGUMENT, families)
    requests = [step for request in _TERMINAL for step in _if(_JEQ, request, forbidden)]
    code += _if_argument(here.ioctl, _ARGUMENT_1, requests)
    code.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in code)


@functools.cache
def socket_program() -> bytes:
    """Return a filter that has the kernel ask us before a process gets a socket of a network; empty where there is none."""
    here = _MACHINES.get(platform.machine())
    if here is None:
        return b""
    code = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, here.audit), (_RET, 0, 0, _ALLOW), (_LD, 0, 0, _NUMBER)]
    families = [step for family in _OF_NETWORKS for step in _if(_JEQ, family, _ASK)]
    code += _if_argument(here.socket, _ARGUMENT, families)
    code.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in code)


type _Step = tuple[int, int, int, int]


def _if(test: int, value: int, then: int) -> list[_Step]:
    return [(test, 0, 1, value), (_RET, 0, 0, then)]


def _if_argument(number: int, argument: int, tests: list[_Step]) -> list[_Step]:
    """Run ``tests`` on an argument of one call; whatever they do not refuse is allowed."""
    inner = [(_LD, 0, 0, argument), *tests, (_RET, 0, 0, _ALLOW)]
    return [(_JEQ, 0, len(inner), number), *inner]
