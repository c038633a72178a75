"""What workers wrote commands no terminal: every command that prints some of it, on a real pseudo-terminal."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import CHECKOUT, attempt_dirs, command, context, environment, idle, job, program, put, table, wait_for

from parallelhassnes.harmless import harmless

HOSTILE = {
    "OSC 52, the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "OSC with ST": "\x1b]0;title\x1b\\",
    "OSC, 8-bit": "\x9d52;c;ZXZpbA==\x9c",
    "OSC without an end": "\x1b]52;c;ZXZpbA==",
    "DCS": "\x1bP+q544e\x1b\\",
    "DCS, 8-bit": "\x90+q544e\x9c",
    "APC": "\x1b_Gf=24;AAAA\x1b\\",
    "CSI, the cursor": "\x1b[2A\x1b[2K\x1b[1;1H",
    "CSI, 8-bit": "\x9b2J",
    "CSI, modes": "\x1b[?1049h\x1b[?2004l",
    "CSI, an answer into the input": "\x1b[6n\x1b[c\x1b[21t",
    "keys": "\x1b[>4;2m",
    "reset": "\x1bc",
    "character sets": "\x1b(0\x0e",
    "an OSC around a colour": "\x1b]52;c;\x1b[31mZXZpbA==\x07",
    "bell, backspace": "\x07\x08",
    "bidi": "\u202eevil\u202c \u2066x\u2069",
}
ALL = "".join(f"<{text}>" for text in HOSTILE.values())
COLOURED = "\x1b[1;31mred\x1b[0m"
_FORBIDDEN = re.compile(r"\x1b(?!\[[0-9;:]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_DRAWN = re.compile(r"\x1b\[(?:\?25[lh]|\?1049[lh]|[0-9;]*[AHJK]|[12]K)")
"""What the live displays write themselves."""


def on_terminal(root, *arguments: str, code: int | None = 0) -> str:
    """What the command writes to a terminal that is its stdout and stderr."""
    mine, its = pty.openpty()
    said = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(mine, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            said.extend(data)

    process = subprocess.Popen(
        [sys.executable, "-m", "parallelhassnes", *arguments, "--root", str(root)],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env=environment({"TERM": "xterm-256color", "COLUMNS": "200"}),
        cwd=CHECKOUT,
    )
    os.close(its)
    reader = threading.Thread(target=read)
    reader.start()
    ended = process.wait(timeout=100)
    reader.join(timeout=100)
    os.close(mine)
    text = bytes(said).decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    assert code is None or ended == code, text
    return text


def is_harmless(text: str) -> None:
    found = _FORBIDDEN.search(text)
    assert found is None, (found, text[max(0, found.start() - 60) : found.start() + 60])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A step that ended with hostile logs, artifacts, names of files and last words; a batch whose reasons are hostile too."""
    root = tmp_path_factory.mktemp("hostile")
    ctx = context(root)
    script = root / "say.py"
    script.write_text(
        "import os, sys\n"
        f"text = {ALL!r} + {COLOURED!r} + '\\n'\n"
        "for stream in (sys.stdout.buffer, sys.stderr.buffer):\n"
        "    stream.write(text.encode() + b'\\x9b2J \\x9d52;c;AAAA\\x9c raw\\n')\n"
        "os.makedirs('artifacts')\n"
        "open('artifacts/loot', 'w').write(text * 2)\n"
        f"open('artifacts/' + {'x' + HOSTILE['CSI, the cursor'] + HOSTILE['OSC 52, the clipboard']!r}, 'w').write(text)\n"
        "sys.exit(text)\n"
    )
    step = command("s", sys.executable, str(script), retry={"max_attempts": 1})
    batch_id = put(ctx, table(job("j", step)))
    program(root, "tick", "--until-idle", check=False)
    wait_for(lambda: idle(ctx), "the end")
    program(root, "pause", batch_id, "--reason", ALL.replace("\x00", ""), check=False)
    return ctx, batch_id


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs", "ID"),
        ("logs", "ID", "--follow"),
        ("logs", "ID", "--file", "stdout.log"),
        ("tail", "ID"),
        ("tail", "ID", "--follow"),
        ("show", "ID"),
        ("scoreboard",),
        ("scoreboard", "ID"),
        ("explain", "ID"),
        ("errors",),
        ("results",),
        ("artifact", "ID"),
        ("artifact", "ID", "artifacts/loot"),
        ("artifact", "ID", "stdout.log"),
        ("report", "ID", "--markdown"),
        ("audit", "verify"),
        ("feedback", "ID", "--marker", "red"),
    ],
    ids=" ".join,
)
def test_what_a_worker_wrote_commands_no_terminal(store, arguments):
    ctx, batch_id = store
    said = on_terminal(ctx.layout.root, *(batch_id if a == "ID" else a for a in arguments), code=None)
    assert said.strip()
    assert "Usage:" not in said
    is_harmless(said)


def test_names_that_a_user_is_told_of_command_no_terminal(store, tmp_path):
    ctx, batch_id = store
    evil = HOSTILE["OSC 52, the clipboard"] + HOSTILE["CSI, 8-bit"] + HOSTILE["reset"]
    (tmp_path / "t.json").write_text(
        '{"jobs": [{"' + evil.replace("\x1b", "\\u001b").replace("\x07", "\\u0007") + '": 1}]}'
    )
    for arguments in (
        ("show", evil),
        ("logs", batch_id, "--file", evil),
        ("artifact", batch_id, evil),
        ("validate", str(tmp_path / "t.json")),
        ("cancel", evil),
        (evil,),
        ("scoreboard", f"--{evil}"),
    ):
        is_harmless(on_terminal(ctx.layout.root, *arguments, code=2))


def test_an_error_is_one_line_without_commands_in_a_file_too(store):
    ctx, _ = store
    evil = HOSTILE["OSC 52, the clipboard"] + HOSTILE["CSI, 8-bit"] + HOSTILE["reset"] + "\nthe next line\r"
    for arguments in (("show", evil), ("submit", evil), ("import", evil), ("scoreboard", f"--{evil}")):
        done = program(ctx.layout.root, *arguments, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        is_harmless(line)


def test_colours_and_what_is_readable_come_through_and_raw_is_everything(store):
    ctx, batch_id = store
    root = ctx.layout.root
    said = on_terminal(root, "logs", batch_id, "--file", "stdout.log")
    assert COLOURED in said
    for arguments in (("logs", batch_id, "--file", "stdout.log"), ("artifact", batch_id, "stdout.log")):
        raw = on_terminal(root, *arguments, "--raw")
        assert HOSTILE["OSC 52, the clipboard"] in raw
    (folder,) = attempt_dirs(ctx, batch_id)
    piped = subprocess.run(
        [sys.executable, "-m", "parallelhassnes", "artifact", batch_id, "stdout.log", "--root", str(root)],
        capture_output=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    assert piped.stdout == (folder / "stdout.log").read_bytes(), "a pipe gets the bytes"


def test_a_run_shows_its_own_drawing_and_nothing_of_its_steps(store, tmp_path):
    ctx, _ = store
    path = tmp_path / "t.json"
    step = command("s", sys.executable, str(ctx.layout.root / "say.py"), retry={"max_attempts": 1})
    path.write_bytes(table(job("again", step)))
    said = on_terminal(ctx.layout.root, "run", "-c", str(path), code=None)
    assert "again" in said
    is_harmless(_DRAWN.sub("", said).replace("\r", ""))


@pytest.mark.parametrize("name", HOSTILE)
def test_each_command_is_taken_out(name):
    found = harmless(f"before {HOSTILE[name]} {COLOURED} after")
    is_harmless(found)
    assert found.startswith("before ")
    assert COLOURED in found
    assert found.endswith(" after")


@given(st.text(alphabet=st.sampled_from("\x1b[]0;52mcP\\\x07\x9b\x9c\x9d\x90\r\n?Ah\u202e")))
def test_nothing_that_commands_is_ever_left(text):
    found = harmless(text)
    is_harmless(found)
    assert "\r" not in found
    assert harmless(found) == found
