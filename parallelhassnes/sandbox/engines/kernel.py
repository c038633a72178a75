"""System calls that Python's standard library lacks, for a child that has been forked and makes itself a sandbox.

Everything here is looked up when the module is imported: the child runs on a file system that is not the host's any more,
where nothing may be imported or loaded. Each function raises OSError.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import platform
import signal
import socket
import struct
from collections.abc import Iterable, Iterator

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

_CAPABILITIES = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
"""
CAPABILITIES = tuple(_CAPABILITIES.split())
"""Names by number, as in ``linux/capability.h``."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_LANDLOCK = 444
_MAKE_DEVICES, _REFER, _SCOPE_ABSTRACT, _SCOPE_SIGNALS = 1 << 6 | 1 << 11, 1 << 13, 1, 2
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_HERE, _EMPTY_PATH, _CLONE_TREE, _IDMAP = -100, 0x1000, 0x80001, 0x100000
_NEW_ROUTE, _CREATE = 24, 0x1 | 0x4 | 0x400
_CLONE_VM, _CLONE_PARENT = 0x100, 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "ppc64le": 120, "s390x": 120}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)
_mount, _umount2, _prctl, _capset = _libc.mount, _libc.umount2, _libc.prctl, _libc.capset
_syscall = _libc.syscall
_clone = _libc.clone
_syscall_held = ctypes.PyDLL(None, use_errno=True).syscall
"""With the interpreter's lock kept, which a copy of this process could not take again."""
_clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
_stack = ctypes.create_string_buffer(1 << 16)
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_pivot_root = _PIVOT_ROOT.get(platform.machine())


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    of_kind = kind.encode() if kind else None
    _check(_mount(os.fsencode(source), os.fsencode(target), of_kind, flags, data.encode()), target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_umount2(os.fsencode(target), flags), target)


@contextlib.contextmanager
def sleeper(namespaces: int) -> Iterator[int]:
    """Give a child that only waits, in new namespaces (``CLONE_NEW…``), until the end of the block; its number.

    It runs ``pause`` of the C library on a stack of its own in this process's memory, so nothing is copied for it, and no signal is
    ever delivered to it but the one that ends it. One at a time.
    """
    was = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        top = (ctypes.addressof(_stack) + len(_stack)) & ~15
        child = _clone(_pause, top, _CLONE_VM | namespaces | signal.SIGCHLD, None)
        _check(min(child, 0), "clone")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, was)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def fork_beside() -> int:
    """Fork a child that is no child of this process, but of its parent; return its number, and 0 in it.

    Only for a process of one thread that has been forked itself: nothing is told of it to the C library, nor to Python.
    """
    number = _CLONE.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "clone")
    arguments = [ctypes.c_ulong(_CLONE_PARENT | signal.SIGCHLD), *[ctypes.c_ulong(0)] * 4]
    if platform.machine() == "s390x":
        arguments[:2] = reversed(arguments[:2])
    child = int(_syscall_held(number, *arguments))
    _check(min(child, 0), "clone")
    return child


def unshare_mounts() -> None:
    """A mount namespace of our own; what is mounted in it stays in it."""
    os.unshare(os.CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def pivot_here() -> None:
    """Make the current folder, a mount point, the root; what was the root is let go."""
    if _pivot_root is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "pivot_root")
    _check(_syscall(_pivot_root, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def remap(path: str, user: int) -> None:
    """Have a folder's files belong, in this mount namespace, to the users of a user namespace: an idmapped mount.

    What belongs to the host's user 0 then belongs to root of that namespace. Linux 5.12, and not on every file system.
    """
    tree = _syscall(_OPEN_TREE, _HERE, os.fsencode(path), ctypes.c_uint(_CLONE_TREE))
    _check(min(tree, 0), "open_tree")
    try:
        attributes = struct.pack("QQQQ", _IDMAP, 0, 0, user)
        size = ctypes.c_size_t(len(attributes))
        _check(_syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, size), "mount_setattr")
        _check(_syscall(_MOVE_MOUNT, tree, b"", _HERE, os.fsencode(path), 4), "move_mount")
    finally:
        os.close(tree)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies; a change of user clears it."""
    _check(_prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def keep_capabilities(names: Iterable[str]) -> None:
    """Have these and no others, for ever: no program gives this process or its children any other again."""
    kept = sum(1 << CAPABILITIES.index(name) for name in names)
    for number in range(64):
        if not kept >> number & 1 and _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # the kernel knows no more of them
    words = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = b"".join(struct.pack("III", word, word, 0) for word in words)
    _check(_capset(header, sets), "capset")
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter, an array of ``struct sock_filter``; needs no_new_privs."""
    with _filter(program) as address:
        _check(_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address, 0, 0), "seccomp")


def listen_for_calls(program: bytes) -> int:
    """Install a filter that has the kernel ask; return the descriptor on which it asks."""
    number = _SECCOMP.get(platform.machine())
    if number is None or not program:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "seccomp")
    with _filter(program) as address:
        listener = _syscall(number, 1, 8, ctypes.c_void_p(address))  # SET_MODE_FILTER, NEW_LISTENER
    _check(min(listener, 0), "seccomp")
    return int(listener)


@contextlib.contextmanager
def _filter(program: bytes) -> Iterator[int]:
    """Give the address of a ``struct sock_fprog``."""
    array = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(array))
    held = ctypes.create_string_buffer(header, len(header))
    yield ctypes.addressof(held)


@functools.cache
def can_keep_in() -> bool:
    """Tell whether this kernel's Landlock keeps signals in: version 6, Linux 6.12."""
    return int(_syscall(_LANDLOCK, None, ctypes.c_size_t(0), ctypes.c_uint(1))) >= 6


def keep_in(*, abstract_sockets: bool, may_mount: bool = False) -> None:
    """Have this process and its children reach by signals, and by ptrace's ways, only each other (Landlock).

    Also make them no devices, and change no mounts, whatever rights they win. Needs ``can_keep_in``, and no_new_privs or
    ``CAP_SYS_ADMIN``.

    Args:
        abstract_sockets: keep them from those of others, too.
        may_mount: leave them mounts and devices: for a program that has yet to make the sandbox.
    """
    scopes = _SCOPE_SIGNALS | (_SCOPE_ABSTRACT if abstract_sockets else 0)
    rules = struct.pack("QQQ", 0 if may_mount else _MAKE_DEVICES | _REFER, 0, scopes)
    ruleset = _syscall(_LANDLOCK, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint(0))
    _check(min(ruleset, 0), "landlock")
    try:
        if not may_mount:
            _allow_renames(ruleset)
        _check(_syscall(_LANDLOCK + 2, ruleset, ctypes.c_uint(0)), "landlock")
    finally:
        os.close(ruleset)


def _allow_renames(ruleset: int) -> None:
    """Allow renames into another folder: Landlock refuses these unless they are named, and leaves all else that is not named free."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        allowed = struct.pack("=Qi", _REFER, top)
        _check(_syscall(_LANDLOCK + 1, ruleset, 1, allowed, ctypes.c_uint(0)), "landlock")
    finally:
        os.close(top)


def raise_loopback() -> None:
    """Bring up the loopback of this process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def never_route(addresses: Iterable[bytes]) -> None:
    """Have packets to these addresses, packed ones, go nowhere in this process's network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        for address in addresses:
            family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
            # struct rtmsg: family, lengths, service, table (main), protocol (static), scope, type (prohibit); then the destination.
            message = struct.pack("BBBBBBBBI", family, len(address) * 8, 0, 0, 254, 4, 0, 8, 0)
            message += struct.pack("HH", 4 + len(address), 1) + address
            header = struct.pack("IHHII", 16 + len(message), _NEW_ROUTE, _CREATE, 1, 0)
            netlink.send(header + message)
            (number,) = struct.unpack_from("i", netlink.recv(4096), 16)
            if number and -number not in {errno.EEXIST, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
                raise OSError(-number, os.strerror(-number), "route")
