"""The examples of docs/http.md run as written, in their order."""

import subprocess

import pytest
from doc_blocks import commands_of
from servers import kept_port
from stores import readers_place

LINES = commands_of("docs/http.md")


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
