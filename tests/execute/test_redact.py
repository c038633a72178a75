"""No secret stays in an attempt's files, in whatever form and wherever it stands in them."""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import os
import random
import sqlite3
import tarfile
import urllib.parse
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from parallelhassnes.config import Bounds
from parallelhassnes.execute import clean as cleaning
from parallelhassnes.execute import escapes, redact, secret_forms
from parallelhassnes.execute.redact import Redactor

SECRET = 'p@ss "w/ord"-é\'+12345&x'
KEY = "RSA PRIVATE KEY-----"
PEM = f"-----BEGIN {KEY}\n" + "MIIEpAIBAAKCAQEA7bq\n" * 20 + f"-----END {KEY}"

HEX = SECRET.encode().hex()
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
    "hex": HEX,
    "hex, upper case": HEX.upper(),
    "hex, spaced": SECRET.encode().hex(" "),
    "hex, upper case and colons": SECRET.encode().hex(":").upper(),
    "hex, as C": ", ".join(f"0x{each:02x}" for each in SECRET.encode()),
    "\\x": "".join(f"\\x{each:02x}" for each in SECRET.encode()),
    "\\u": "".join(f"\\u{ord(each):04x}" for each in SECRET),
    "\\u in json": json.dumps("".join(f"\\u{ord(each):04x}" for each in SECRET)),
    "every byte as %XX": "".join(f"%{each:02X}" for each in SECRET.encode()),
    "html, decimal": "".join(f"&#{ord(each)};" for each in SECRET),
    "html, hex": "".join(f"&#x{ord(each):x};" for each in SECRET),
    "partly escaped": SECRET[:4] + "\\x20" + SECRET[5:],
    "a colour in the middle": f"{SECRET[:7]}\x1b[1;31m{SECRET[7:]}",
    "a colour in the middle, in json": json.dumps(f"{SECRET[:7]}\x1b[0m{SECRET[7:]}"),
    "wrapped": f"{SECRET[:9]}\n{SECRET[9:]}",
    "wrapped and indented": f"{SECRET[:9]}\r\n    {SECRET[9:]}",
    "wrapped, in json": json.dumps(f"{SECRET[:9]}\n{SECRET[9:]}"),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64, url": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "basic": base64.b64encode(f"user:{SECRET}".encode()).decode(),
    "base64 of more": base64.b64encode(f"NAME={SECRET}\nOTHER=1".encode()).decode(),
    "base64, wrapped": base64.encodebytes(b"a long first line, " * 3 + SECRET.encode() * 4).decode(),
    "base64, wrapped, in json": json.dumps(
        base64.encodebytes(b"a long first line " * 3 + SECRET.encode() * 4).decode()
    ),
    **{f"base32, {n} before": base64.b32encode(b"q" * n + SECRET.encode()).decode() for n in range(5)},
    **{f"base85, {n} before": base64.b85encode(b"q" * n + SECRET.encode() + b"zzzz").decode() for n in range(4)},
    **{f"ascii85, {n} before": base64.a85encode(b"q" * n + SECRET.encode() + b"zzzz").decode() for n in range(4)},
}

KEYS = [
    "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0k1L2",
    "sk-" + "ant-api03-abcDEF123_456-789xyzABCDEFG",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2c3" * 8,
    "xoxb-" + "123456789012-abcdefGHIJKL",
    "AIza" + "Sy4D_-x" * 5,
    "hf_" + "aBcD1" * 7,
    "glpat-" + "x1Y2z" * 4,
    "npm_" + "a1B2" * 9,
    PEM,
    json.dumps(PEM)[1:-1],
]


def everything(folder, secrets, chunk=redact.CHUNK):
    redactor = Redactor(secrets, chunk)
    return cleaning.clean(folder, redactor, Bounds(), cleaning.Patience(Bounds()))


def clean(folder, secrets, chunk=redact.CHUNK):
    return everything(folder, secrets, chunk).redacted


def cleaned(folder, data: bytes, secrets=None, chunk=redact.CHUNK) -> bytes:
    (folder / "file").write_bytes(data)
    clean(folder, {"MY_KEY": SECRET} if secrets is None else secrets, chunk)
    return (folder / "file").read_bytes()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("compiled", [False, True])
def test_every_form_of_a_named_value_is_taken_out(tmp_path, monkeypatch, form, compiled):
    if compiled:
        monkeypatch.setattr(redact, "_WORTH_COMPILING", 0)
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
        "task-" + "0123456789-abcdefghijklmnopqrst",
        "the sk-learn documentation sk-" + "toggleable__content-arrow",
        "Bearer of bad news",
        "1 true AKIA",
        "risk-" + "assessment-2024-01-01-of-everything",
    ],
)
def test_what_only_resembles_a_key_stays(tmp_path, text):
    assert cleaned(tmp_path, text.encode(), {"SHORT": "true"}) == text.encode()


def test_a_secret_across_a_border_of_two_pieces_is_found(tmp_path):
    for offset in (*range(39_960, 40_010, 3), *range(23_500, 23_700, 23)):
        for secret in (SECRET.encode(), KEYS[0].encode(), base64.encodebytes(SECRET.encode() * 5)):
            text = cleaned(tmp_path, b"x" * offset + b" " + secret + b" " + b"y" * 90_000, chunk=40_000)
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


@pytest.mark.parametrize(
    "value",
    ["123456", "48151623", "0.123456789", "1e100000", "reward", "Succeeded", "true", "short12", "agent_timeout"],
)
def test_a_value_that_results_consist_of_is_not_looked_for(tmp_path, value):
    text = json.dumps({value: value, "reward": 0.123456, "n": 48151623, "e": "agent_timeout"})
    assert cleaned(tmp_path, text.encode(), {"MY_KEY": value}) == text.encode()
    assert Redactor({"MY_KEY": value}).unfit.keys() == {"MY_KEY"}


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_characters_are_written_over(tmp_path, codec):
    data = f"before {SECRET} after".encode(codec)
    text = cleaned(tmp_path, data)
    assert len(text) == len(data)
    assert SECRET[3:12].encode(codec)[4:] not in text


PACKED = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("inside", ["text", "tar"])
def test_what_is_compressed_is_left_out_if_it_holds_a_secret(tmp_path, pack, inside):
    plain = os.urandom(3_000_000) + SECRET.encode() + os.urandom(100)
    if inside == "tar":
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"))
            member = tarfile.TarInfo("member")
            member.size = len(plain)
            tar.addfile(member, io.BytesIO(plain))
        plain = made.getvalue()
    (tmp_path / "a").write_bytes(pack(plain))
    harmless = pack(b"nothing in it" * 1000)
    (tmp_path / "b").write_bytes(harmless)
    (left,) = everything(tmp_path, {"MY_KEY": SECRET}).left_out
    assert left == {"path": "a", "why": "holds MY_KEY, compressed"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == harmless


def test_a_zip_that_holds_a_secret_is_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x", "nothing")
        made.writestr("y", f"a {SECRET} b")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x", "nothing")
    (left,) = everything(tmp_path, {"MY_KEY": SECRET}).left_out
    assert left["path"] == "a.zip"
    assert (tmp_path / "b.zip").exists()


def test_a_bomb_is_left_out(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(3 << 20)))
    bounds = Bounds(max_mb=1)
    found = cleaning.clean(tmp_path, Redactor({"K": SECRET}), bounds, cleaning.Patience(bounds))
    assert [each["path"] for each in found.left_out] == ["bomb.gz"]
    assert "unpacks to more than 1 MB" in found.left_out[0]["why"]


def test_our_own_records_keep_their_structure(tmp_path):
    value = 'x","status":"y'
    final = {"status": "failed", "summary": f"said {value} so", "trial": {"reward": 0.5, "n": [1, value]}}
    (tmp_path / "final.json").write_text(json.dumps(final))
    clean(tmp_path, {"MY_KEY": value})
    found = json.loads((tmp_path / "final.json").read_text())
    assert found == {
        "status": "failed",
        "summary": "said [REDACTED:MY_KEY] so",
        "trial": {"reward": 0.5, "n": [1, "[REDACTED:MY_KEY]"]},
    }


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


BITS = [
    b"\\",
    b"%",
    b"&",
    b"\x1b",
    b"\x1b[",
    b"\x1b[1;31m",
    b"\\u001b[0m",
    b"\\x1B[",
    b"\\X1b[3m",
    b"\\033[m",
    b"\\e[4:3m",
    b"\\0",
    b"\\e",
    b"\\n",
    b"\\r",
    b"\\t",
    b"\\\\n",
    b'\\"',
    b"\\x",
    b"\\x4",
    b"\\x41",
    b"\\X7a",
    b"\\u",
    b"\\u00",
    b"\\u0041",
    b"\\u00e9",
    b"\\u2014",
    b"\\ud83d",
    b"\\uFFff",
    b"\\U0000",
    b"\\U00000041",
    b"\\U0000d800",
    b"\\U00010000",
    b"%4",
    b"%41",
    b"%zz",
    b"%2B",
    b"&#",
    b"&#;",
    b"&#65;",
    b"&#0;",
    b"&#128;",
    b"&#9999;",
    b"&#12345;",
    b"&#1",
    b"&#x",
    b"&#x;",
    b"&#x41;",
    b"&#X000041;",
    b"&#x0000041;",
    b"&#x141;",
    b"&#x0;",
    b"&amp;",
    b"&lt;",
    b"&quot;",
    b"&apos;",
    b"&gt",
    b"&AMP;",
    b"1",
    b"0",
    b"[",
    b";",
    b"A",
    b"x",
    b"\0",
    b" ",
    b"\n",
    b"\xff",
    b"\xc3\xa9",
    b"1" * 70,
    b";" * 70 + b"m",
    b"plain text ",
]


@given(st.lists(st.sampled_from(BITS), max_size=60).map(b"".join), st.sampled_from([0, 1000]))
@example(b"\\033[m\x1b[1;31m", 0)
def test_escapes_are_resolved_side_by_side_as_one_after_the_other(data, many):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(escapes, "_MANY", many)
        slow, fast = escapes.resolved(data), escapes.resolved_fast(data)
    if slow is None or fast is None:
        assert slow is fast
        return
    assert fast.data == slow.data
    assert len(slow.data) == len(data)
    places = range(len(data))
    assert [fast.start(place) for place in places] == [slow.start(place) for place in places]
    assert [fast.end(place + 1) for place in places] == [slow.end(place + 1) for place in places]


def plainly(values: dict[str, str], data: bytes) -> set[tuple[int, int, str]]:
    """What is to be found, by the plainest search: every pattern at every place of both views of the whole."""
    found = set()
    seen = escapes.resolved(data)
    for view in (data, seen.data if seen else data):
        kept = [place for place, byte in enumerate(view) if secret_forms.KEPT[byte]]
        looked_at = secret_forms.squeezed(view).lower()
        for pattern in secret_forms.patterns(values):
            at = looked_at.find(pattern.form)
            while at >= 0:
                start, end = kept[at], kept[at + len(pattern.form) - 1] + 1
                as_is = secret_forms.squeezed(view[start:end])
                if pattern.exact is None or as_is == pattern.exact:
                    if seen is not None and view is seen.data:
                        start, end = seen.start(start), seen.end(end)
                    found.add((start, end, pattern.name))
                at = looked_at.find(pattern.form, at + 1)
    return found


@pytest.fixture(scope="module")
def at_once():
    """A redactor all of whose fast ways are in use, whatever the size of what it is given."""
    with pytest.MonkeyPatch.context() as patched:
        for bound in ("_WORTH_COMPILING", "_WORTH_NUMPY", "_WORTH_ARRAYS"):
            patched.setattr(redact, bound, 0)
        yield Redactor(VALUES, chunk=0)


VALUES = {"MY_KEY": SECRET, "PERCENT": "abc%41%42%43nxyz", "PLAIN": "Zq8-plain-value"}
SPELLED = [
    *(form.encode() for form in FORMS.values()),
    *(value.encode() for value in VALUES.values()),
    b"Zq8-\\x70lain-value",
    b"Zq8-plain\\n-va\x1b[0mlue",
    b"Zq8-" + b" " * 3000 + b"\\u0070lain-value",
    b"zq8-plain-value",
    SECRET.encode("utf-16-le"),
    SECRET.encode("utf-32-be"),
    b"abcABCnxyz",
]


@given(st.lists(st.sampled_from([*SPELLED, *BITS, b"Zq8-", b"plain", b"-value"]), max_size=25), st.integers(0, 400))
def test_the_fast_search_finds_what_the_plain_one_does(at_once, parts, filler):
    data = (b"." * filler).join(parts)
    covered = bytearray(len(data))
    for start, end, _ in plainly(VALUES, data):
        covered[start:end] = b"\1" * (end - start)
    for redactor in (at_once, Redactor(VALUES)):
        found = bytearray(len(data))
        for start, end, _ in redactor.find(data):
            found[start:end] = b"\1" * (end - start)
        assert found == covered


@given(
    st.lists(st.sampled_from([*SPELLED, *BITS]), min_size=1, max_size=12),
    st.integers(-2500, 500),
    st.integers(200, 3000),
)
def test_pieces_of_a_file_are_as_the_whole(at_once, tmp_path_factory, parts, shift, filler):
    """Secrets about where a piece ends, and around the one after it."""
    around = b"-".join(parts)
    data = b"x" * (at_once.chunk + shift) + b" " + around + b"y" * filler + around + b"z" * at_once.chunk
    path = tmp_path_factory.mktemp("pieces") / "file"
    path.write_bytes(data)
    with path.open("rb") as stream:
        pieces = list(at_once.pieces(stream.fileno(), 0, len(data)))
    assert b"".join(piece for _, piece, _ in pieces) == data
    there = [(at + m.start, at + m.end) for at, _, matches in pieces for m in matches]
    assert there == [(m.start, m.end) for m in at_once.find(data)]


def test_what_a_secret_hides_behind_does_not_hide_another():
    """As many are found in the bytes as with escapes resolved, but not the same ones."""
    redactor = Redactor(VALUES)
    text = "abc%41%42%43nxyz and Zq8-pl\\x61in-value"
    assert redactor.text(text) == "[REDACTED:PERCENT] and [REDACTED:PLAIN]"
