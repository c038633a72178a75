"""Sandboxes by ``unshare``, ``mount`` and ``pivot_root`` of util-linux, which every Linux has."""

import os
from pathlib import Path

from parallelhassnes.steps.sandbox.blueprint import CAPABILITIES, HOSTNAME, Blueprint
from parallelhassnes.steps.sandbox.keeper import KEEPER
from parallelhassnes.steps.sandbox.layout import inside

_PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs")


class Unshare:
    """unshare(1), mount(8) and pivot_root(8) of util-linux, 2.32 or later."""

    name = "unshare"
    programs = ("unshare", "mount", "umount", "pivot_root", "setpriv", "bash")
    # All mounts are one call of mount(8): a process per mount would take longer than the rest together.
    _SCRIPT = (
        'set -e; mount --all --fstab "$1"; hostname "$3" 2>/dev/null || :; $4; '
        'cd "$2"; shift 4; pivot_root . .; umount -l .; exec "$@"'
    )
    # A new network namespace has a loopback that is down; bubblewrap raises its own.
    _RAISE_LOOPBACK = "ip link set lo up"

    def command(self, blueprint: Blueprint) -> list[str]:
        fstab = blueprint.scratch / "fstab"
        fstab.write_text("".join(_fstab(blueprint)), encoding="utf-8")
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--uts", "--ipc", "--pid"]
        if not blueprint.network:
            argv.append("--net")
        if blueprint.user_namespace:
            argv += ["--user", "--map-root-user"]
        argv += ["--fork", "--kill-child", "--propagation", "private", "sh", "-c", self._SCRIPT]
        loopback = ":" if blueprint.network else self._RAISE_LOOPBACK
        bounding = "-all," + ",".join(f"+{name}" for name in CAPABILITIES)
        confine = ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounding}"]
        return [*argv, "sh", str(fstab), str(blueprint.root), HOSTNAME, loopback, *confine, *KEEPER]


def _fstab(blueprint: Blueprint) -> list[str]:
    """The mounts as lines of an fstab, for a root folder that is not ``/`` yet."""
    table = _host_mounts()
    root = str(blueprint.root)
    lines = [_line(root, root, "rbind")]
    for mount in blueprint.mounts:
        target = root + mount.target
        if mount.kind in {"rw", "device"}:
            lines.append(_line(mount.source, target, "rbind"))
            continue
        lines.append(_line(mount.source, target, f"rbind,ro{_flags(mount.source, table)}"))
        # Read-only holds for one mount, not for what is mounted below it: bind each of those again.
        for below in table if mount.kind == "ro" else ():
            if below != mount.source and inside(below, mount.source):
                again = target + below[len(mount.source.rstrip("/")) :]
                lines.append(_line(below, again, f"rbind,ro{_flags(below, table)}"))
    lines.append(_line("proc", f"{root}/proc", "nosuid,nodev,noexec", "proc"))
    lines.append(
        _line("devpts", f"{root}/dev/pts", "newinstance,ptmxmode=0666,mode=0620", "devpts")
    )
    lines.append(_line("shm", f"{root}/dev/shm", "nosuid,nodev,mode=1777", "tmpfs"))  # noqa: S108
    if not blueprint.user_namespace:  # in a user namespace nobody is root for these files
        for name in _PROC_READ_ONLY:
            if Path("/proc", name).exists():
                place = f"{root}/proc/{name}"
                lines.append(_line(place, place, "rbind,ro,nosuid,nodev,noexec"))
    return lines


def _host_mounts() -> dict[str, set[str]]:
    """Mount points of this process, parents first, with those of their flags that must be kept."""
    table: dict[str, set[str]] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split(" ")
        point = fields[4].encode().decode("unicode_escape").encode("latin-1").decode()
        table[point] = {"nosuid", "nodev", "noexec"} & set(fields[5].split(","))
    return dict(sorted(table.items()))


def _flags(path: str, table: dict[str, set[str]]) -> str:
    """Flags of the mount that holds ``path``: a user namespace may not take any of them away."""
    real = os.path.realpath(path)
    holder = max((point for point in table if inside(real, point)), key=len, default="/")
    return "".join(f",{flag}" for flag in sorted(table.get(holder, set())))


def _line(source: str, target: str, options: str, kind: str = "none") -> str:
    return f"{_escaped(source)} {_escaped(target)} {kind} {options} 0 0\n"


def _escaped(text: str) -> str:
    for char in "\\ \t\n#":
        text = text.replace(char, f"\\{ord(char):03o}")
    return text
