"""Sandboxes by the kernel's own calls: the process that becomes the keeper makes them itself, between fork and exec.

Two processes: the first makes the namespaces and a child of its own parent, and ends, for to wait beside it would keep a copy of all
that its parent has changed since. That child is the first of the new pid namespace. What it does after its root is the sandbox's must
import and load nothing: a trial's files are there.
"""

import contextlib
import errno
import os
import signal
import socket
from pathlib import Path

from parallelhassnes.sandbox.engines import kernel, seccomp
from parallelhassnes.sandbox.engines.blueprint import (
    CAPABILITIES,
    HOSTNAME,
    PROC_MASKED,
    PROC_READ_ONLY,
    Blueprint,
    SandboxLaunch,
    proc_entries,
)
from parallelhassnes.sandbox.engines.spaces import Spaces
from parallelhassnes.sandbox.engines.trigger import Trigger
from parallelhassnes.sandbox.keeper import keeper_argv
from parallelhassnes.sandbox.root_layout import inside

_SEALED = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_KEPT = {"ro": kernel.MS_RDONLY, "nosuid": kernel.MS_NOSUID, "nodev": kernel.MS_NODEV, "noexec": kernel.MS_NOEXEC}
_COVERED = {errno.EINVAL, errno.ENOENT}
"""Another mount covers this one, so that its path is no mount point, and nothing reaches it."""
_MANY = 1 << 20


class Unshare:
    """unshare(2), mount(2), setns(2) and the rest."""

    name = "unshare"
    programs = ("bash",)

    def launch(self, blueprint: Blueprint) -> SandboxLaunch:
        program = seccomp.program()
        kept_in = kernel.can_keep_in()
        masked, read_only = proc_entries(PROC_MASKED), proc_entries(PROC_READ_ONLY)
        folders = {path for path in masked if Path(path).is_dir()}
        covers = [(str(blueprint.scratch / ("empty" if path in folders else "nothing")), path) for path in masked]

        def prepare() -> None:
            _fork_into_namespaces(blueprint)
            root = str(blueprint.root)
            _mount_all(blueprint, root)
            _mount_own(root, blueprint.spaces.owner)
            for source, path in [*covers, *((f"{root}{path}", path) for path in read_only)]:
                _seal(source, root + path)
            socket.sethostname(HOSTNAME)
            os.chdir(root)
            kernel.pivot_here()
            confine(blueprint.spaces, CAPABILITIES, program, blueprint.trigger, kept_in=kept_in)

        return SandboxLaunch(keeper_argv(), prepare, leaves_it=True)


def confine(
    given: Spaces, capabilities: tuple[str, ...], program: bytes, trigger: Trigger | None, *, kept_in: bool = False
) -> None:
    """Become root of the sandbox and of nothing else, for ever.

    Args:
        kept_in: without a way to what runs beside it: not so a verifier, which has to see the agent's processes.
    """
    if given.owner is not None:  # else we are in it already
        os.setns(given.user, os.CLONE_NEWUSER)
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    kernel.die_with_parent()
    kernel.keep_capabilities(capabilities)
    if kept_in:
        kernel.keep_in(abstract_sockets=given.network is not None)
    if trigger is not None:
        trigger.install()
    if program:
        kernel.filter_calls(program)


def _fork_into_namespaces(blueprint: Blueprint) -> None:
    """Return in a child that is the first process of new namespaces."""
    kernel.die_with_parent()
    given = blueprint.spaces
    if given.owner is None:
        os.setns(given.user, os.CLONE_NEWUSER)
    blueprint.join()
    blueprint.begin_mounts()
    os.unshare(os.CLONE_NEWPID | os.CLONE_NEWIPC | os.CLONE_NEWUTS)
    leave_behind()


def leave_behind() -> None:
    """Return in a child of our parent, and end; the number of that child is a line of our standard output."""
    child = kernel.fork_beside()
    if child == 0:
        kernel.die_with_parent()
        return
    os.write(1, b"%d\n" % child)
    os._exit(0)


def watch_over() -> None:
    """Fork, and return in the child; the parent kills it when its own parent dies.

    For a program that changes its rights, so that the kernel forgets whom it was to die with.
    """
    before = os.getppid()
    watched = {signal.SIGTERM, signal.SIGCHLD}
    was = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, was)
        return
    _forget()
    kernel.die_with_parent(signal.SIGTERM)
    if os.getppid() != before or signal.sigwait(watched) == signal.SIGTERM:
        os.kill(child, signal.SIGKILL)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def _forget() -> None:
    """Have nothing of the process that was copied: neither its descriptors nor what it does about signals."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.closerange(0, _MANY)


def _mount_all(blueprint: Blueprint, root: str) -> None:
    kernel.mount(root, root, None, kernel.MS_BIND | kernel.MS_REC)
    devices: set[str] = set()
    read_only: set[str] = set()
    for mount in blueprint.mounts:
        target = root + mount.target
        kernel.mount(mount.source, target, None, kernel.MS_BIND | kernel.MS_REC)
        if mount.kind == "device":
            devices.add(target)
        elif mount.kind != "rw":
            read_only.add(target)
    # Flags hold for one mount, not for what is mounted below it, and none that it has may be taken away.
    for point, had in _mounts_below(root):
        flags = had | kernel.MS_NOSUID | (0 if point in devices else kernel.MS_NODEV)
        if _is_in_one(point, read_only):
            flags |= kernel.MS_RDONLY
        if flags == had:
            continue
        try:
            kernel.mount("none", point, None, kernel.MS_REMOUNT | kernel.MS_BIND | flags)
        except OSError as error:
            if error.errno not in _COVERED:
                raise


def _is_in_one(path: str, tops: set[str]) -> bool:
    """Tell whether the path is one of these, or in one."""
    while path not in tops:
        if not path:
            return False
        path = path.rpartition("/")[0]
    return True


def _mounts_below(root: str) -> list[tuple[str, int]]:
    """Mount points of this process at and below ``root``, with those of their flags that must be kept."""
    found: list[tuple[str, int]] = []
    for line in Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split(" ", 6)
        point = fields[4]
        if "\\" in point:
            point = point.encode().decode("unicode_escape").encode("latin-1").decode()
        if inside(point, root):
            options = fields[5].split(",")
            found.append((point, sum(_KEPT.get(option, 0) for option in options)))
    return found


def _mount_own(root: str, owner: int | None) -> None:
    """Tell what is new in a sandbox: its processes, its terminals, its shared memory."""
    kernel.mount("proc", f"{root}/proc", "proc", _SEALED & ~kernel.MS_RDONLY)
    quiet = kernel.MS_NOSUID | kernel.MS_NOEXEC
    kernel.mount("devpts", f"{root}/dev/pts", "devpts", quiet, "newinstance,ptmxmode=0666,mode=0620")
    whose = "" if owner is None else f",uid={owner},gid={owner}"
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("shm", f"{root}/dev/shm", "tmpfs", flags, f"mode=1777{whose}")  # noqa: S108


def _seal(source: str, target: str) -> None:
    kernel.mount(source, target, None, kernel.MS_BIND)
    kernel.mount("none", target, None, kernel.MS_REMOUNT | kernel.MS_BIND | _SEALED)
