"""No secret stays in an attempt's files, in whatever form and wherever it stands in them."""

import base64
import html
import json
import os
import random
import sqlite3
import urllib.parse
from pathlib import Path

import pytest

from parallelhassnes.config import Bounds
from parallelhassnes.execute import clean as cleaning
from parallelhassnes.execute import redact
from parallelhassnes.execute.redact import Redactor

SECRET = 'p@ss "w/ord"-é\'+12345&x'
PEM = (
    "-----BEGIN RSA "
    "PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bq\n" * 20 + "-----END RSA PRIVATE KEY-----"
)

FORMS = {
    "raw": SECRET,
    "json": json.dumps(SECRET)[1:-1],
    "json, not ascii": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "json in json": json.dumps(json.dumps({"a": SECRET})),
    "repr": repr(SECRET),
    "url": urllib.parse.quote(SECRET, safe=""),
    "url, lower case": urllib.parse.quote(SECRET, safe="").lower().replace("p%40ss", "p%40ss"),
    "form": urllib.parse.urlencode({"a": SECRET}),
    "html": html.escape(SECRET),
    "shell": SECRET.replace("'", "'\\''"),
    "hex": SECRET.encode().hex(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64, url": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "basic": base64.b64encode(f"user:{SECRET}".encode()).decode(),
    "base64 of more": base64.b64encode(f"NAME={SECRET}\nOTHER=1".encode()).decode(),
    "base64, wrapped": base64.encodebytes(b"a long first line, " * 3 + SECRET.encode() * 4).decode(),
    "base64, wrapped, in json": json.dumps(base64.encodebytes(b"a long first line " * 3 + SECRET.encode() * 4).decode()),
}  # fmt: skip

KEYS = [
    "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0k1L2", "sk-" + "ant-api03-abcDEF123_456-789xyzABCDEFG", "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2c3" * 8, "xoxb-" + "123456789012-abcdefGHIJKL", "AIza" + "Sy4D_-x" * 5,
    "hf_" + "aBcD1" * 7, "glpat-" + "x1Y2z" * 4, "npm_" + "a1B2" * 9, PEM, json.dumps(PEM)[1:-1],
]  # fmt: skip


def clean(folder, secrets, chunk=redact.CHUNK):
    redactor = Redactor(secrets, chunk)
    return cleaning.clean(folder, redactor, Bounds(), cleaning.Patience(Bounds())).redacted


def cleaned(folder, data: bytes, secrets=None, chunk=redact.CHUNK) -> bytes:
    (folder / "file").write_bytes(data)
    clean(folder, {"MY_KEY": SECRET} if secrets is None else secrets, chunk)
    return (folder / "file").read_bytes()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_named_value_is_taken_out(tmp_path, form):
    text = cleaned(tmp_path, f"before {form} after".encode())
    assert text.startswith(b"before ")
    assert text.endswith(b" after")
    assert b"[REDACTED:MY_KEY]" in text
    for piece in (SECRET[:8].encode(), form[len(form) // 2 :][:10].encode()):
        if b"REDACTED" not in piece and len(piece.strip()) > 6:
            assert piece not in text


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_known_by_their_shape(tmp_path, key):
    text = cleaned(tmp_path, f'{{"key":"{key}","n":1}}'.encode(), {})
    assert key[12:].encode() not in text
    assert text.startswith(b'{"key":"[REDACTED:')
    assert text.endswith(b'","n":1}')


def test_a_bearer_token_goes_and_its_word_stays(tmp_path):
    text = cleaned(tmp_path, b"Authorization: Bearer abcdefghij0123456789KLMN\r\n", {})
    assert text == b"Authorization: Bearer [REDACTED:bearer]\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "task-" + "0123456789-abcdefghijklmnopqrst", "the sk-learn documentation sk-" + "toggleable__content-arrow",
        "Bearer of bad news", "1 true AKIA", "risk-" + "assessment-2024-01-01-of-everything",
    ],
)  # fmt: skip
def test_what_only_resembles_a_key_stays(tmp_path, text):
    assert cleaned(tmp_path, text.encode(), {"SHORT": "true"}) == text.encode()


def test_a_secret_across_a_border_of_two_pieces_is_found(tmp_path):
    for offset in (*range(39_960, 40_010, 3), *range(23_500, 23_700, 23)):
        for secret in (SECRET.encode(), KEYS[0].encode(), base64.encodebytes(SECRET.encode() * 5)):
            text = cleaned(
                tmp_path, b"x" * offset + b" " + secret + b" " + b"y" * 90_000, chunk=40_000
            )
            assert secret[5:20] not in text
            assert text.startswith(b"x" * offset + b" ")
            assert text.endswith(b" " + b"y" * 90_000)


def test_pieces_change_nothing_but_secrets(tmp_path):
    source = random.Random(4)
    words = [SECRET.encode(), b"word", b"\n", *(key.encode() for key in KEYS[:8])]
    data = b" ".join(source.choice(words) for _ in range(20_000))
    whole = Redactor({"MY_KEY": SECRET})
    expected = whole.text(data.decode()).encode()
    assert cleaned(tmp_path, data, chunk=20_000) == expected


def test_a_binary_file_keeps_its_size_and_works(tmp_path):
    path = tmp_path / "file"
    with sqlite3.connect(path) as db:
        db.execute("create table t (a text)")
        db.execute("insert into t values (?)", (f"start {SECRET} end",))
    db.close()
    size = path.stat().st_size
    assert clean(tmp_path, {"MY_KEY": SECRET}) == {"file": {"MY_KEY": 1}}
    assert path.stat().st_size == size
    with sqlite3.connect(path) as db:
        (text,) = db.execute("select a from t").fetchone()
    db.close()
    assert text == f"start {'*' * len(SECRET.encode())} end"


def test_names_and_links_are_cleaned_and_nothing_outside_is_touched(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text(f"{KEYS[0]}")
    folder = tmp_path / "attempt"
    (folder / f"dir-{KEYS[1]}").mkdir(parents=True)
    (folder / f"dir-{KEYS[1]}" / f"name-{KEYS[0]}.txt").write_text("")
    (folder / "link").symlink_to(outside)
    (folder / "said").symlink_to(f"/nowhere/{KEYS[0]}")
    os.link(outside, folder / "hard")
    os.mkfifo(folder / "pipe")
    report = clean(folder, {})
    assert outside.read_text() == KEYS[0]
    assert (folder / "hard").read_text() == "[REDACTED:openai-key]"
    assert (folder / "said").readlink() == Path("/nowhere/[REDACTED:openai-key]")
    names = [str(path) for path in folder.rglob("*")]
    assert not any(KEYS[0] in name or KEYS[1] in name for name in names)
    assert sum("name" in found for found in report.values()) == 2


def test_a_number_stays_one(tmp_path):
    text = cleaned(tmp_path, b'{"pin":48151623,"n":1}', {"PIN": "48151623"})
    assert json.loads(text) == {"pin": 99999999, "n": 1}


def test_a_typical_attempt_costs_little(tmp_path):
    """Not a benchmark, but a guard against reading everything once for every secret's every form."""
    import time

    for number in range(25):
        (tmp_path / f"f{number}").write_bytes(os.urandom(2000).hex().encode())
    values = {f"KEY_{number}": os.urandom(24).hex() for number in range(5)}
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        clean(tmp_path, values)
        best = min(best, time.process_time() - began)
    assert best < 0.1
