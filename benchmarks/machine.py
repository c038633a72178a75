"""The machine and the versions that a figure is worth nothing without."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("parallelhassnes", "harbor", "pydantic", "filelock", "litellm")


def describe(folder: Path) -> dict[str, Any]:
    """The machine as a JSON document.

    Args:
        folder: where the stores are made; its filesystem is named.
    """
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "filesystem": _line("stat", "-f", "-c", "%T", str(folder)),
        "fsync_ms": round(_fsync_ms(folder), 3),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _line("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "docker": _line("docker", "version", "--format", "{{.Server.Version}}"),
        "bubblewrap": _line("bwrap", "--version"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fsync_ms(folder: Path) -> float:
    """Median time of a small write that waits for the disk."""
    import time

    times = []
    path = folder / "fsync-probe"
    for _ in range(20):
        began = time.perf_counter()
        with path.open("wb") as stream:
            stream.write(b"x" * 500)
            stream.flush()
            os.fsync(stream.fileno())
        times.append(time.perf_counter() - began)
    path.unlink()
    return sorted(times)[10] * 1000


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else None
