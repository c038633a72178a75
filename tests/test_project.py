"""The project's plumbing: finding Python, the lock file, what may be committed, how tests are run."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FIND_PYTHON = CHECKOUT / "tools" / "find-python.sh"
CONFTEST = Path(__file__).with_name("conftest.py")


def _fake(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _find_python(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run find-python.sh with nothing on PATH but what the test put into ``tmp_path/bin``.

    /usr/bin and the like are looked at by absolute path too; the test's interpreters must not depend on what is there.
    """
    return subprocess.run(
        ["/bin/sh", str(FIND_PYTHON)],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), **env},
    )


def test_python_on_path_that_fails_is_passed_over(tmp_path: Path) -> None:
    _fake(tmp_path / "bin" / "python3.12", "#!/bin/sh\necho 'python3.12: command not found' >&2\nexit 127\n")
    real = _fake(tmp_path / ".pyenv/versions/3.12.9/bin/python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    found = _find_python(tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert Path(found.stdout.strip()).samefile(sys.executable)
    assert real.exists()


def test_named_python_is_taken_or_refused(tmp_path: Path) -> None:
    assert _find_python(tmp_path, PYTHON=sys.executable).stdout.strip() == sys.executable
    old = _fake(tmp_path / "old", "#!/bin/sh\nexit 1\n")
    refused = _find_python(tmp_path, PYTHON=str(old))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"PYTHON={old} is no working Python >= 3.12")


def test_no_python_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    # A copy without the absolute places, which on some machines do hold a Python that would do.
    text = FIND_PYTHON.read_text()
    for place in ("/usr/local", "/opt", "/usr/bin", "/Library"):
        text = text.replace(f" {place}/", f" {tmp_path}/nowhere/").replace(f'"{place}/', f'"{tmp_path}/nowhere/')
    script = _fake(tmp_path / "find-python.sh", text)
    _fake(tmp_path / "bin" / "python3", "#!/bin/sh\nexit 1\n")  # Python 3.11, as far as the script can tell
    ended = subprocess.run(
        ["/bin/sh", str(script)],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)},
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("Python >= 3.12 is needed and none was found: install one (uv python install 3.12")


def test_the_locks_have_both_ends_of_the_range_of_harbor() -> None:
    (said,) = [line for line in _project()["project"]["dependencies"] if line.startswith("harbor")]
    oldest, below = (tuple(map(int, part.split("."))) for part in re.findall(r"\d+\.\d+", said))
    locked = [_locked(name)["harbor"] for name in ("requirements.lock", "tools/harbor-newest.lock")]
    first, last = (tuple(map(int, version.split(".")[:2])) for version in locked)
    assert (first, (last[0], last[1] + 1)) == (oldest, below)


def _project() -> dict[str, Any]:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def _locked(name: str = "requirements.lock") -> dict[str, str]:
    lines = (CHECKOUT / name).read_text().splitlines()
    pins = [re.match(r"([a-z0-9-]+)==([^ ;]+)", line) for line in lines]
    return {pin[1]: pin[2] for pin in pins if pin}


@pytest.mark.parametrize("name", ["requirements.lock", "tools/harbor-newest.lock"])
def test_lock_holds_versions_and_hashes_only(name: str) -> None:
    text = (CHECKOUT / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(index|extra|find|trusted)", text)
    pins = [block for block in re.split(r"\n(?=\S)", text) if "==" in block]
    assert len(pins) == len(_locked(name))
    assert all("--hash=sha256:" in block for block in pins)


def test_lock_holds_every_dependency_and_nothing_heavy() -> None:
    project = _project()
    wanted = [
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[<>=\[ ]", requirement)[0].lower() for requirement in wanted} - {"parallelhassnes"}
    locked = _locked()
    assert names - set(locked) == set()
    assert {"torch", "tensorflow"} & set(locked) == set()


def _tracked() -> list[Path]:
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout; clone the repository with git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [CHECKOUT / name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


def test_nothing_committed_that_belongs_to_one_machine() -> None:
    # Put together from parts, so that this file does not find itself.
    forbidden = re.compile(
        "|".join(
            [
                # probe, project and user are folders that tests make inside a sandbox
                r"(?<![\w.-])/(?:root|home|Users|work)" + r"/(?!(?:probe|project|user)\b)[\w.-]",
                r"https?://[^\s\"'<>)]*(?:" + "py" + r"pi|deb\.debian|registry|mirror)",
                r"index" + r"[-_]url\s*=",
                r"-----BEGIN [A-Z ]*PRIVATE" + " KEY",
                r"\b(?:sk-|gh[pousr]_|xox[bp]-|AKIA)" + r"[A-Za-z0-9_-]{16,}",
            ]
        )
    )
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:120]}"
        for path in _tracked()
        if path.name != "requirements.lock"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_scripts_parse_and_can_be_run() -> None:
    scripts = [path for path in _tracked() if path.read_bytes().startswith(b"#!")]
    assert {"run", "system", "find-python.sh"} <= {path.name for path in scripts}
    for script in scripts:
        shell = "bash" if b"bash" in script.read_bytes().split(b"\n", 1)[0] else "sh"
        assert subprocess.run([shell, "-n", str(script)]).returncode == 0
        assert os.access(script, os.X_OK), f"{script} is not executable"


def test_tests_have_no_home() -> None:
    with pytest.raises(NotADirectoryError):
        (Path.home() / "settings").mkdir(parents=True)
    said = subprocess.run(["sh", "-c", 'mkdir -p "$HOME"'], capture_output=True)
    assert said.returncode != 0
    assert Path(os.environ["TMPDIR"]).is_relative_to(CHECKOUT)


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    """A test suite of its own under this project's conftest: one test that skips, one that passes."""
    shutil.copy(CONFTEST, tmp_path)
    shutil.copy(CONFTEST.parent / "support" / "probes.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_small.py").write_text(
        "import pytest\ndef test_skips(): pytest.skip('no turbine here; apt-get install turbine')\ndef test_passes(): pass\n"
    )
    return tmp_path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("forbid", ["0", "1"])
def test_skips_are_listed_or_forbidden(small_suite: Path, forbid: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1"],
        cwd=small_suite,
        capture_output=True,
        text=True,
        env={**os.environ, "PARALLELHASSNES_FORBID_SKIPS": forbid},
    )
    closing = ended.stdout.splitlines()[-1]
    if forbid == "1":
        assert ended.returncode == 1, ended.stdout
        assert "1 failed, 1 passed" in closing
        assert "forbids it: Skipped: no turbine here" in ended.stdout
    else:
        assert ended.returncode == 0, ended.stdout
        assert "1 passed, 1 skipped" in closing
        assert "\n1 x no turbine here; apt-get install turbine\n" in ended.stdout
