"""Archives of strangers: good ones are stored once, bad ones leave nothing outside their folder and say why."""

import contextlib
import gzip
import io
import os
import random
import stat
import struct
import tarfile
import threading
import zipfile

import pytest
from api_checks import is_problem
from archives import tarred, zipped
from harness import make_task
from servers import serving
from stores import command, context, idle, job, table, wait_for

from parallelhassnes.actions import unpack_archive as unpacking
from parallelhassnes.actions.unpack_archive import unpack
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic


def send(client, *archives: tuple[str, bytes]):
    return client.post("/v1/tasks", files=[("file", (name, data)) for name, data in archives])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("uploads")
    ctx = context(root, "[api]\nmax_unpacked_mb = 8\nmax_upload_mb = 4\n")
    with serving(root) as server:
        yield ctx, server.client


def outside(ctx) -> set[str]:
    """Everything in the root but stored tasks and what a running server writes anyway."""
    return {
        str(path.relative_to(ctx.layout.root))
        for path in ctx.layout.root.rglob("*")
        if "_tasks" not in path.parts and "_system" not in path.parts and "runners" not in path.parts
    }


def test_a_task_is_stored_once_however_it_is_packed(store, tmp_path):
    ctx, client = store
    task = make_task(tmp_path, "greet")
    first = send(client, ("greet.zip", zipped(task)))
    assert first.status_code == 201, first.text
    (one,) = first.json()["tasks"]
    assert (one["name"], first.json()["new"]) == ("greet", 1)
    place = ctx.layout.root / one["path"]
    assert (place / "task.toml").read_text() == (task / "task.toml").read_text()
    assert os.access(place / "solution/solve.sh", os.X_OK)
    for name, data in (
        ("greet.tar.gz", tarred(task)),
        ("x.zip", zipped(task, "greet/")),
        ("y.tgz", tarred(task, "a/b/greet")),
    ):
        again = send(client, (name, data)).json()
        assert (again["new"], again["tasks"][0]["sha256"]) == (0, one["sha256"])
    (task / "instruction.md").write_text("Something else.\n")
    other = send(client, ("greet.zip", zipped(task)))
    assert other.status_code == 201, other.text
    other = other.json()
    assert other["new"] == 1
    listed = client.get("/v1/tasks", params={"name": "greet"}).json()
    assert [t["sha256"] for t in listed["items"]] == [other["tasks"][0]["sha256"], one["sha256"]]
    assert client.get(f"/v1/tasks/{one['sha256'][:12]}").json() == one
    is_problem(client.get("/v1/tasks/zz"), 404)


def test_a_dataset_is_all_its_tasks_and_they_run(store, tmp_path):
    _, client = store
    for name in ("t1", "t2"):
        make_task(tmp_path / "set", name)
    make_task(tmp_path, "t3")
    done = send(client, ("set.zip", zipped(tmp_path / "set", "set/")), ("t3.tar.gz", tarred(tmp_path / "t3")))
    assert [task["name"] for task in done.json()["tasks"]] == ["t1", "t2", "t3"]
    table = {
        "spec_version": "2.0",
        "sweep": {
            "path": [task["path"] for task in done.json()["tasks"]],
            "agents": [{"name": "oracle"}],
            "environment": "temp_environment:TempEnvironment",
        },
    }
    sent = client.post("/v1/validate", json=table)
    assert sent.json()["jobs"] == 3, sent.text


def test_tasks_whose_names_a_file_system_may_take_for_one_are_refused(store, tmp_path):
    _, client = store
    archives = [(f"{name}.zip", zipped(make_task(tmp_path / name, name))) for name in ("Greet", "greet")]
    answer = send(client, *archives)
    assert answer.status_code == 400, answer.text
    assert "'Greet' and 'greet' are one folder on many file systems" in answer.text


def test_broken_tasks_are_refused_all_at_once_as_submit_does(store, tmp_path):
    ctx, client = store
    broken = make_task(tmp_path / "set", "broken")
    (broken / "task.toml").write_text("version = ")
    lone = make_task(tmp_path / "set", "lone")
    (lone / "environment/Dockerfile").unlink()
    (lone / "environment").rmdir()
    before = set(os.listdir(ctx.layout.tasks)) if ctx.layout.tasks.exists() else set()
    document = is_problem(send(client, ("set.zip", zipped(tmp_path / "set", "set/"))), 422)
    places = [error["where"] for error in document["errors"]]
    assert places == ["set/set/broken/task.toml", "set/set/lone"]
    assert set(os.listdir(ctx.layout.tasks)) == before if before else True
    is_problem(send(client, ("empty.zip", zipped(tmp_path / "nothing"))), 422)


def _zip_of(*entries: tuple[str, bytes, int]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data, mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return made.getvalue()


def _tar_of(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(data) if member.isreg() and member.size else None)
    return made.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def _claims(size: int) -> bytes:
    """A tar whose one member claims to be that large, and is not."""
    return gzip.compress(_member("task/big", size=size).tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def _pax(size: int) -> bytes:
    """A tar with an extended header of that size, all zeros."""
    header = _member("x", tarfile.XHDTYPE, size=size).tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(header + bytes(size), 1)


def _lying_zip() -> bytes:
    """A zip whose entry holds more than it claims."""
    data = bytearray(_zip_of(("task/x", b"x" * 100_000, 0o644)))
    for sign, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.find(sign)
        struct.pack_into("<L", data, at + place, 5)
    return bytes(data)


def _claiming_zip(size: int) -> bytes:
    """A zip whose directory claims that its entry is that large (zip64)."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("task/big", b"x")
        archive.filelist[0].file_size = size
    return made.getvalue()


def _lying_tar() -> bytes:
    """A tar whose member holds more than it claims, and a whole one behind it."""
    lies, data = _member("task/x", size=5), b"x" * 5000
    after = _member("task/y").tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(lies.tobuf(tarfile.GNU_FORMAT) + data + after + bytes(1024))


def _crowd(count: int) -> bytes:
    """A tar of so many members."""
    folder = _member("task", tarfile.DIRTYPE).tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(folder * count + bytes(1024), 1)


def _bad_utf8_zip() -> bytes:
    """A zip whose entry's name is said to be UTF-8, and is not."""
    return _zip_of(("task/é", b"1", 0o644)).replace("é".encode(), b"\xe9\xe9")


def _bomb() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("task/zeros", bytes(30 << 20))
    return made.getvalue()


BAD = {
    "dots.zip": _zip_of(("../evil", b"x", 0o644)),
    "deep.zip": _zip_of(("a/../../evil", b"x", 0o644)),
    "absolute.zip": _zip_of(("/tmp/evil", b"x", 0o644)),
    "backslash.zip": _zip_of(("..\\evil", b"x", 0o644)),
    "drive.zip": _zip_of(("C:/evil", b"x", 0o644)),
    "link.zip": _zip_of(("task/l", b"/etc/passwd", stat.S_IFLNK | 0o777)),
    "device.zip": _zip_of(("task/d", b"", stat.S_IFBLK | 0o600)),
    "twice.zip": _zip_of(("task/a", b"1", 0o644), ("task/./a", b"2", 0o644)),
    "file-as-folder.zip": _zip_of(("task/a", b"1", 0o644), ("task/a/b", b"2", 0o644)),
    "long.zip": _zip_of(("task/" + "x" * 300, b"1", 0o644)),
    "nested.zip": _zip_of(("/".join("d" * 60) + "/x", b"1", 0o644)),
    "lying.zip": _lying_zip(),
    "bomb.zip": _bomb(),
    "cut.zip": _bomb()[:-30],
    "ten-gigabytes.zip": _claiming_zip(10 << 30),
    "latin.zip": _bad_utf8_zip(),
    "archive-alone.zip": _zip_of(("task.zip", _zip_of(("../evil", b"x", 0o644)), 0o644)),
    "text.zip": b"PK is not enough",
    "dots.tar.gz": _tar_of(_member("../evil")),
    "absolute.tar.gz": _tar_of(_member("/tmp/evil")),
    "dots-folder.tar.gz": _tar_of(_member("../evil", tarfile.DIRTYPE)),
    "long.tar.gz": _tar_of(_member("task/" + "x" * 256)),
    "latin.tar.gz": _tar_of(_member("task/\udce9")),
    "twice.tar.gz": _tar_of(_member("task/a"), _member("task/a")),
    "file-as-folder.tar.gz": _tar_of(_member("task/a"), _member("task/a/b")),
    "crowd.tar.gz": _crowd(unpacking.MOST_ENTRIES + 1),
    "link.tar.gz": _tar_of(_member("task/l", tarfile.SYMTYPE, "/etc/passwd")),
    "through-link.tar.gz": _tar_of(_member("task/l", tarfile.SYMTYPE, "/tmp"), _member("task/l/evil")),
    "hardlink.tar.gz": _tar_of(_member("task/h", tarfile.LNKTYPE, "/etc/passwd")),
    "character.tar.gz": _tar_of(_member("task/c", tarfile.CHRTYPE)),
    "block.tar.gz": _tar_of(_member("task/b", tarfile.BLKTYPE)),
    "fifo.tar.gz": _tar_of(_member("task/f", tarfile.FIFOTYPE)),
    "sparse.tar.gz": _tar_of(_member("task/s", tarfile.GNUTYPE_SPARSE)),
    "ten-gigabytes.tar.gz": _claims(10 << 30),
    "lying.tar.gz": _lying_tar(),
    "cut-header.tar": _member("task/x").tobuf(tarfile.GNU_FORMAT) + b"task/y" + bytes(200),
    "large-header.tar.gz": _pax(64 << 20),
    "bomb.tar.gz": _tar_of(_member("task/z", size=30 << 20), data=bytes(30 << 20)),
    "cut.tar.gz": _tar_of(_member("task/z", size=1000), data=bytes(1000))[:-20],
    "text.tar.gz": b"\x1f\x8bnot really",
    "text.txt": b"hello",
    "empty.zip": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_refused_and_leaves_nothing(store, name):
    ctx, client = store
    before = outside(ctx), sorted(os.listdir(ctx.layout.tasks)) if ctx.layout.tasks.exists() else []
    answer = send(client, (name, BAD[name]))
    assert answer.status_code in (400, 422), answer.text
    detail = is_problem(answer, answer.status_code)["detail"]
    assert str(ctx.layout.root) not in detail
    assert "\n" not in detail
    after = outside(ctx), sorted(os.listdir(ctx.layout.tasks)) if ctx.layout.tasks.exists() else []
    assert after == before
    assert not [entry for entry in os.listdir(ctx.layout.temp) if (ctx.layout.temp / entry).is_dir()]
    assert not os.path.exists("/tmp/evil")


def test_an_upload_that_is_too_large_is_refused_before_it_is_kept(store):
    _, client = store
    is_problem(send(client, ("large.zip", os.urandom(5 << 20))), 413)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk, tmp_path):
    ctx = context(small_disk, "min_free_disk_mb = 0\n")
    make_task(tmp_path, "large", **{"environment/noise": random.Random(7).randbytes(6 << 20).hex()})
    sent = zipped(tmp_path / "large", "large/")
    ballast = small_disk / "ballast"
    with serving(small_disk, "--no-tick") as server:
        document = is_problem(send(server.client, ("large.zip", sent)), 507)
        assert (document["detail"], document["fix"]) == (
            "the server's disk is full",
            "free some space there and ask again",
        )
        assert list(ctx.layout.temp.iterdir()) == []
        assert not ctx.layout.tasks.exists()
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
        queued = table(job("j", command("s", "true")))
        is_problem(server.client.post("/v1/batches", content=queued), 507)
        ballast.unlink()
        assert server.client.post("/v1/batches", content=queued).status_code == 201
    assert len(ctx.layout.batch_ids()) == 1
    assert verify(ctx.layout).ok


def test_archives_within_archives_stay_files(store, tmp_path):
    ctx, client = store
    task = make_task(tmp_path, "russian")
    (task / "tests/inner.zip").write_bytes(BAD["dots.zip"])
    (one,) = send(client, ("russian.zip", zipped(task))).json()["tasks"]
    assert (ctx.layout.root / one["path"] / "tests/inner.zip").read_bytes() == BAD["dots.zip"]


def test_names_that_differ_in_case_alone_stay_two_files(store, tmp_path):
    ctx, client = store
    task = make_task(tmp_path, "cases")
    for name in ("README", "readme"):
        (task / name).write_text(name)
    (one,) = send(client, ("cases.zip", zipped(task))).json()["tasks"]
    place = ctx.layout.root / one["path"]
    assert [(place / name).read_text() for name in ("README", "readme")] == ["README", "readme"]


def test_a_task_of_thousands_of_files_is_stored_whole(store, tmp_path):
    ctx, client = store
    task = make_task(tmp_path, "thousands")
    for number in range(3000):
        (task / "tests" / f"{number}.txt").write_text("x")
    answer = send(client, ("thousands.tar.gz", tarred(task)))
    assert answer.status_code == 201, answer.text
    place = ctx.layout.root / answer.json()["tasks"][0]["path"]
    assert len(list((place / "tests").glob("*.txt"))) == 3000


def test_the_name_of_an_archive_leads_nowhere(store, tmp_path):
    ctx, client = store
    before = outside(ctx)
    data = zipped(make_task(tmp_path, "t"))
    for name, stored in (
        ("../../evil.zip", "evil"),
        ("/etc/evil2.zip", "evil2"),
        ("..", "task"),
        ("a\\b\\..\\c.zip", "c"),
    ):
        answer = send(client, (name, data))
        assert answer.status_code == 201, answer.text
        assert answer.json()["tasks"][0]["name"] == stored
    assert outside(ctx) == before


def test_the_same_task_sent_by_many_at_once_is_stored_once(store, tmp_path):
    _, client = store
    data = zipped(make_task(tmp_path, "crowd"))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(send(client, ("crowd.zip", data)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert sum(answer.json()["new"] for answer in answers) == 1
    assert client.get("/v1/tasks", params={"name": "crowd"}).json()["total"] == 1


def test_no_damaged_archive_gets_out_of_its_folder(tmp_path):
    """A few hundred archives with bytes changed at random: unpacked or refused in a line, nothing else."""
    task = make_task(tmp_path, "t")
    good = [zipped(task), tarred(task), gzip.decompress(tarred(task))]
    chance, refusals = random.Random(6), []
    for number in range(450):
        data = bytearray(good[number % 3])
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        folder = tmp_path / "out" / str(number)
        folder.mkdir(parents=True)
        try:
            unpack(io.BytesIO(bytes(data)), "x", folder, 1 << 20)
        except UserError as error:
            refusals.append(str(error))
        for path in folder.rglob("*"):
            assert path.is_dir() or (path.is_file() and not path.is_symlink())
    assert {entry.name for entry in tmp_path.iterdir()} == {"t", "out"}
    assert 0 < len(refusals) < 450
    assert not [line for line in refusals if "\n" in line]


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_ENTRIES", 10)
    data = _tar_of(*(_member(f"task/{n}") for n in range(20)))
    with pytest.raises(UserError, match="more than 10 entries"):
        unpack(io.BytesIO(data), "x", tmp_path, 1 << 20)


def test_a_killed_upload_leaves_nothing_that_stays(root):
    ctx = context(root)
    left = atomic.temp_path(ctx.layout.temp)  # as an upload leaves it, were this process to die now
    left = left.with_name(left.name.replace(f".{os.getpid()}.", ".999999."))
    (left / "0" / "t").mkdir(parents=True)
    with serving(root) as server:
        wait_for(lambda: not left.exists(), "the tick that sweeps it")
        assert server.client.get("/v1/tasks").json()["total"] == 0
        wait_for(lambda: idle(ctx), "idle")
