"""A host works on a root beside others only after it has shown that each sees what the other does."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import wait_for

from parallelhassnes.store import decider, hosts
from tests.hosts import file_systems
from tests.hosts.lab import Lab

pytestmark = [pytest.mark.timeout(120), pytest.mark.hosts]


def made(kind: str = "same") -> Lab:
    """A lab whose store no host has ticked: the machine made it."""
    lab = Lab(kind)
    shutil.rmtree(lab.disk / "runners", ignore_errors=True)
    return lab


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with when it was changed last and its size."""
    found = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            info = os.lstat(os.path.join(top, name))
            found[os.path.join(top, name)] = info.st_mtime_ns, info.st_size
    return found


def probed(process: "subprocess.Popen[str]", code: int = 0) -> dict:
    out, said = process.communicate(timeout=90)
    assert process.returncode == code, f"{out}\n{said}"
    return json.loads(out)


def probe(lab: Lab, *on, **more):
    return [
        lab.start(host, "doctor", "--hosts", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        for host in on
    ]


def checks(found: dict, host: str) -> dict[str, tuple[str, str]]:
    listed = next(each for each in found["hosts"] if each["name"] == host)["checks"]
    return {check["name"]: (check["state"], check["text"]) for check in listed}


def test_a_second_host_is_refused_and_changes_nothing_and_may_look():
    with made("own_locks") as lab:
        one, two = lab.host("h1"), lab.host("h2")
        one.ours("tick", root=lab.root)
        table = lab.disk / "table.json"
        table.write_text('{"spec_version": "2.0", "jobs": []}')
        (lab.disk / "runs" / "_queue" / "incoming" / "t.json").write_text("{}")
        before = everything(lab.disk)
        commands = (
            ["tick", "--quiet"],
            ["run", str(Path("examples/tasks/hello").resolve()), "-a", "oracle"],
            ["submit", str(table)],
            ["pause", "latest"],
            ["token", "create", "t"],
            ["doctor", "--rebuild"],
            ["api", "--port", "0"],
        )
        refused = [lab.start(two, *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
        for command, process in zip(commands, refused, strict=True):
            _, said = process.communicate(timeout=90)
            assert process.returncode == 2, (command, said)
            assert said.count("\n") == 1, (command, said)
            assert "is worked on by h1, and this host (h2) has not shown that it sees" in said, command
            assert f"run `parallelhassnes doctor --hosts --root {lab.root}` here and there at the same time" in said
        assert everything(lab.disk) == before
        two.ours("scoreboard", root=lab.root)
        found = two.ours("doctor", root=lab.root, check=False)
        assert "trouble hosts       " in found.stdout
        assert found.returncode == 1
        one.ours("tick", root=lab.root)
        assert not (lab.disk / "runs" / "_queue" / "incoming" / "t.json").exists(), "the first host goes on"


def test_two_hosts_find_out_that_locks_reach_and_join():
    with made() as lab:
        one, two, three = lab.three()
        first, second = map(probed, probe(lab, one, two))
        for found, other in ((first, "h2"), (second, "h1")):
            assert found["joined"]
            assert found["locks_cross"]
            assert 0.2 <= found["cache_sec"] < 5
            said = checks(found, other)
            assert all(
                said[name][0] == "ok" for name in ("link", "rename", "locks", "path", "config", "version", "uid")
            )
            assert "freed by its holder's death" in said["locks"][1]
        members = hosts.members_of(lab.ctx.layout)
        assert set(members) == {"h1", "h2"}
        assert members["h1"].probed_with == ("h2",)
        one.ours("tick", root=lab.root)
        two.ours("tick", root=lab.root)
        assert "has not shown" in three.ours("tick", root=lab.root, check=False).stderr
        doctor = two.ours("doctor", root=lab.root, check=False).stdout
        assert "host h1" in doctor
        board = json.loads(two.ours("scoreboard", "--json", root=lab.root).stdout)
        joined = {line["runner_id"]: line["joined"] for line in board["runners"]}
        assert set(joined) == {"h1", "h2"}
        assert joined["h1"]["locks_cross"]
        assert not any((lab.disk / "runners" / ".hosts" / "probe").glob("*/ask.json"))


def test_locks_that_do_not_reach_are_told_with_what_follows():
    with made("own_locks") as lab:
        one, two = lab.host("h1"), lab.host("h2")
        first, _ = map(probed, probe(lab, one, two))
        assert first["joined"]
        assert not first["locks_cross"]
        state, text = checks(first, "h2")["locks"]
        assert state == "note"
        assert "operators' commands work on the host that decides" in text
        doctor = one.ours("doctor", root=lab.root, check=False).stdout
        (line,) = [line for line in doctor.splitlines() if line[8:].startswith("locks ")]
        assert line.startswith("note")
        assert "do not reach from host to host" in line


def test_old_caches_are_measured(monkeypatch):
    monkeypatch.setattr(file_systems, "CACHE_SEC", 3)
    with made("stale") as lab:
        one, two = lab.host("h1"), lab.host("h2")
        begun = time.monotonic()
        first, second = map(probed, probe(lab, one, two))
        took = time.monotonic() - begun
        for found in (first, second):
            assert found["joined"]
            assert 2.5 < found["cache_sec"] < took, "three seconds each way, and on a busy machine what they took there"


def test_a_tick_answers_the_host_that_asks():
    with made() as lab:
        one, two = lab.host("h1"), lab.host("h2")
        one.ours("tick", root=lab.root)
        (asking,) = probe(lab, two)
        wait_for(lambda: any((lab.disk / "runners" / ".hosts" / "probe").glob("*/ask.json")), "the probe")
        one.ours("tick", root=lab.root)
        assert probed(asking)["joined"]
        assert set(hosts.members_of(lab.ctx.layout)) == {"h1", "h2"}
        right = decider.right(lab.ctx.layout)
        assert right is not None
        assert right.runner == "h1", "what ran before decides"


def test_a_host_that_was_started_anew_joins_again_by_itself():
    with made() as lab:
        one, two = lab.host("h1"), lab.host("h2")
        for process in probe(lab, one, two):
            probed(process)
        before = hosts.member(lab.ctx.layout, "h1")
        one.power_cut()
        one.boot()
        done = one.ours("tick", root=lab.root, check=False)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert "was started anew" in line
        assert "it is joining again, in the background" in line
        two.ours("tick", root=lab.root)

        def has_joined() -> bool:
            now = hosts.member(lab.ctx.layout, "h1")
            return now is not None and before is not None and now.boot_id != before.boot_id

        wait_for(has_joined, "it to join again", 60)
        one.ours("tick", root=lab.root)


def test_two_hosts_of_one_name_and_a_name_for_all_are_refused():
    with made() as lab:
        one, two = lab.host("h1"), lab.host("h2")
        for found in (probed(process, 1) for process in probe(lab, one, two, env={hosts.NAME_VARIABLE: "x"})):
            assert "both call themselves x" in found["trouble"][0]
            assert not found["joined"]
        assert hosts.members_of(lab.ctx.layout) == {}
        config = lab.disk / "parallelhassnes.toml"
        config.write_text('runner_id = "x"\n' + config.read_text())
        one.ours("tick", root=lab.root)
        assert (lab.disk / "runners" / "x" / "health.json").exists(), "the name on a root of one host"
        refused = two.ours("doctor", "--hosts", root=lab.root, check=False)
        assert refused.returncode == 2
        assert "runner_id stands in" in refused.stderr
        assert "remove the line there" in refused.stderr


def test_a_root_that_was_moved_goes_on_alone_once_the_other_host_is_gone():
    with made() as lab:
        one, two = lab.host("h1"), lab.host("h2")
        one.ours("tick", root=lab.root)
        refused = two.ours("doctor", "--alone", root=lab.root, check=False)
        assert refused.returncode == 2
        assert "local has ticked" in refused.stderr
        assert "so it is not gone" in refused.stderr
        one.power_cut()
        health = lab.disk / "runners" / "local" / "health.json"
        os.utime(health, (health.stat().st_mtime - 1000,) * 2)
        assert "forgot local" in two.ours("doctor", "--alone", root=lab.root).stdout
        two.ours("tick", root=lab.root)
        one.boot()
        assert "is worked on by h2" in one.ours("tick", root=lab.root, check=False).stderr


def test_a_probe_that_cannot_be_removed_yet_is_removed_by_a_later_one():
    """A file that is open leaves another in the folder, on FUSE as on NFS, so the folder cannot go."""
    code = """import os, sys
from pathlib import Path
from parallelhassnes.schedule.joining.probe_files import put_away
folder, later = Path(sys.argv[1], "one"), Path(sys.argv[1], "two")
folder.mkdir(parents=True)
with (folder / "file").open("w") as stream:
    stream.write("x")
    put_away(folder)
    assert [name[:5] for name in os.listdir(folder)] == [".fuse"], os.listdir(folder)
    later.mkdir()
    put_away(later)
    assert folder.exists(), "it may be of a probe that has just begun"
os.utime(folder, (0, 0))
later.mkdir()
put_away(later)
assert os.listdir(sys.argv[1]) == []
"""
    with Lab("own_locks") as lab:
        lab.host("h1").run(sys.executable, "-c", code, str(lab.root / "probes"))
