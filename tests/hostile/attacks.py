"""What a hostile program tries; run by a Python inside a sandbox, so nothing but the standard library.

Prints one JSON object: the attack's name → what it came to, the name of the errno where the kernel refused it.
"""

import ctypes
import errno
import glob
import json
import os
import platform
import socket
import stat

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        "mount": 165,
        "umount2": 166,
        "unshare": 272,
        "setns": 308,
        "bpf": 321,
        "userfaultfd": 323,
        "perf_event_open": 298,
        "keyctl": 250,
        "add_key": 248,
        "request_key": 249,
        "kexec_load": 246,
        "init_module": 175,
        "finit_module": 313,
        "open_by_handle_at": 304,
        "pivot_root": 155,
        "swapon": 167,
        "reboot": 169,
        "acct": 163,
        "syslog": 103,
        "clock_settime": 227,
        "clone": 56,
    },
    "aarch64": {
        "mount": 40,
        "umount2": 39,
        "unshare": 97,
        "setns": 268,
        "bpf": 280,
        "userfaultfd": 282,
        "perf_event_open": 241,
        "keyctl": 219,
        "add_key": 217,
        "request_key": 218,
        "kexec_load": 104,
        "init_module": 105,
        "finit_module": 273,
        "open_by_handle_at": 265,
        "pivot_root": 41,
        "swapon": 224,
        "reboot": 142,
        "acct": 89,
        "syslog": 116,
        "clock_settime": 112,
        "clone": 220,
    },
}
COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "mount_setattr": 442,
    "clone3": 435,
    "newer than the filter": 500,
}
ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__] = function
    return function


def called(number, *arguments):
    """What a system call came to: the errno's name, or its result."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in (*arguments, 0, 0, 0, 0, 0)[:6]])
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result


def refused(act):
    try:
        return act()
    except OSError as error:
        return errno.errorcode[error.errno]


def read(path):
    with open(path, "rb") as file:
        return file.read()


@attack
def system_calls():
    known = {**NUMBERS[platform.machine()], **COMMON}
    found = {name: called(number) for name, number in known.items() if name not in ("clone", "setns", "unshare")}
    found["unshare(user)"] = called(known["unshare"], 0x10000000)
    found["unshare(mount)"] = called(known["unshare"], 0x00020000)
    found["clone(user)"] = called(known["clone"], 0x10000000 | 17)
    found["clone(mount)"] = called(known["clone"], 0x00020000 | 17)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    found["setns(mount)"] = called(known["setns"], own, 0x00020000)
    found["setns(any)"] = called(known["setns"], own, 0)
    return found


@attack
def sockets():
    kinds = {"vsock": 40, "alg": 38, "packet": 17}
    return {
        name: refused(lambda f=family: socket.socket(f, socket.SOCK_RAW if f == 17 else socket.SOCK_STREAM) and "open")
        for name, family in kinds.items()
    }


@attack
def kernel_settings():
    """A value that the kernel takes: with one that it does not, everything is refused."""
    paths = (
        "kernel/core_pattern",
        "kernel/printk",
        "kernel/randomize_va_space",
        "vm/overcommit_memory",
        "fs/suid_dumpable",
    )

    def write_back(path):
        with open("/proc/sys/" + path, "rb") as file:
            now = file.read()
        with open("/proc/sys/" + path, "wb", buffering=0) as file:
            file.write(now)
        return "written"

    return {path: refused(lambda p=path: write_back(p)) for path in paths}


@attack
def other_files_of_proc():
    def append(path):
        with open(path, "wb", buffering=0) as file:
            file.write(b"h")
        return "written"

    found = {
        path: refused(lambda p=path: append(p))
        for path in ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity")
        if os.path.exists(path)
    }
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"):
        found[path] = refused(lambda p=path: len(read(p)[:64]))
    return found


@attack
def capabilities():
    lines = dict(line.split(":\t") for line in read("/proc/self/status").decode().splitlines() if ":\t" in line)
    return {
        name: lines[name].strip()
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    }


@attack
def users():
    return {"uid": os.getuid(), "map": [line.split() for line in open("/proc/self/uid_map")]}


@attack
def devices_and_rights():
    def file_capability():
        with open("/app/rights", "w"):
            os.setxattr("/app/rights", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        return "set"

    return {
        "mknod": refused(lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)) or "made"),
        "setfcap": refused(file_capability),
        "sethostname": refused(lambda: socket.sethostname("x") or "set"),
    }


@attack
def set_id_files():
    """Left for the seal: a set-user-id program, also under a second name."""
    with open("/logs/artifacts/rooted", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod("/logs/artifacts/rooted", 0o6755)
    os.link("/logs/artifacts/rooted", "/logs/artifacts/second")
    return oct(os.stat("/logs/artifacts/second").st_mode & 0o7777)


@attack
def nested_proc():
    return {
        "mounts": [line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "proc"],
        "pids": len(glob.glob("/proc/[0-9]*")),
    }


if __name__ == "__main__":
    print(json.dumps({name: act() for name, act in ATTACKS.items()}))
