"""An ordinary account of the host, without a name: run by root as a script with a module to run as that account.

What the interpreter and the tests need may lie in folders that are closed to others (``/root``). In a mount namespace of its own these
folders are covered, and hold nothing but what is needed.
"""

import os
import stat
import sys
from pathlib import Path

NUMBER = 54321
CHECKOUT = Path(__file__).resolve().parent.parent.parent


def closed(path: str) -> str | None:
    """The topmost folder on the way to a path that only its owner may enter."""
    for folder in reversed(Path(path).parents):
        if not folder.stat().st_mode & 0o001:
            return str(folder)
    return None


def reveal(needed: set[str]) -> None:
    """Have these folders be reached by everybody, in this mount namespace."""
    from parallelhassnes.sandbox.engines import kernel

    tops: dict[str, list[str]] = {}
    for path in sorted(needed):
        if (top := closed(path)) is not None:
            tops.setdefault(top, []).append(path)
    for top, paths in tops.items():
        held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}
        kernel.mount("tmpfs", top, "tmpfs", 0, "mode=755")
        for path, handle in held.items():
            Path(path).mkdir(parents=True, exist_ok=True)
            source = f"/proc/self/fd/{handle}"
            kernel.mount(source, path, None, kernel.MS_BIND | kernel.MS_REC)
            os.close(handle)


def become() -> None:
    from parallelhassnes.sandbox.engines import kernel

    kernel.unshare_mounts()
    wanted = (sys.base_prefix, sys.prefix, str(CHECKOUT), *sys.path)
    reveal({os.path.realpath(path) for path in wanted if path and os.path.isdir(path)})
    tun = Path("/dev/net/tun")
    if tun.exists() and tun.stat().st_mode & 0o666 != 0o666:  # as every udev has it
        device = tun.stat().st_rdev
        kernel.mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755")
        os.mknod(tun, stat.S_IFCHR, device)
        tun.chmod(0o666)
    os.setgroups([])
    os.setresgid(NUMBER, NUMBER, NUMBER)
    os.setresuid(NUMBER, NUMBER, NUMBER)


if __name__ == "__main__":
    become()
    os.chdir("/")
    os.execv(sys.executable, [sys.executable, "-m", sys.argv[1]])
