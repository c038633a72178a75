"""Whatever a worker leaves, its attempt is sealed in time, holds no secret in clear below, and its slot is free."""

import os
import socket
import stat
import sys
import time
from pathlib import Path

import pytest
from stores import attempt_dirs, command, context, idle, job, put, read, states, table, wait_for

from parallelhassnes import walk
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.config import Bounds
from parallelhassnes.execute import clean as cleaning
from parallelhassnes.execute import own_files
from parallelhassnes.execute.redact import Redactor
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.evidence import seal

SECRET = "s3cret-0123456789-abcdefghij"
BELOW = """
import os, socket
secret = os.environ["MY_KEY"]
os.chdir(os.environ["PARALLELHASSNES_ATTEMPT_DIR"])
def leave(name, dir_fd=None):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd)
    os.write(fd, secret.encode()); os.close(fd)
def nest(name, count):
    here = os.open(".", os.O_RDONLY)
    for _ in range(count):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here); here = below
    leave("bottom.txt", here)
"""
LEFT = {
    "1,500 nested folders": "nest('d', 1500)",
    "1,500 nested folders in tmp": "os.chdir('tmp'); nest('d', 1500)",
    "folders that are closed": "nest('d', 40); os.chmod('d/d/d', 0); os.chmod('d', 0)",
    "a path over 4,096 bytes": "nest('n' * 250, 20)",
    "a name that is too long after redaction": "leave('x' * 220 + secret)",
    "a folder named by a secret": "os.mkdir(secret + 'x' * 225); leave(secret + 'x' * 225 + '/' + secret)",
    "a sparse file of 50 GB": "f = open('big', 'wb'); f.seek(50 << 30); f.write(secret.encode()); f.truncate(51 << 30)",
    "a pipe, a socket, links": "os.mkfifo('p'); socket.socket(socket.AF_UNIX).bind('s'); os.symlink('/etc', 'l'); os.symlink('/no/' + secret, 'm'); leave('h'); os.link('h', 'h2')",
    "pipes for records": "[os.mkfifo(n) for n in ('final.json', 'final.txt', 'seal.json', 'publish')]",
    "names that are no text": r"leave(b'a\xff\xfeb'); os.mkdir(b'\xc3'); leave(b'\xc3/\x1b[2J')",
    "an attribute": "leave('a'); os.setxattr('a', 'user.k', secret.encode()); os.mkdir('b'); os.setxattr('b', 'user.k', secret.encode())",
    "a folder of 3,000 files": "os.mkdir('many'); [leave(f'many/{n}') for n in range(3000)]",
    "3,000 files of its own folder": "[leave(f'{n}') for n in range(3000)]",
}


def in_clear(folder: Path) -> list[str]:
    """Where the secret is still to be read below the folder."""
    found, top = [], walk.open_folder(folder)
    for entry in walk.walk(top):
        said = entry.name
        if entry.is_link:
            said += os.readlink(entry.name, dir_fd=entry.folder)
        if entry.is_file:
            handle = entry.open()
            parts = [os.pread(handle, end - start, start) for start, end in walk.data_of(handle)]
            said += b"".join(parts).decode("latin-1")
            os.close(handle)
        if not entry.is_link:
            place = f"/proc/self/fd/{entry.folder}/{entry.name}"
            said += "".join(os.getxattr(place, n).decode() for n in os.listxattr(place))
        found += [entry.path[:200]] if SECRET in said else []
    os.close(top)
    return found


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_it_ends_sealed(root, monkeypatch, left):
    monkeypatch.setenv("MY_KEY", SECRET)
    ctx = context(root, 'secrets = ["MY_KEY"]\n[bounds]\nmax_files = 2000\n')
    step = command("s", sys.executable, "-c", BELOW + left)
    batch = put(ctx, table(job("j", step), retry={"max_attempts": 1}))
    began = time.monotonic()
    tick(ctx)
    wait_for(lambda: idle(ctx), "the end")
    assert time.monotonic() - began < 50
    assert states(ctx, batch) == {"j/s": ["succeeded"]}
    (path,) = attempt_dirs(ctx, batch)
    document = read(path / "seal.json")
    assert in_clear(path) == []
    assert verify(ctx.layout).ok
    wait_for(lambda: tick(ctx) and not any(ctx.layout.temp.iterdir()), "ticks to remove the rest")
    assert not any(ctx.layout.running.glob("*/*"))
    said = " ".join(each["why"] for each in document.get("left_out", ()))
    if "1500" in left and "tmp" not in left:
        assert "bounds.max_depth" in said
    if "3000" in left:
        assert "bounds.max_files" in said
    if "250, 20" in left:
        assert "longer than 3000 bytes" in said
    if "51" in left:
        assert document["files"]["big"].keys() == {"sparse_sha256", "size"}


def clean(folder, bounds=None, patience=None, secret=SECRET):
    bounds = bounds or Bounds()
    patience = patience or cleaning.Patience(bounds)
    return cleaning.clean(folder, Redactor({"MY_KEY": secret}), bounds, patience)


def test_what_is_past_the_data_that_is_kept_is_left_out(tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(1 << 20))
    (tmp_path / "b").write_bytes(os.urandom(1 << 20))
    (why,) = clean(tmp_path, Bounds(max_mb=1)).left_out
    assert "bounds.max_mb" in why["why"]
    assert [path.name for path in tmp_path.iterdir() if path.name != why["path"]] != []


@pytest.mark.parametrize("canceled", [False, True])
def test_once_its_time_is_over_nothing_stays_that_was_not_looked_at(tmp_path, canceled):
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "f").write_text(SECRET)
    (tmp_path / "stdout.log").write_text(SECRET)
    bounds = Bounds(**({"cancel_sec": 1e-9} if canceled else {"max_sec": 1e-9}))
    found = clean(tmp_path, bounds, cleaning.Patience(bounds, lambda: True))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["stdout.log"]
    assert (tmp_path / "stdout.log").read_text() == "[REDACTED:MY_KEY]"
    assert len(found.left_out) == 20
    wanted = "bounds.cancel_sec" if canceled else "bounds.max_sec"
    assert all(wanted in each["why"] for each in found.left_out)


def test_a_seal_for_which_there_was_no_time_says_so_and_verifies(tmp_path):
    (tmp_path / "a").write_text("a")

    def check():
        raise walk.OutOfTime("no time")

    document = seal.seal(tmp_path, {}, check=check)
    assert document["files"] == {"a": {"unread": "no time", "size": 1}}
    assert seal.survey(tmp_path, like=document["files"]) == document["files"]


def test_holes_are_the_same_wherever_they_are_kept(tmp_path):
    holey, full = tmp_path / "holey", tmp_path / "full"
    for path in (holey, full):
        with path.open("wb") as out:
            out.seek(70 << 20)
            out.write(b"here")
            out.truncate(140 << 20)
    then = seal.survey(tmp_path)
    assert then["holey"].keys() == {"sparse_sha256", "size"}
    data = full.read_bytes()
    full.write_bytes(data)
    assert seal.survey(tmp_path, like=then) == then
    with holey.open("r+b") as out:
        out.seek(5)
        out.write(b"x")
    assert seal.survey(tmp_path, like=then)["holey"] != then["holey"]


def test_a_swapped_link_is_never_followed_by_a_change_of_modes(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    inside = tmp_path / "attempt"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    handle = walk.open_folder(inside)
    stale = outside.stat()  # as if it had been a file a moment ago
    own_files.allow(handle, "link", 0o4777, stale)
    walk.set_mode(handle, "link", lambda _: 0o4777)
    os.close(handle)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_set_id_bits_go_also_where_there_are_hard_links(tmp_path):
    inside, outside = tmp_path / "attempt", tmp_path / "outside"
    inside.mkdir()
    for name, linked in (("alone", False), ("twice", True), ("elsewhere", False)):
        path = inside / name
        path.write_text(name)
        path.chmod(0o6755)
        if linked:
            os.link(path, inside / f"{name}-again")
    os.link(inside / "elsewhere", outside)
    clean(inside)
    seal.seal(inside, {})
    for path in inside.iterdir():
        assert not path.stat().st_mode & 0o6222, path
    assert outside.stat().st_mode & 0o6000 == 0o6000
    assert (inside / "elsewhere").read_text() == "elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root; run as root")
def test_other_owners_capabilities_and_devices_go(tmp_path):
    held = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    for name in ("file", "shared"):
        (tmp_path / name).write_text("")
        os.setxattr(tmp_path / name, "security.capability", held)
        os.chown(tmp_path / name, 12345, 12345)
    os.link(tmp_path / "shared", tmp_path / "shared-2")
    (tmp_path / "folder").mkdir()
    os.chown(tmp_path / "folder", 12345, 12345)
    os.mknod(tmp_path / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(tmp_path / "file", "security.capability", held)
    os.setxattr(tmp_path / "shared", "security.capability", held)
    found = clean(tmp_path)
    assert [each["path"] for each in found.left_out] == ["device"]
    for path in tmp_path.iterdir():
        assert path.stat().st_uid == os.geteuid()
        assert os.listxattr(path) == []


def test_a_hard_link_from_outside_keeps_its_content_also_of_a_binary_file(tmp_path):
    inside, outside = tmp_path / "attempt", tmp_path / "outside"
    inside.mkdir()
    outside.write_bytes(b"\0" + SECRET.encode())
    os.link(outside, inside / "file")
    assert clean(inside).redacted == {"file": {"MY_KEY": 1}}
    assert outside.read_bytes() == b"\0" + SECRET.encode()
    assert (inside / "file").read_bytes() == b"\0" + b"*" * len(SECRET)


def test_a_cancel_reaches_an_attempt_that_is_being_ended(root, monkeypatch):
    """A file whose end takes long: what was not looked at within ``cancel_sec`` is left out."""
    monkeypatch.setenv("MY_KEY", SECRET)
    ctx = context(root, 'secrets = ["MY_KEY"]\n[bounds]\ncancel_sec = 0.2\n')
    big = "import os\nf = open(os.environ['PARALLELHASSNES_ATTEMPT_DIR'] + '/big', 'wb')\n"
    big += "[(f.seek(n << 21), f.write(b'x' * 4096)) for n in range(20_000)]"
    batch = put(ctx, table(job("j", command("s", sys.executable, "-c", big))))
    tick(ctx)
    (path,) = wait_for(lambda: list(attempt_dirs(ctx, batch)), "the attempt")
    wait_for(lambda: read(path / "state.json")["status"] == "succeeded", "its worker's end")
    batches.ask_to_end(path.parents[1], path.name.partition("_")[2])
    wait_for(lambda: idle(ctx), "the end", 20)
    assert (path / "seal.json").exists()
    assert verify(ctx.layout).ok


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(atomic.CorruptFile, match="is no file of the store"):
        atomic.read_json(tmp_path / "state.json")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "s"))
    with pytest.raises(OSError, match="No such device or address"):
        atomic.read_json(tmp_path / "s")
