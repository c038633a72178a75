"""The wheel and the sdist hold all that the program needs: both run away from the checkout."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest
from stores import CHECKOUT, python

from parallelhassnes import __version__

BUILD = "import sys; from flit_core import buildapi; print(getattr(buildapi, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(kind, folder):
    """Build one of both from the checkout; its path."""
    done = python(BUILD, kind, str(folder))
    return folder / done.stdout.strip()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Kind → a folder with the package as it is in there."""
    folder = tmp_path_factory.mktemp("dist")
    with zipfile.ZipFile(build("wheel", folder)) as wheel:
        wheel.extractall(folder / "wheel")
    with tarfile.open(build("sdist", folder)) as sdist:
        sdist.extractall(folder / "sdist", filter="data")
    (inside,) = (folder / "sdist").iterdir()
    return {"wheel": folder / "wheel", "sdist": inside}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_runs_alone(unpacked, tmp_path, kind):
    """With the packages of this environment, but the checkout nowhere on its path."""
    home = unpacked[kind]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    env["PYTHONPATH"] = str(home)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "parallelhassnes", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-P", "-c", "import parallelhassnes; print(parallelhassnes.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    assert found.startswith(str(home))
    run("init")
    (tmp_path / "hello").symlink_to(CHECKOUT / "examples" / "tasks" / "hello")
    said = json.loads(run("run", "hello", "-a", "oracle", "-e", "sandbox", "--json", "-q"))
    assert said["exit_code"] == 0
    run("report", "latest", "-o", "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
    run("audit", "verify")


def test_both_have_their_licence_and_the_same_modules(unpacked):
    names = {
        kind: {
            str(p.relative_to(home))
            for p in (home / "parallelhassnes").rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        for kind, home in unpacked.items()
    }
    assert names["wheel"] == names["sdist"]
    assert "parallelhassnes/py.typed" in names["wheel"]
    assert (unpacked["sdist"] / "LICENSE").read_text().lstrip().startswith("Apache License")
    (info,) = unpacked["wheel"].glob("*.dist-info")
    assert (info / "licenses" / "LICENSE").is_file()
    assert "License-Expression: Apache-2.0" in (info / "METADATA").read_text()


def test_what_is_built_has_the_version_of_the_package(unpacked):
    (info,) = unpacked["wheel"].glob("*.dist-info")
    assert f"\nVersion: {__version__}\n" in (info / "METADATA").read_text()
    assert unpacked["sdist"].name == f"parallelhassnes-{__version__}"
    assert f"\n## {__version__}\n" in (CHECKOUT / "CHANGELOG.md").read_text()
    assert f"\n## To {__version__}\n" in (CHECKOUT / "docs" / "upgrade.md").read_text()


def test_contributors_are_led_to_files_that_are_there():
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:parallelhassnes|tests|docs)/[\w./]+)`", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []
