"""The examples of docs/http.md run as written, in their order."""

import re
import subprocess

import pytest
from servers import kept_port
from stores import CHECKOUT, readers_place

PAGE = (CHECKOUT / "docs" / "http.md").read_text()
LINES = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.timeout(300)
def test_the_examples_run(tmp_path):
    place, env = readers_place(tmp_path)
    with kept_port() as port:
        script = "\n".join(["set -e", "trap 'kill %1' EXIT", *LINES]).replace("8765", port)
        done = subprocess.run(["bash", "-c", script], cwd=place, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(LINES) > 20
    assert '"status":"ok"' in done.stdout
    assert "event: end" in done.stdout
    assert "Traceback" not in done.stderr
