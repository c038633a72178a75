"""A packed batch: read by every view as before, refused where it would change, brought back byte for byte."""

import json
import os
import re
import stat
import subprocess

import pytest
from servers import serving
from stores import (
    CHECKOUT,
    attempt_dirs,
    command,
    context,
    idle,
    job,
    program,
    put,
    python,
    read,
    shell,
    table,
    wait_for,
)

from parallelhassnes import packed, walk
from parallelhassnes.actions import packs
from parallelhassnes.admin import harbor_view
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps import safe_read
from parallelhassnes.store import atomic, attempts
from parallelhassnes.store.evidence import ledger

# Whatever a program may leave beside its output: a link, a pipe, holes, a name that is no text, deep folders, nothing at all.
LEAVES = r"""
cd "$PARALLELHASSNES_ATTEMPT_DIR"; mkdir -p agent/artifacts/out/a/b/c; cd agent/artifacts/out
echo deep > a/b/c/deep.txt; : > empty; ln -s /etc/passwd link; mkfifo pipe
truncate -s 3M holes; printf end >> holes; chmod 640 a/b/c/deep.txt; echo said; echo warned >&2
"""

NO_TEXT = r"""cd "$PARALLELHASSNES_ATTEMPT_DIR"; printf x > "$(printf 'no\377text')" """


@pytest.fixture
def batch(root):
    ctx = context(root, "durable = false\n")
    batch_id = put(ctx, table(job("j", shell("a", LEAVES), command("b", "false")), job("k", shell("c", NO_TEXT))))
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(root, "tick")
    return ctx, batch_id


def looks(ctx, batch_id):
    asked = [
        ["show", f"{batch_id}/j/a", "--json"],
        ["show", f"{batch_id}/j/a/1", "--json"],
        ["logs", f"{batch_id}/j/a", "--json"],
        ["artifact", f"{batch_id}/j/a", "--json"],
        ["artifact", f"{batch_id}/j/a", "deep.txt"],
        ["tail", f"{batch_id}/j/a"],
        ["errors", batch_id, "--json"],
        ["explain", f"{batch_id}/j/b", "--json"],
        ["results", batch_id, "--json"],
    ]
    found = {}
    for words in asked:
        done = program(ctx.layout.root, *words, check=False)
        found[" ".join(words)] = done.returncode, re.sub(r'"at":"[^"]*"', "", done.stdout), done.stderr
    return found


def facts(folder):
    """Everything that is below a folder, by its path: kind, permissions, owner, time, and content."""
    found = {}
    for above, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            info = os.lstat(path)
            content = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as stream:
                    content = stream.read()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, os.fsencode(folder))] = (info.st_mode, info.st_uid, info.st_mtime_ns, content)
    return found


def steps_of(everything):
    return {path: said for path, said in everything.items() if b"/steps" in path}


def test_every_view_reads_it_as_before_and_unpack_brings_it_back(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    before, seen = facts(batch_dir), looks(ctx, batch_id)
    assert sum(code == 0 for code, _, _ in seen.values()) >= 7, {words: said[0] for words, said in seen.items()}
    assert not any(code == 3 for code, _, _ in seen.values()), seen
    done = packs.pack(ctx, batch_id)
    assert (done.state, done.attempts) == ("packed", 3)
    assert not any(batch_dir.glob("*/steps"))
    assert {path.name for path in batch_dir.glob("packed*")} == packed.FILES
    assert len(facts(batch_dir)) <= len(before) / 3
    assert looks(ctx, batch_id) == seen
    assert verify(ctx.layout).ok
    assert packs.pack(ctx, batch_id).state == "was packed"
    assert packs.unpack(ctx, batch_id).state == "unpacked"
    assert steps_of(facts(batch_dir)) == steps_of(before)
    assert not any(batch_dir.glob("packed*"))
    assert verify(ctx.layout).ok


def test_the_server_reads_it_as_before(batch):
    ctx, batch_id = batch
    run_id = next(path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == "a").name.rpartition("_")[2]
    asked = [
        f"/v1/attempts/{run_id}{end}"
        for end in ("/meta", "/state", "/report", "/files", "/files/stdout.log", "/logs", "/ledger")
    ]
    asked += [f"/attempts/{batch_id}/j/a", f"/batches/{batch_id}"]
    with serving(ctx.layout.root, "--no-tick") as server:
        before = [server.client.get(path, follow_redirects=True) for path in asked]
        assert {answer.status_code for answer in before} == {200}
        packs.pack(ctx, batch_id)
        after = [server.client.get(path, follow_redirects=True) for path in asked]
        for path, one, two in zip(asked[:-2], before, after, strict=False):
            assert (path, two.status_code, two.content) == (path, 200, one.content)
        assert {answer.status_code for answer in after} == {200}
        part = server.client.get(asked[4], headers={"Range": "bytes=1-2"})
        assert (part.status_code, part.content) == (206, b"ai")


def test_an_export_of_it_has_all_that_an_export_had_before(batch, tmp_path):
    ctx, batch_id = batch
    (attempt,) = (path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == "a")
    trial = attempt / "agent" / "artifacts"
    harbor_view._link_trial(trial, tmp_path / "before")
    packs.pack(ctx, batch_id)
    harbor_view._link_trial(trial, tmp_path / "after")
    after = {path: (said[0], said[3]) for path, said in facts(tmp_path / "after").items()}
    assert after == {path: (said[0], said[3]) for path, said in facts(tmp_path / "before").items()}
    assert after[b"out/link"][1] == b"/etc/passwd"
    assert {os.fsdecode(path).rpartition("/")[2] for path in after} >= {"deep.txt", "empty", "holes"}
    assert {path.name for path in tmp_path.iterdir()} == {"root", "before", "after"}


@pytest.mark.programs("zstd", "zstdgrep")
def test_standard_tools_read_what_lies_beside_the_ledger(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    seals = {path.relative_to(batch_dir).as_posix(): read(path / "seal.json") for path in attempt_dirs(ctx, batch_id)}
    packs.pack(ctx, batch_id)
    lines = [json.loads(line) for line in (batch_dir / packed.SEALS).read_text().splitlines()]
    assert {line["attempt"]: line["seal"] for line in lines} == seals
    listed = subprocess.run(
        f"zstd -dc {batch_dir}/{packed.ARCHIVE} | tar t", shell=True, capture_output=True, check=True
    ).stdout
    assert b"/seal.json" in listed


@pytest.mark.namespaces
@pytest.mark.programs("zstd", "zstdgrep")
def test_each_line_of_grep_has_a_twin_that_finds_the_same_in_archives(root):
    ctx = context(root)
    tasks = [f"{CHECKOUT}/examples/{name}" for name in ("tasks/hello", "quality/cannot-build")]
    program(root, "run", *tasks, "-a", "oracle", "-a", "nop", "-e", "sandbox", "--fail-on", "never")
    (batch_id,) = ctx.layout.batch_ids()
    batch_dir = ctx.layout.batch(batch_id)

    def lines(command: str) -> list[str]:
        return sorted(subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True).stdout.splitlines())

    def block(page: str, program: str) -> list[str]:
        text = (CHECKOUT / page).read_text()
        return [each.removeprefix("$ ") for each in text.splitlines() if each.removeprefix("$ ").startswith(program)]

    failed, rewards = (each for each in block("README.md", "grep") if "/attempts/" in each)
    before = [lines(failed), lines(rewards)]
    packs.pack(ctx, batch_id)
    ids, counts = map(lines, block("docs/files.md", "zstdgrep"))
    (named,) = (each.replace("BATCH", batch_id) for each in block("docs/files.md", "tar "))
    assert lines(failed) == []
    assert counts == before[1] != []
    assert [f"{batch_dir.relative_to(root)}/{place}" for place in lines(named)] == before[0] != []
    assert sorted(each.split('"')[-2] for each in ids) == sorted(
        path.split("/")[-2].split("_")[-1] for path in before[0]
    )


def test_what_would_change_it_says_what_to_do(batch):
    ctx, batch_id = batch
    packs.pack(ctx, batch_id)
    for words in (["retry", batch_id], ["retry", f"{batch_id}/j/b"]):
        done = program(ctx.layout.root, *words, check=False)
        assert done.returncode == 2
        assert f"{batch_id} is packed; `parallelhassnes unpack {batch_id}`, then again" in done.stderr
    with pytest.raises(UserError, match="is packed"):  # append adds steps by it
        add_steps.add(ctx, batch_id, {})
    program(ctx.layout.root, "unpack", batch_id)
    assert program(ctx.layout.root, "retry", f"{batch_id}/j/b", check=False).returncode == 0


def test_a_rerun_takes_attempts_over_from_the_archive(batch):
    ctx, batch_id = batch
    packs.pack(ctx, batch_id)
    made = json.loads(program(ctx.layout.root, "rerun", batch_id, "--failed", "--json").stdout)
    program(ctx.layout.root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    program(ctx.layout.root, "tick")
    carried = {path.parts[-3] for path in attempt_dirs(ctx, made["batch_id"])}
    assert carried == {"a", "b", "c"}
    assert verify(ctx.layout).ok


@pytest.mark.parametrize("why", ["runs", "paused", "unsealed"])
def test_a_batch_that_is_not_over_is_refused(root, why):
    ctx = context(root, "durable = false\n")
    go = root / "go"
    script = "true" if why == "unsealed" else f"until test -e {go}; do sleep 0.02; done"
    batch_id = put(ctx, table(job("j", shell("a", script))))
    try:
        if why == "paused":
            program(root, "pause", batch_id)
        program(root, "tick")
        if why == "unsealed":
            wait_for(lambda: idle(ctx), "the batch to end")
            program(root, "tick")
            (folder,) = attempt_dirs(ctx, batch_id)
            (folder / "seal.json").unlink()
        said = {"runs": "runs", "paused": "is held (", "unsealed": "has an attempt that is not sealed"}[why]
        with pytest.raises(UserError, match=rf"{batch_id} .*") as refused:
            packs.pack(ctx, batch_id)
        assert said in str(refused.value)
        assert not any(ctx.layout.batch(batch_id).glob("packed*"))
        assert packs.finished(ctx, 0) == []
    finally:
        go.touch()
        program(root, "resume", batch_id, check=False)
        program(root, "tick")
        wait_for(lambda: idle(ctx) or why == "unsealed", "the batch to end")


def test_a_changed_archive_is_found_and_not_unpacked(batch):
    ctx, batch_id = batch
    packs.pack(ctx, batch_id)
    path = ctx.layout.batch(batch_id) / packed.ARCHIVE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = verify(ctx.layout)
    assert not found.ok
    assert any(f.place == f"{batch_id}/{packed.ARCHIVE}" for f in found.problems), found.problems
    with pytest.raises(UserError, match="is not what was packed"):
        packs.unpack(ctx, batch_id)
    assert path.read_bytes() == data
    assert not any(ctx.layout.batch(batch_id).glob("*/steps"))


def test_an_original_that_is_not_what_its_seal_says_is_not_packed(batch):
    ctx, batch_id = batch
    folder = next(path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == "c")
    (folder / "stdout.log").chmod(0o600)
    (folder / "stdout.log").write_text("something else")
    with pytest.raises(UserError, match="is not what was packed"):
        packs.pack(ctx, batch_id)
    assert (folder / "stdout.log").read_text() == "something else"
    assert list(ctx.layout.temp.iterdir()) == []


def test_by_rule_only_batches_that_ended_long_ago(batch):
    ctx, batch_id = batch
    assert packs.finished(ctx, 1) == []
    done = json.loads(program(ctx.layout.root, "pack", "--finished-days", "0", "--json").stdout)
    assert [each["batch_id"] for each in done["batches"]] == [batch_id]
    assert packs.finished(ctx, 0) == []
    tick(ctx)
    assert [line["event"] for _, line in ledger.read(ctx.layout.batch(batch_id))][-1] == "packed"


def test_what_reads_a_file_of_it_never_leaves_the_archive_and_opens_no_other_file(batch, monkeypatch):
    ctx, batch_id = batch
    folder = next(path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == "a")
    packs.pack(ctx, batch_id)
    out = folder / "agent/artifacts/out"
    assert safe_read.read_bytes(out / "a/b/c/deep.txt", 100) == b"deep\n"
    assert safe_read.read_bytes(out / "holes", 10, end=True) == b"\0" * 7 + b"end"
    assert safe_read.size(out / "holes") == (3 << 20) + 3
    for name in ("link", "pipe", "a", "../../../../meta.json", "gone"):
        assert safe_read.read_bytes(out / name, 100) is None, name
    assert (walk.kind(out / "link"), walk.kind(out / "a"), walk.kind(out / "gone")) == ("link", "folder", "")
    assert atomic.read_json(folder / attempts.META)["step_id"] == "a"
    monkeypatch.setattr(packed, "_IN_MEMORY", 4)  # a large file
    assert safe_read.read_bytes(out / "holes", 10, end=True) == b"\0" * 7 + b"end"
    assert not [path for path in ctx.layout.batch(batch_id).iterdir() if path.name[0] == "."]
    opened = _opened_by_show(ctx, batch_id)
    assert sum(path.endswith(packed.ARCHIVE) for path in opened) <= 8
    assert not any("/_system/tmp/" in path for path in opened)


def _opened_by_show(ctx, batch_id):
    code = """
import sys
opened = []
sys.addaudithook(lambda event, said: opened.append(str(said[0])) if event == "open" else None)
sys.argv = ["parallelhassnes", "show", sys.argv[2], "--root", sys.argv[1]]
from parallelhassnes.cli import app
try:
    app.main()
finally:
    print(*opened, sep="\\n", file=sys.stderr)
"""
    done = python(code, str(ctx.layout.root), f"{batch_id}/j/a/1")
    return done.stderr.splitlines()


def test_a_pack_whose_batch_was_unpacked_meanwhile_takes_nothing_away(batch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    packs._make(ctx, batch_id)
    made = packed.of(batch_dir)
    before = facts(batch_dir / "j" / "steps")
    packs.unpack(ctx, batch_id)
    with pytest.raises(UserError, match="was changed while it was packed"):
        packs._tell_and_clear(ctx, batch_id, made)
    assert facts(batch_dir / "j" / "steps") == before
    assert packs._last(batch_dir)["event"] == "unpacked"
    assert verify(ctx.layout).ok


def test_an_unpack_that_another_has_overtaken_puts_no_earlier_archive_back(batch, monkeypatch):
    ctx, batch_id = batch
    batch_dir = ctx.layout.batch(batch_id)
    packs.pack(ctx, batch_id)
    extract = packs.unpacking.extract

    def overtaken(pack, target):
        extract(pack, target)
        monkeypatch.setattr(packs.unpacking, "extract", extract)
        packs.unpack(ctx, batch_id)
        program(ctx.layout.root, "retry", f"{batch_id}/j/b")
        program(ctx.layout.root, "tick", "--until-idle", check=False)  # it fails again, seen by who is in time
        packs.pack(ctx, batch_id)

    monkeypatch.setattr(packs.unpacking, "extract", overtaken)
    with pytest.raises(UserError, match="was changed while it was unpacked"):
        packs.unpack(ctx, batch_id)
    assert len(attempts.names(batch_dir / "j" / "steps" / "b")) == 2
    assert verify(ctx.layout).ok


def test_an_archive_that_is_gone_is_told_in_a_line(batch):
    ctx, batch_id = batch
    packs.pack(ctx, batch_id)
    archive = ctx.layout.batch(batch_id) / packed.ARCHIVE
    archive.unlink()
    done = program(ctx.layout.root, "unpack", batch_id, check=False)
    assert (done.returncode, f"{archive} is not there any more" in done.stderr) == (2, True), done.stderr
    assert not any(path.name.startswith(".") for path in ctx.layout.batch(batch_id).iterdir())
