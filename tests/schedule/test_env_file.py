"""An ``env_file`` means what python-dotenv says, without interpolation, and reaches the steps so."""

import hashlib
import io
import json
import os

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from stores import attempt_dirs, context, job, program, put, read, shell, states, table

from parallelhassnes.env_file import read_env_file
from parallelhassnes.errors import UserError

WRITTEN = r"""
# a comment
export PLAIN=plain-value-1   # said behind it
HASH=with#hash-0123
QUOTED="a \"word\" and a \\ and a # sign"	# tab
ESCAPED="line one\nline two\tend"
SINGLE='it\'s $HOME and ${PLAIN} \n'
DOLLARS=pa$$w0rd-${PLAIN}-$HOME
SEVERAL="first line
second = line # no comment
third"
  SPACED  =  some words here
EMPTY=
COMMENTED= # nothing
UTF=schlüssel-ß
export SINGLE
"""
MEANT = {
    "PLAIN": "plain-value-1",
    "HASH": "with#hash-0123",
    "QUOTED": 'a "word" and a \\ and a # sign',
    "ESCAPED": "line one\nline two\tend",
    "SINGLE": "it's $HOME and ${PLAIN} \\n",
    "DOLLARS": "pa$$w0rd-${PLAIN}-$HOME",
    "SEVERAL": "first line\nsecond = line # no comment\nthird",
    "SPACED": "some words here",
    "EMPTY": "",
    "COMMENTED": "",
    "UTF": "schlüssel-ß",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_each_form_of_a_line(tmp_path, ends, mark):
    path = tmp_path / "keys.env"
    path.write_bytes((mark + WRITTEN).replace("\n", ends).encode())
    assert read_env_file(path) == {
        key: text.replace("\n", ends) if key == "SEVERAL" else text for key, text in MEANT.items()
    }


def test_the_values_reach_a_step_whole(root):
    (root / "keys.env").write_text(WRITTEN)
    ctx = context(root, 'env_file = "keys.env"\n')
    names = sorted(name for name, value in MEANT.items() if value)
    code = f"import hashlib, json, os; print(json.dumps({{n: hashlib.sha256(os.environ[n].encode()).hexdigest() for n in {names}}}))"
    batch = put(ctx, table(job("j", shell("s", f"python3 -c '{code.replace(chr(39), chr(34))}'")), secrets=names))
    program(root, "tick", "--until-idle", env={"PLAIN": "of-the-environment"})
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    said = json.loads((next(attempt_dirs(ctx, batch)) / "stdout.log").read_text())
    assert said == {name: hashlib.sha256(MEANT[name].encode()).hexdigest() for name in names}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\n\n\nnot a line\n", 4),
        ('A=1\nB="never ends\nC=3\n', 2),
        ("sk-proj-half-a-key\n", 1),
        ("A=1\nB='x' tail\n", 2),
        ("=value\n", 1),
        ("A=nul\0in-it\n", 1),
    ],
)
def test_a_line_that_is_none_is_named_by_its_number_alone(root, text, line):
    path = root / "keys.env"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"line {line}: is not NAME=value") as raised:
        read_env_file(path)
    for word in ("never", "half", "tail", "value\n", "nul"):
        assert word not in raised.value.message


def test_a_batch_waits_for_an_env_file_that_is_none_and_a_pipe_holds_up_nobody(root):
    ctx = context(root, 'env_file = "keys.env"\n')
    os.mkfifo(root / "keys.env")
    batch = put(ctx, table(job("j", shell("s", 'test "$THE_KEY" = a-good-value')), secrets=["THE_KEY"]))
    program(root, "tick", "--until-idle", "--fail-on", "never", timeout_sec=30)
    assert "is no regular file" in read(ctx.layout.blocked / f"{batch}.json")["reason"]
    (root / "keys.env").unlink()
    (root / "keys.env").write_text("THE_KEY=a-good-value # here\n")
    program(root, "tick", "--until-idle")
    assert states(ctx, batch) == {"j/s": ["succeeded"]}


@given(st.text(alphabet="AB='\"\\#$ {}\n\rnté-", max_size=60))
def test_whatever_is_read_is_what_dotenv_reads(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(text.encode())
    try:
        found = read_env_file(path)
    except UserError:
        return
    said = dotenv_values(stream=io.StringIO(text, newline=""), interpolate=False)
    meant = {name: value for name, value in said.items() if value is not None}
    assert {**found, **meant} == found, "nothing is read differently"
