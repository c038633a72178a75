"""The examples of docs/http.md run as written, in their order."""

import os
import re
import socket
import subprocess
import sys

import pytest
from stores import CHECKOUT, environment

PAGE = (CHECKOUT / "docs" / "http.md").read_text()
LINES = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.timeout(200)
def test_the_examples_run(tmp_path):
    program = tmp_path / "bin" / "parallelhassnes"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m parallelhassnes "$@"\n')
    program.chmod(0o755)
    place = tmp_path / "checkout"
    place.mkdir()
    (place / "examples").symlink_to(CHECKOUT / "examples")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = "\n".join(["set -e", "trap 'kill %1' EXIT", *LINES]).replace("8765", str(port))
    env = environment({"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"})
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(LINES) > 20
    assert '"status":"ok"' in done.stdout
    assert "event: end" in done.stdout
    assert "Traceback" not in done.stderr
