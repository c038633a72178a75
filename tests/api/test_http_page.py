"""The examples of docs/http.md run as written, in their order."""

import re
import socket
import subprocess

import pytest
from stores import CHECKOUT, readers_place

PAGE = (CHECKOUT / "docs" / "http.md").read_text()
LINES = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.timeout(200)
def test_the_examples_run(tmp_path):
    place, env = readers_place(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = "\n".join(["set -e", "trap 'kill %1' EXIT", *LINES]).replace("8765", str(port))
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(LINES) > 20
    assert '"status":"ok"' in done.stdout
    assert "event: end" in done.stdout
    assert "Traceback" not in done.stderr
