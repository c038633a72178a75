"""Sandboxes by bubblewrap, https://github.com/containers/bubblewrap."""

from parallelhassnes.steps.sandbox.blueprint import CAPABILITIES, HOSTNAME, Blueprint
from parallelhassnes.steps.sandbox.keeper import KEEPER


class Bubblewrap:
    """``bwrap``, 0.5 or later."""

    name = "bubblewrap"
    programs = ("bwrap", "bash")

    def command(self, blueprint: Blueprint) -> list[str]:
        argv = ["bwrap", "--die-with-parent", "--as-pid-1", "--hostname", HOSTNAME]
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
        for capability in CAPABILITIES:
            argv += ["--cap-add", f"CAP_{capability.upper()}"]
        if not blueprint.network:
            argv.append("--unshare-net")
        if blueprint.user_namespace:
            argv += ["--unshare-user", "--uid", "0", "--gid", "0"]
        argv += ["--bind", str(blueprint.root), "/"]
        options = {"ro": "--ro-bind", "rw": "--bind", "hide": "--ro-bind"}
        for mount in blueprint.mounts:
            if mount.kind in options:
                argv += [options[mount.kind], mount.source, mount.target]
        argv += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
        return [*argv, "--chdir", "/", *KEEPER]
