"""Sandboxes by bubblewrap, https://github.com/containers/bubblewrap."""

import os

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
from parallelhassnes.sandbox.keeper import keeper_argv
from parallelhassnes.sandbox.programs import program


class Bubblewrap:
    """``bwrap``, 0.5 or later.

    An ordinary user's is started in the user namespace. Root's cannot be of that kind: it has to reach folders of the host that are
    closed to others, so the keeper enters the user namespace at the very end, by ``nsenter``.
    """

    name = "bubblewrap"
    programs = ("bwrap", "nsenter", "setpriv", "bash")

    def launch(self, blueprint: Blueprint) -> SandboxLaunch:
        user, owner = blueprint.spaces.user, blueprint.spaces.owner
        handles = [] if owner is None else [user]
        own: list[int] = []
        argv = ["bwrap", "--die-with-parent", "--as-pid-1", "--hostname", HOSTNAME]
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
        for capability in (*CAPABILITIES, "setpcap"):  # to give up more for ever, this one too
            argv += ["--cap-add", f"CAP_{capability.upper()}"]
        if calls := seccomp.program():
            own = [_file(calls)]
            argv += ["--seccomp", str(own[0])]
        argv += ["--bind", str(blueprint.root), "/"]
        options = {"ro": "--ro-bind", "rw": "--bind", "hide": "--ro-bind"}
        for mount in blueprint.mounts:
            if mount.kind in options:
                argv += [options[mount.kind], mount.source, mount.target]
        argv += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
        for path in proc_entries(PROC_READ_ONLY):
            argv += ["--ro-bind", path, path]
        for path in proc_entries(PROC_MASKED):
            cover = "empty" if os.path.isdir(path) else "nothing"  # noqa: PTH112
            argv += ["--ro-bind", str(blueprint.scratch / cover), path]
        argv += ["--chdir", "/"]
        if owner is not None:
            argv += [program("nsenter"), f"--user=/proc/self/fd/{user}", "--setuid=0", "--setgid=0"]
        bounding = "-all," + ",".join(f"+{name}" for name in CAPABILITIES)
        argv += [program("setpriv"), "--no-new-privs", "--pdeathsig=KILL", "--inh-caps=-all", "--ambient-caps=-all"]
        argv.append(f"--bounding-set={bounding}")

        def prepare() -> None:
            kernel.die_with_parent()
            if owner is None:
                os.setns(user, os.CLONE_NEWUSER)
            blueprint.join()
            blueprint.begin_mounts()
            if kernel.can_keep_in():  # before ``bwrap``, which has yet to mount
                private = blueprint.spaces.network is not None
                kernel.keep_in(abstract_sockets=private, may_mount=True)
            if blueprint.trigger is not None:
                blueprint.trigger.install()

        return SandboxLaunch([*argv, *keeper_argv()], prepare, [*handles, *own], own)


def _file(content: bytes) -> int:
    """Return an open file with this content, at its beginning."""
    handle = os.memfd_create("seccomp")
    os.write(handle, content)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle
