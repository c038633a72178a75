"""The surroundings of every test: no home folder, temporary files inside the checkout, skips that say what to do.

``make test`` tries a test that failed once more and lists it: they all run real processes beside each other, and a machine that
is busy may miss a deadline. It never does so with the tests that kill.

PARALLELHASSNES_FORBID_SKIPS=1, set by CI, makes a failure of every skip, whatever its reason, and has Hypothesis try the same
examples each time, so that what fails there is the change and not the draw.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from probes import PROBES, programs

if TYPE_CHECKING:
    import buckets

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD = CHECKOUT / "build" / "test"
PODMAN = os.environ.get("PODMAN") == "1"
collect_ignore = [
    *([] if PODMAN else ["steps/test_trial_podman.py"]),
    *([] if os.environ.get("CONVERSATION") == "1" else ["steps/test_simulated_user.py"]),
]
"""``make podman`` and ``make conversation`` have the tests of what few machines have, and CI does not install."""
KILLS = CHECKOUT / "tests" / "faults"
FORBID_SKIPS = os.environ.get("PARALLELHASSNES_FORBID_SKIPS") == "1"

# How long an example takes is a matter of what else runs on the machine, so no test fails of that.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("patient", patient)
settings.register_profile("same", patient, derandomize=True)
settings.load_profile("same" if FORBID_SKIPS else "patient")

_NOT_USUAL = ("CODEX_HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""With the second, each of the thousands of programs that tests start would compile all that it imports. With the third none would keep
back what it writes, as it does for users."""
NO_HOME = str(BUILD / "no-home") if PODMAN else "/dev/null/home"
"""A home folder that cannot be made or written, not even by root: its parent is not a directory. Podman starts nothing there."""


def _docker_without_home() -> dict[str, str]:
    """The Docker CLI's engine and plugins, as found under the real home, in a folder of the checkout."""
    config = BUILD / "docker"
    config.mkdir(parents=True, exist_ok=True)
    settings: dict[str, str] = {"DOCKER_CONFIG": str(config)}
    own = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    if own == config:
        return settings
    plugins = config / "cli-plugins"
    if (own / "cli-plugins").is_dir() and not plugins.is_symlink():
        try:
            plugins.symlink_to(own / "cli-plugins")
        except FileExistsError:
            assert plugins.is_symlink()  # another test process was first
    if "DOCKER_HOST" not in os.environ and (own / "config.json").is_file():
        told = subprocess.run(["docker", "context", "inspect"], capture_output=True, text=True)
        if told.returncode == 0:
            settings["DOCKER_HOST"] = json.loads(told.stdout)[0]["Endpoints"]["docker"]["Host"]
    return settings


def _isolate() -> None:
    """Set the environment of this process and of all that it starts; before anything reads it."""
    tmp = BUILD / "tmp"
    tmp.mkdir(parents=True, exist_ok=True)
    docker = _docker_without_home()
    for name in [*os.environ]:
        if name.startswith("XDG_") or name.endswith(("_API_KEY", "_AUTH_TOKEN")) or name in _NOT_USUAL:
            del os.environ[name]
    os.environ |= docker | {
        "HOME": NO_HOME,
        "TMPDIR": str(tmp),
        "HARBOR_TELEMETRY": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    tempfile.tempdir = None


if os.environ.get("HOME") != NO_HOME:  # test processes inherit from the first one
    _isolate()
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    """A store that was opened in this process has changed its mask, which is not the next test's."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to keep a store in; what ``--root`` takes."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, gone afterwards."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("a tmpfs cannot be mounted here; run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[buckets.Server]":
    """A server of buckets; each test makes buckets of its own in it."""
    import buckets

    with buckets.serving(tmp_path_factory.mktemp("weed")) as found:
        yield found


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of example tables and tasks."""
    return CHECKOUT / "examples"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(KILLS):  # what a kill broke once is broken
            item.add_marker(pytest.mark.flaky(reruns=0))
        asked = [probe() for marker, probe in PROBES.items() if item.get_closest_marker(marker)]
        for missing in (*asked, *(programs(*mark.args) for mark in item.iter_markers("programs"))):
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"{missing.reason}; {missing.remedy}"))


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if FORBID_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped where PARALLELHASSNES_FORBID_SKIPS=1 forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _refuse(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"tried again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        terminalreporter.section("skipped, and how to get it")
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count} x {reason}")
