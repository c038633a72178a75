"""Removal by rules: what goes, what stays, what says so; and what is never touched."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import pytest
from harness import make_task
from servers import serving
from stores import (
    SUPPORT,
    attempt_dirs,
    command,
    context,
    environment,
    idle,
    job,
    program,
    put,
    python,
    shell,
    table,
    wait_for,
)

from parallelhassnes import packed
from parallelhassnes.actions import packs
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.config import load_config
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.schedule.context import open_context
from parallelhassnes.store import locks
from parallelhassnes.store.evidence import ledger, removals

ALL = '[[retention.rules]]\nname = "all"\nafter_days = 0\n'
FAILED = '[[retention.rules]]\nname = "bad"\nafter_days = 0\noutcomes = ["failed"]\n'
LEAVES = 'cd "$PARALLELHASSNES_ATTEMPT_DIR"; mkdir -p agent/artifacts/out; echo deep > agent/artifacts/out/deep.txt; chmod 500 agent/artifacts/out; echo said'


def store(root, toml, *jobs, **more):
    """A store with one batch that has ended."""
    ctx = context(root, f"durable = false\n{toml}")
    return ctx, ended(ctx, *jobs, **more)


def ended(ctx, *jobs, **more):
    jobs = jobs or (job("j", shell("a", LEAVES), command("b", "false")),)
    batch_id = put(ctx, table(*jobs, **more))
    program(ctx.layout.root, "tick")
    wait_for(lambda: idle(ctx), "the batch to end")
    program(ctx.layout.root, "tick")
    return batch_id


def rules(ctx, toml):
    """The same root under other rules."""
    path = ctx.layout.root / "parallelhassnes.toml"
    path.write_text(path.read_text().partition("[")[0] + toml)
    return open_context(ctx.layout.root)


def collect(ctx):
    return removing.carry_out(ctx, retention.plan(ctx))


def step(ctx, batch_id, name):
    (found,) = (path for path in attempt_dirs(ctx, batch_id) if path.parts[-3] == name)
    return found


def below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def numbers(ctx, batch_id):
    """What results say, without times and what is measured anew."""
    asked = [["results", batch_id], ["errors", batch_id], ["scoreboard", batch_id], ["status", batch_id]]
    said = [program(ctx.layout.root, *words, "--json", check=False).stdout for words in asked]
    return [re.sub(r'"(at|generated_at|age_sec|seconds|ticked_at)":("[^"]*"|[0-9.]+)', "", text) for text in said]


def test_files_go_records_stay_and_an_audit_says_which_rule(root):
    ctx, batch_id = store(root, ALL)
    before, whole = numbers(ctx, batch_id), verify(ctx.layout)
    assert whole.ok
    there = {path: below(path) for path in attempt_dirs(ctx, batch_id)}
    looked = json.loads(program(root, "gc", "--dry-run", "--json").stdout)
    assert {path: below(path) for path in attempt_dirs(ctx, batch_id)} == there
    done = json.loads(program(root, "gc", "--yes", "--json").stdout)
    assert done["rules"] == looked["rules"]
    assert (done["rules"][0]["attempts"], done["rules"][0]["bytes"] > 0) == (2, True)
    for path, names in there.items():
        assert below(path) == [name for name in names if removals.stays(name)]
        assert {"meta.json", "state.json", "final.json", "seal.json"} <= set(below(path))
        assert not (path / "agent").exists()
    assert numbers(ctx, batch_id) == before
    found = program(root, "audit", "verify")
    assert "2 attempts removed by rule all, as their tombstones say" in found.stdout
    assert verify(ctx.layout).removed == {"all": 2}
    stones = removals.of(ctx.layout.batch(batch_id))
    told = ledger.seals(ctx.layout.batch(batch_id))
    assert {place: stone.seal for place, stone in stones.items()} == told
    assert program(root, "doctor", "--rebuild", check=False).returncode in (0, 1)
    assert numbers(ctx, batch_id) == before
    assert "nothing is to be removed or packed" in program(root, "gc", "--yes").stdout


def test_whoever_looks_for_a_file_is_told_in_a_line(root, tmp_path):
    ctx, batch_id = store(root, ALL)
    collect(ctx)
    said = f"its files were removed on {time.strftime('%Y-%m-%d', time.gmtime())} by the rule all (after 0 days)"
    place = f"{batch_id}/j/a"
    assert said in program(root, "logs", place).stderr
    assert said in program(root, "show", place).stdout
    assert said in json.loads(program(root, "artifact", place, "--json").stdout)["removed"]
    for words in (
        ["artifact", place, "deep.txt"],
        ["artifact", place, "stdout.log"],
        ["logs", place, "--file", "stdout.log"],
    ):
        done = program(root, *words, check=False)
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    with serving(root, "--no-tick") as server:
        assert said in server.client.get(f"/attempts/{place}", follow_redirects=True).text
        run_id = step(ctx, batch_id, "a").name.rpartition("_")[2]
        answer = server.client.get(f"/v1/attempts/{run_id}/files/stdout.log")
        assert (answer.status_code, said in answer.text) == (404, True)
        assert server.client.get(f"/v1/attempts/{run_id}/report").status_code == 200


def test_the_first_rule_that_fits_decides(root):
    toml = """
[[retention.rules]]
name = "paper"
keep = true
experiments = ["paper-*"]
[[retention.rules]]
name = "large"
min_mb = 1
after_days = 0
[[retention.rules]]
name = "failures"
outcomes = ["failed"]
after_days = 300
[[retention.rules]]
name = "rest"
after_days = 0
"""
    large = job(
        "j", shell("a", "head -c 2000000 /dev/zero | tr '\\0' x"), shell("b", "echo small"), command("c", "false")
    )
    ctx, batch_id = store(root, toml, large)
    paper = ended(ctx, experiment="paper-1")
    done = collect(ctx)
    assert [(use.rule, use.attempts) for use in done.rules] == [("large", 1), ("rest", 1)]
    assert set(removals.of(ctx.layout.batch(batch_id))) == {
        step(ctx, batch_id, name).relative_to(ctx.layout.batch(batch_id)).as_posix() for name in "ab"
    }
    assert removals.of(ctx.layout.batch(paper)) == {}
    assert (step(ctx, batch_id, "c") / "stdout.log").exists()
    assert verify(ctx.layout).ok


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[[retention.rules]]\nname = "x"\n', "the rule x needs after_days, or keep = true, and not both"),
        ('[[retention.rules]]\nname = "x"\nkeep = true\nafter_days = 3\n', "and not both"),
        ('[[retention.rules]]\nname = "x"\nafter_days = -1\n', "greater than or equal to 0"),
        ('[[retention.rules]]\nname = "x"\nafter_days = 1\noutcomes = ["pased"]\n', "'passed'"),
        ('[[retention.rules]]\nname = "x"\nafter_days = 1\nolder = 1\n', "extra inputs are not permitted"),
        (
            ALL + '[[retention.rules]]\nname = "y"\nkeep = true\n',
            "the rule y is never reached: all above it fits everything",
        ),
        (FAILED + FAILED, "two rules are called bad"),
        ("[retention]\npack_after_days = 'x'\n", "valid number"),
    ],
)
def test_a_bad_rule_is_one_line(root, toml, said):
    (root / "parallelhassnes.toml").write_text(toml)
    with pytest.raises(InvalidInput) as refused:
        load_config(root)
    (line,) = refused.value.lines()
    assert said in line
    assert "retention" in line


def test_without_rules_or_somebody_to_ask_nothing_goes(root):
    ctx, batch_id = store(root, "")
    done = program(root, "gc", "--yes", check=False)
    assert (done.returncode, "there are no rules for gc; write [retention]" in done.stderr) == (2, True)
    rules(ctx, ALL)
    done = program(root, "gc", check=False)
    assert (done.returncode, "say --yes, or --dry-run" in done.stderr) == (2, True)
    assert removals.of(ctx.layout.batch(batch_id)) == {}


def test_what_runs_waits_or_is_held_is_kept(root):
    ctx = context(root, f"durable = false\n{ALL}")
    go = root / "go"
    wait = f"until test -e {go}; do sleep 0.02; done"
    batch_id = put(ctx, table(job("j", command("a", "true"), shell("b", wait))))
    try:
        program(root, "tick")
        wait_for(lambda: len(ledger.seals(ctx.layout.batch(batch_id))) == 1, "the first step to end")
        done = collect(ctx)
        assert (done.kept, done.rules) == ([f"{batch_id}: runs"], [])
        program(root, "pause", batch_id)
        assert collect(ctx).kept[0].startswith(f"{batch_id}: is held (")
    finally:
        go.touch()
        program(root, "resume", batch_id, check=False)
        wait_for(lambda: idle(ctx), "the batch to end")
        program(root, "tick")
    assert collect(ctx).rules[0].attempts == 2
    assert verify(ctx.layout).ok


def test_what_a_rerun_has_taken_over_stays_until_that_is_removed_itself(root):
    ctx, batch_id = store(
        root, '[[retention.rules]]\nname = "old"\nafter_days = 0\nexperiments = ["first"]\n', experiment="first"
    )
    made = json.loads(program(root, "rerun", batch_id, "--failed", "--edit", "experiment=second", "--json").stdout)[
        "batch_id"
    ]
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    program(root, "tick")
    done = collect(ctx)
    assert done.kept == [f"{batch_id}: 1 of its attempts are taken over or judged by {made}"]
    assert {place.split("/")[2] for place in removals.of(ctx.layout.batch(batch_id))} == {"b"}
    ctx = rules(ctx, ALL)
    collect(ctx)
    assert len(removals.of(ctx.layout.batch(made))) == 2
    collect(ctx)
    assert len(removals.of(ctx.layout.batch(batch_id))) == 2
    assert verify(ctx.layout).ok


def test_nothing_goes_while_a_batch_that_may_have_taken_it_over_cannot_be_read(root):
    ctx, batch_id = store(root, ALL)
    mute = ctx.layout.batch(ended(ctx))
    (mute / ledger.LEDGER).rename(root / "aside")
    (mute / ledger.LEDGER).mkdir()
    done = json.loads(program(root, "gc", "--yes", "--json").stdout)
    assert done["kept"] == [
        f"{batch_id}: may be taken over or judged by {mute.name}, which cannot be read; mend it as `parallelhassnes doctor` says"
    ]
    assert removals.of(ctx.layout.batch(batch_id)) == {}
    (mute / ledger.LEDGER).rmdir()
    (root / "aside").rename(mute / ledger.LEDGER)
    assert collect(ctx).rules[0].batches == 2
    assert verify(ctx.layout).ok


def test_a_rerun_takes_over_what_was_removed_as_what_it_is(root):
    ctx, batch_id = store(root, ALL)
    collect(ctx)
    made = json.loads(program(root, "rerun", batch_id, "--failed", "--json").stdout)["batch_id"]
    program(root, "tick")
    wait_for(lambda: idle(ctx), "the rerun to end")
    program(root, "tick")
    assert {place.split("/")[2] for place in removals.of(ctx.layout.batch(made))} == {"a"}
    assert "by the rule all" in program(root, "logs", f"{made}/j/a").stderr
    assert verify(ctx.layout).ok


@pytest.mark.parametrize("packs_again", [True, False])
def test_a_packed_batch_is_packed_again_without_them(root, packs_again):
    toml = f"[retention]\npack_after_days = {0 if packs_again else 300}\n{ALL}"
    ctx, batch_id = store(root, toml)
    batch_dir = ctx.layout.batch(batch_id)
    packs.pack(ctx, batch_id)
    size, before = (batch_dir / packed.ARCHIVE).stat().st_size, numbers(ctx, batch_id)
    done = collect(ctx)
    assert (done.packed, done.ok, done.rules[0].attempts) == ([batch_id], True, 2)
    assert packed.of(batch_dir) is not None
    assert (batch_dir / packed.ARCHIVE).stat().st_size < size
    assert verify(ctx.layout).ok
    assert numbers(ctx, batch_id) == before
    assert "by the rule all" in program(root, "artifact", f"{batch_id}/j/a", "deep.txt", check=False).stderr
    assert collect(ctx).is_nothing
    packs.unpack(ctx, batch_id)
    assert verify(ctx.layout).ok
    assert "agent" not in os.listdir(step(ctx, batch_id, "a"))


def test_a_batch_that_was_unpacked_for_gc_waits_while_it_is_held_and_stays_where_somebody_unpacks_it(root):
    ctx, batch_id = store(root, FAILED)
    batch_dir = ctx.layout.batch(batch_id)
    packs.pack(ctx, batch_id)
    packs.unpack(ctx, batch_id, for_now=True)  # here gc was killed
    program(root, "pause", batch_id)
    done = json.loads(program(root, "gc", "--yes", "--json").stdout)
    assert (done["packed"], done["failed"], len(done["kept"])) == ([], [], 1)
    assert done["kept"][0].startswith(f"{batch_id}: is held (")
    program(root, "resume", batch_id)
    made = retention.plan(ctx)
    assert made.said.packed == [batch_id]
    packs.pack(ctx, batch_id)
    packs.unpack(ctx, batch_id)  # while gc asks whether to go on
    assert removing.carry_out(ctx, made).packed == []
    assert packed.of(batch_dir) is None
    assert verify(ctx.layout).ok


def test_a_folder_by_the_name_of_a_record_stays_whole_and_is_not_told_as_half_removed(root):
    odd = 'mkdir -p "$PARALLELHASSNES_ATTEMPT_DIR/verdict.json/in"; echo x > "$PARALLELHASSNES_ATTEMPT_DIR/verdict.json/in/x"'
    ctx, batch_id = store(root, ALL, job("j", shell("a", odd)))
    collect(ctx)
    assert [note for note in verify(ctx.layout).notes if note.what == "torn"] == []
    packs.pack(ctx, batch_id)
    packs.unpack(ctx, batch_id)
    assert "verdict.json/in/x" in below(step(ctx, batch_id, "a"))
    assert verify(ctx.layout).ok


def test_packing_by_rule(root):
    ctx, batch_id = store(root, "[retention]\npack_after_days = 1\n")
    assert collect(ctx).is_nothing
    ctx = rules(ctx, "[retention]\npack_after_days = 0\n")
    assert json.loads(program(root, "gc", "--dry-run", "--json").stdout)["packed"] == [batch_id]
    assert packed.of(ctx.layout.batch(batch_id)) is None
    assert f"{batch_id} packed" in program(root, "gc", "--yes").stdout
    assert packed.of(ctx.layout.batch(batch_id)) is not None


def test_what_a_crash_left_is_told_and_completed(root):
    ctx, batch_id = store(root, ALL)
    batch_dir = ctx.layout.batch(batch_id)
    made = retention.plan(ctx)
    found = made.goes[batch_id]
    with locks.held(ctx.layout.tick_lock):
        removals.bury(batch_dir, "all", "after 0 days", {place: each.tombstone for place, each in found.items()})
    place = step(ctx, batch_id, "a").relative_to(batch_dir).as_posix()
    (batch_dir / place / "stdout.log").unlink()
    checked = verify(ctx.layout)
    assert checked.ok
    assert {note.what for note in checked.notes} == {"torn"}
    done = collect(ctx)
    assert (done.finished, done.rules) == (2, [])
    assert not any(note.what == "torn" for note in verify(ctx.layout).notes)
    assert all(removals.stays(name) for name in below(batch_dir / place))


def test_a_gap_without_a_tombstone_and_a_tombstone_of_another_seal_are_errors(root):
    ctx, batch_id = store(root, FAILED)
    collect(ctx)
    batch_dir = ctx.layout.batch(batch_id)
    assert verify(ctx.layout).ok
    whole, gone = step(ctx, batch_id, "a"), step(ctx, batch_id, "b")
    (whole / "stdout.log").unlink()
    assert {f.place for f in verify(ctx.layout).problems} == {
        f"{batch_id}/{(whole / 'stdout.log').relative_to(batch_dir)}"
    }
    (whole / "stdout.log").write_text("said\n")
    (gone / "final.json").chmod(0o600)
    (gone / "final.json").write_text("{}")
    assert any(f.place.endswith("/final.json") for f in verify(ctx.layout).problems)
    for name in os.listdir(gone):
        (gone / name).unlink()
    gone.rmdir()
    assert any(f.what == "missing" and "records are gone" in f.text for f in verify(ctx.layout).problems)


def forge(ctx, batch_id, **facts):
    """Write the tombstone of one attempt by hand; None: a line that has no such key."""
    with locks.held(ctx.layout.tick_lock):
        ledger.append(ctx.layout.batch(batch_id), "removed", by="x", rule="all", says="s", **facts)


FORGED = {"seal": "0", "merkle_root": "0", "files": 1, "bytes": 1}


def test_a_tombstone_reaches_nothing_outside_its_batch(root, tmp_path):
    ctx, batch_id = store(root, ALL)
    for name, facts in (("elsewhere", {}), ("j/steps/e/attempts", FORGED)):
        folder = tmp_path / "victim" / name
        folder.mkdir(parents=True)
        (folder / "precious").write_text("x")
        forge(
            ctx,
            batch_id,
            attempts=[{**FORGED, **facts, "attempt": os.path.relpath(folder, ctx.layout.batch(batch_id))}],
        )
    assert [found.text for found in verify(ctx.layout).problems] == ["is not what we write"] * 2
    assert program(root, "gc", "--yes").stdout.startswith("all (after 0 days): ")
    assert len(list(tmp_path.rglob("precious"))) == 2


def test_a_tombstone_with_another_seal_removes_and_hides_nothing(root):
    ctx, batch_id = store(root, FAILED)
    batch_dir, whole = ctx.layout.batch(batch_id), step(ctx, batch_id, "a")
    there = below(whole)
    forge(ctx, batch_id, attempts=[{**FORGED, "attempt": whole.relative_to(batch_dir).as_posix()}])
    (problem,) = verify(ctx.layout).problems
    assert problem.text == "is not what its tombstone says of it"
    collect(ctx)
    assert below(whole) == there
    packs.pack(ctx, batch_id)
    packs.unpack(ctx, batch_id)
    assert below(whole) == there
    assert verify(ctx.layout).removed == {"bad": 1}
    (whole / "stdout.log").unlink()
    assert "stdout.log" in [found.place.rpartition("/")[2] for found in verify(ctx.layout).problems]


@pytest.mark.parametrize("wrong", [{"files": 0}, {"bytes": 0}, {"merkle_root": "0"}])
def test_a_tombstone_has_to_say_what_the_seal_says(root, wrong):
    ctx, batch_id = store(root, "")
    batch_dir, folder = ctx.layout.batch(batch_id), step(ctx, batch_id, "a")
    sealed = json.loads((folder / "seal.json").read_text())
    true = removals.of_seal(ledger.content_hash(folder / "seal.json"), sealed["merkle_root"], sealed["files"])._asdict()
    (folder / "stdout.log").unlink()
    facts = {name: true[name] for name in FORGED} | wrong
    forge(ctx, batch_id, attempts=[{**facts, "attempt": folder.relative_to(batch_dir).as_posix()}])
    assert not verify(ctx.layout).ok


@pytest.mark.parametrize(
    "attempts",
    [None, "x", [1], [{"attempt": "x"}], [{**FORGED, "attempt": "j/steps/a/attempts/x", "files": "no"}], {"x": 1}],
)
def test_a_tombstone_that_is_none_is_a_finding_and_keeps_nothing_from_working(root, attempts):
    ctx, batch_id = store(root, ALL)
    forge(ctx, batch_id, attempts=attempts)
    done = program(root, "audit", "verify", check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "ledger.jsonl:6: is not what we write" in done.stdout
    assert program(root, "show", f"{batch_id}/j/a").returncode == 0
    assert program(root, "gc", "--yes").stderr == ""
    assert len(removals.of(ctx.layout.batch(batch_id))) == 2


def test_a_bracket_in_a_label_is_a_bracket(root):
    keep = '[[retention.rules]]\nname = "paper"\nkeep = true\nexperiments = ["run[1]*"]\n'
    ctx, batch_id = store(root, keep + ALL, experiment="run[1]-a")
    other = ended(ctx, experiment="run1-a")
    collect(ctx)
    assert removals.of(ctx.layout.batch(batch_id)) == {}
    assert len(removals.of(ctx.layout.batch(other))) == 2


def test_a_rule_speaks_of_batches_that_have_all_of_its_labels(root):
    keep = '[[retention.rules]]\nname = "ours"\nkeep = true\nlabels = {team = "a*", for = "paper"}\n'
    ctx, kept = store(root, keep + ALL, labels={"team": "alpha", "for": "paper", "more": "x"})
    others = [ended(ctx, labels=said) for said in ({"team": "alpha"}, {"team": "beta", "for": "paper"}, {})]
    assert "labeled team=a*, for=paper" in ctx.config.retention.rules[0].says
    collect(ctx)
    assert removals.of(ctx.layout.batch(kept)) == {}
    assert [len(removals.of(ctx.layout.batch(other))) for other in others] == [2, 2, 2]


def test_a_seal_that_was_changed_is_no_reason_to_remove_what_shows_it(root):
    ctx, batch_id = store(root, ALL)
    folder = step(ctx, batch_id, "a")
    (folder / "seal.json").chmod(0o600)
    (folder / "seal.json").write_text((folder / "seal.json").read_text().replace("stdout", "stdoot"))
    done = collect(ctx)
    assert done.kept == [f"{batch_id}: 1 of its attempts have another seal than the ledger names"]
    assert (folder / "stdout.log").exists()


def test_an_old_checkpoint_holds(root, tmp_path):
    ctx, _ = store(root, ALL)
    program(root, "audit", "checkpoint")
    kept = tmp_path / "kept.json"
    (newest,) = (ctx.layout.system / "checkpoints").glob("1.json")
    kept.write_bytes(newest.read_bytes())
    collect(ctx)
    found = program(root, "audit", "verify", "--against", str(kept))
    assert "removed by rule all" in found.stdout


def test_one_gc_at_a_time(root):
    ctx, batch_id = store(root, ALL)
    made = retention.plan(ctx)
    with locks.held(ctx.layout.gc_lock), pytest.raises(UserError, match="another gc is at work"):
        collect(ctx)
    assert removals.of(ctx.layout.batch(batch_id)) == {}
    collect(ctx)
    late = removing.carry_out(ctx, made)  # what another has done meanwhile is not done again
    assert late.kept == [f"{batch_id}: was changed meanwhile"]
    assert len([1 for _, line in ledger.read(ctx.layout.batch(batch_id)) if line["event"] == "removed"]) == 1


def test_several_at_once_with_pack_unpack_and_verify(root):
    ctx = context(root, f"durable = false\n[retention]\npack_after_days = 0\n{FAILED}")
    made = [ended(ctx) for _ in range(3)]
    words = [["gc", "--yes"], ["pack", *made], ["gc", "--yes"], ["unpack", *made], ["audit", "verify"], ["gc", "--yes"]]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "parallelhassnes", *each, "--root", str(root)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        )
        for each in words
    ]  # fmt: skip
    for each, child in zip(words, running, strict=True):
        said = child.communicate(timeout=120)[0]
        assert child.returncode in (0, 1, 2), (each, said)
        assert "internal" not in said, (each, said)
        assert each[0] != "audit" or child.returncode == 0, said
    collect(ctx)
    assert verify(ctx.layout).ok
    for batch_id in made:
        assert {place.split("/")[2] for place in removals.of(ctx.layout.batch(batch_id))} == {"b"}
        assert packed.of(ctx.layout.batch(batch_id)) is not None
    assert list(ctx.layout.temp.iterdir()) == []


def test_no_space_for_the_tombstone_removes_nothing(small_disk):
    steps = [command(f"s{n}", "true") for n in range(40)]
    floors = "min_free_disk_mb = 0\nmin_free_files = 0\nmin_free_memory_mb = 0\n"
    ctx, batch_id = store(small_disk, floors + ALL, job("j", *steps))
    size, there = ledger.size(ctx.layout.batch(batch_id)), {path: below(path) for path in attempt_dirs(ctx, batch_id)}
    with (small_disk / "full").open("wb", buffering=0) as full, contextlib.suppress(OSError):
        while full.write(b"x" * 4096):
            pass
    done = program(small_disk, "gc", "--yes", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert (
        "there is no space for the line that says what is removed, so nothing more was; free some space" in done.stderr
    )
    assert ledger.size(ctx.layout.batch(batch_id)) == size
    assert {path: below(path) for path in attempt_dirs(ctx, batch_id)} == there
    (small_disk / "full").unlink()
    assert program(small_disk, "gc", "--yes").returncode == 0
    assert verify(ctx.layout).ok


@pytest.mark.skipif(os.geteuid() != 0, reason="an attribute that only root can set")
def test_what_cannot_be_removed_is_told_and_tried_again(root):
    ctx, batch_id = store(root, ALL)
    stuck = step(ctx, batch_id, "a") / "agent/artifacts/out"
    if subprocess.run(["chattr", "+i", str(stuck)], capture_output=True, check=False).returncode:
        pytest.skip("a file system without such attributes")
    try:
        done = program(root, "gc", "--yes", check=False)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    assert (done.returncode, "not permitted" in done.stderr.lower()) == (1, True), done
    assert verify(ctx.layout).ok
    assert not (step(ctx, batch_id, "b") / "stdout.log").exists()
    assert collect(ctx).finished == 1
    assert not stuck.exists()


AS_ANOTHER = """
import os, sys
import filelock
from pathlib import Path
from parallelhassnes.actions.stored import removing, retention
from parallelhassnes.schedule.context import open_context
ctx = open_context(Path(sys.argv[1]))
made = retention.plan(ctx)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    removing.carry_out(ctx, made)
except PermissionError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_removes_nothing(root):
    ctx, batch_id = store(root, ALL)
    there = {path: below(path) for path in attempt_dirs(ctx, batch_id)}
    done = python(AS_ANOTHER, str(root), check=False)
    assert "refused: " in done.stderr, done
    assert {path: below(path) for path in attempt_dirs(ctx, batch_id)} == there
    assert removals.of(ctx.layout.batch(batch_id)) == {}


@pytest.mark.harbor
def test_what_a_regrade_judges_is_kept_and_what_is_gone_is_not_judged(root):
    ctx = context(root, ALL)
    own = {
        "path": [str(make_task(root, solution="echo hi > /app/out"))],
        "agents": [{"name": "oracle"}],
        "environment": {"import_path": "temp_environment:TempEnvironment"},
        "keep_workspace": True,
    }
    (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    made = []
    for _ in range(2):
        program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=SUPPORT)
        made.append(ctx.layout.batch_ids()[-1])
    judged, whole = made
    tests = make_task(root / "new", "hello", test="echo 0 > /logs/verifier/reward.txt")
    program(root, "regrade", judged, "--verifier", str(tests), env=SUPPORT)
    program(root, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)
    before = {batch_id: numbers(ctx, batch_id) for batch_id in ctx.layout.batch_ids()}
    done = collect(ctx)
    regraded = ctx.layout.batch_ids()[-1]
    assert done.kept == [f"{judged}: 1 of its attempts are taken over or judged by {regraded}"]
    assert {batch_id: numbers(ctx, batch_id) for batch_id in before} == before
    assert verify(ctx.layout).ok  # verdicts are made again of what stays, and are the same
    refused = program(root, "regrade", whole, "--verifier", str(tests), env=SUPPORT, check=False)
    assert (refused.returncode, "by the rule all" in refused.stderr) == (2, True), refused.stderr
    refused = program(root, "export", whole, "--to", str(root / "view"), check=False)
    assert (refused.returncode, "by the rule all" in refused.stderr) == (2, True), refused.stderr


def test_lines_of_older_versions_come_to_the_same_outcomes(root):
    keep = '[[retention.rules]]\nname = "good"\noutcomes = ["passed"]\nkeep = true\n'
    ctx = context(root, f"durable = false\n{keep}{ALL}")
    own = {
        "path": [
            str(make_task(root, "good", solution="echo hi > /app/out", test="echo 1 > /logs/verifier/reward.txt")),
            str(make_task(root, "bad", test="echo 0 > /logs/verifier/reward.txt")),
        ],
        "agents": [{"name": "oracle"}],
        "environment": {"import_path": "temp_environment:TempEnvironment"},
    }
    (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=SUPPORT)
    (batch_id,) = ctx.layout.batch_ids()
    path = ctx.layout.batch(batch_id) / ledger.LEDGER
    now = set(retention.plan(ctx).goes[batch_id])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        for name in ("kind", "trial", "label", "task"):
            line.pop(name, None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(retention.plan(ctx).goes[batch_id]) == now
    assert [place.split("/")[0] for place in now if "/oracle.1/" in place] == ["bad"]
