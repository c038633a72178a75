"""A tick of a store at rest does without what a tick is made of, and is a whole one as soon as there is anything to do or to tell."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import command, context, environment, idle, job, program, put, read, table, wait_for

from parallelhassnes.execute.processes import OURSELVES
from parallelhassnes.schedule import at_rest
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout

NOTHING = "0 tables accepted, 0 attempts started, 0 running\n"
RESTING = 'private = true\n[limits]\n"openai/other" = 3\n'
"""A configuration with settings of its own; ``context`` adds some."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store in which a batch has ended, and whose last whole tick had nothing to do."""
    ctx = context(tmp_path_factory.mktemp("made"), RESTING)
    put(ctx, table(job("j", command("s", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx) and not ctx.layout.checkpoint_wanted.exists(), "the batch")
    wait_for(lambda: rests(ctx.layout), "a whole tick to find nothing")
    return ctx.layout


@pytest.fixture
def store(made, tmp_path):
    """A copy of it, as a whole tick would note it."""
    shutil.copytree(made.root, tmp_path / "root", symlinks=True)
    ctx = open_context(tmp_path / "root")
    atomic.write_json(ctx.layout.at_rest, at_rest.found(ctx.layout))
    return ctx


def rests(layout: Layout) -> bool:
    """Whether a tick by the program leaves a note that serves the next."""
    done = program(layout.root, "tick")
    assert done.returncode == 0, done.stderr
    return quick(layout)


def quick(layout: Layout, *, quiet: bool = True) -> bool:
    return at_rest.tick(layout.root, quiet=quiet)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def configured(layout: Layout, **values) -> None:
    """As a host that has become short: what the configuration in force asks for, under the stamp that is known."""
    document = read(layout.configured)
    document["config"] |= values
    atomic.write_json(layout.configured, document)
    atomic.write_json(layout.at_rest, at_rest.found(layout))


DISTURBED = {
    "a table": lambda s: write(s.incoming / "t.json", "{"),
    "a table that is still written": lambda s: write(s.incoming / ".t.json"),
    "a companion of nothing": lambda s: write(s.incoming / "t.json.submit"),
    "a ready ticket": lambda s: write(s.ready / "k" / "b" / "00000" / "t"),
    "a turn": lambda s: write(s.turns / "k" / "new" / "b"),
    "a running ticket": lambda s: write(s.running / "k" / "t"),
    "an ended ticket": lambda s: write(s.ended / "t"),
    "a delayed ticket": lambda s: write(s.delayed / "t"),
    "steps that were added": lambda s: write(s.added / "b"),
    "a batch that is kept": lambda s: write(s.blocked / "b.json", "{}"),
    "what a dead writer left": lambda s: write(s.temp / "h.1.2.3"),
    "a wish for a pass": lambda s: write(s.pass_wanted),
    "a wish for a checkpoint": lambda s: write(s.checkpoint_wanted),
    "passes that fail": lambda s: write(s.failing, "{}"),
    "a day without a look for a checkpoint": lambda s: age(s.checkpoint_lock, 90_000),
    "a clock that was ahead": lambda s: age(s.checkpoint_lock, -90_000),
    "an image that may go": lambda s: write(s.images / "h.json", "{}"),
    "something that nobody was told of": lambda s: write(s.notices / "new" / "key_paused.x.json", "{}"),
    "a queue key of which something is known": lambda s: write(s.limits / "k.json", "{}"),
    "a start rate that is waited for": lambda s: write(s.starts / "docker.json", "{}"),
    "an edit of the configuration": lambda s: write(s.root / "parallelhassnes.toml", RESTING),
    "a configuration that is taken away": lambda s: (s.root / "parallelhassnes.toml").unlink(),
    "a configuration in force that is gone": lambda s: s.configured.unlink(),
    "a store without its name": lambda s: (s.system / "store_id").unlink(),
    "a queue folder that is gone": lambda s: s.accepted.rmdir() if not os.listdir(s.accepted) else s.ended.rmdir(),
    "a queue folder that is a file": lambda s: (s.ended.rmdir(), write(s.ended)),
    "no lock of passes": lambda s: s.tick_lock.unlink(),
    "a store that others may look into": lambda s: s.runs.chmod(0o755),
    "another start of the host": lambda s: write(s.runners / "local" / "boot_id", "another\n"),
    "a runner that is new": lambda s: write(s.runners / "other" / "boot_id", "another\n"),
    "several hosts": lambda s: write(s.hosts / "shared"),
    "trouble that was told": lambda s: write(s.told, '{"lines":["x"]}'),
    "too little disk": lambda s: configured(s, min_free_disk_mb=1 << 40),
    "too few files": lambda s: configured(s, min_free_files=1 << 60),
    "too little memory": lambda s: configured(s, min_free_memory_mb=1 << 40),
    "no note": lambda s: s.at_rest.unlink(),
    "a note of another version": lambda s: write(s.at_rest, json.dumps(read(s.at_rest) | {"harness_version": "1.0"})),
    "a note of another host": lambda s: write(s.at_rest, json.dumps(read(s.at_rest) | {"host": ["other", ""]})),
    "a note that is torn": lambda s: write(s.at_rest, s.at_rest.read_text()[:40]),
    "no store": lambda s: s.runs.rename(s.root / "moved"),
}


@pytest.mark.parametrize("what", DISTURBED)
def test_a_whole_tick_looks_at(store, what):
    assert quick(store.layout)
    DISTURBED[what](store.layout)
    assert not quick(store.layout), what


def test_a_pass_of_somebody_else_is_waited_for_by_nobody(store):
    with store.layout.tick_lock.open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not quick(store.layout)
    assert quick(store.layout)


def test_it_says_that_passes_are_made_and_that_the_runner_is_well(store):
    health = store.layout.runners / "local" / "health.json"
    before = read(health)
    for path in (health, store.layout.tick_lock):
        age(path, 3600)
    assert quick(store.layout)
    assert time.time() - store.layout.tick_lock.stat().st_mtime < 60
    after = read(health)
    assert after["at"] > before["at"]
    assert after.keys() == before.keys()
    same = ("schema_version", "capacity", "host", "harness_version")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert after["live"] == 0
    assert health.stat().st_mode & 0o777 == 0o600
    assert not os.listdir(store.layout.temp)


def test_trouble_that_is_over_is_no_trouble_to_whoever_does_not_ask_for_it_once(store):
    write(store.layout.told, '{"lines":["x"]}')
    assert quick(store.layout, quiet=False)
    write(store.layout.told, '{"lines":[]}')
    assert quick(store.layout)


def test_what_changes_while_a_whole_tick_looks_is_not_noted(store):
    store.layout.at_rest.unlink()
    before = at_rest.found(store.layout)
    write(store.layout.root / "parallelhassnes.toml", RESTING)
    at_rest.note(store.layout, before)
    assert not store.layout.at_rest.exists()


@pytest.mark.parametrize(
    "arguments", [["tick"], ["tick", "--quiet"], ["tick", "-q"], ["tick", "--json"], ["tick", "-j", "4"]], ids=" ".join
)
def test_it_answers_as_a_whole_tick_does(store, arguments):
    short = program(store.layout.root, *arguments)
    store.layout.at_rest.unlink()
    whole = program(store.layout.root, *arguments)
    assert (short.returncode, short.stdout, short.stderr) == (whole.returncode, whole.stdout, whole.stderr)


def test_a_batch_is_run_after_a_rest_and_the_store_rests_again(store):
    batch = put(store, table(job("again", command("s", "true"))))
    assert "1 attempt started, 1 running" in program(store.layout.root, "tick").stdout
    wait_for(lambda: idle(store) and not store.layout.checkpoint_wanted.exists(), "the batch")
    assert read(store.layout.job(batch, "again") / "current.json")["steps"]["s"]["status"] == "succeeded"
    wait_for(lambda: rests(store.layout), "a whole tick to find nothing")


LOOKED_AT = """
import atexit, os, sys
looked = set()
def note(path):
    if isinstance(path, (str, bytes, os.PathLike)):
        looked.add(os.path.abspath(os.fsdecode(path)))
def noting(function):
    def call(path, *said, **named):
        note(path)
        return function(path, *said, **named)
    return call
for name in ("stat", "lstat", "listdir", "scandir", "open", "unlink", "rename", "replace", "access"):
    setattr(os, name, noting(getattr(os, name)))
sys.addaudithook(lambda event, said: note(said[0]) if event in ("open", "os.listdir", "os.scandir") else None)
from parallelhassnes.__main__ import main
atexit.register(lambda: print(*sorted(looked), sep="\\n", file=sys.stderr))
main()
"""


def looked_at(root: Path) -> set[str]:
    """What of the store a tick looks at, relative to the root."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOKED_AT, "tick", "--root", str(root)],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.stdout == NOTHING, done.stderr
    found = (os.path.relpath(line, root) for line in done.stderr.splitlines() if line.startswith(f"{root}/"))
    return {path for path in found if not path.startswith("runs/_system/tmp/")}


OF_NO_CONCERN = {
    "runners/local/drain": "says whether anything may start, where something is ready",
    "runs/_system/budgets.json": "says what steps that are ready may spend",
    "runs/_system/waker.lock": "is held where something is waited for",
    "runners/.hosts/shared": "lies in a folder that is looked at",
    "runners/.hosts/probe": "the same",
    "runs/_queue/delayed/batches": "lies in a folder that is looked at, and goes with the last of what waits",
    "runs/_queue/delayed/due": "the same",
    "runs/_system/checkpoints": "is listed when one is due, which the time of checkpoint.lock says",
}
"""What a whole tick looks at besides, and why that decides nothing while the queue is empty."""


def test_it_looks_at_whatever_a_whole_tick_looks_at(store):
    short = looked_at(store.layout.root)
    store.layout.at_rest.unlink()
    whole = looked_at(store.layout.root)
    assert "runs/_queue/incoming" in short & whole
    assert whole - short - OF_NO_CONCERN.keys() == set()


def test_it_imports_no_library_but_pythons_own(store):
    done = subprocess.run(
        [*OURSELVES[:-1], "-X", "importtime", "-m", "parallelhassnes", "tick", "--root", str(store.layout.root)],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.stdout == NOTHING
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    known = sys.stdlib_module_names | {"parallelhassnes", "imported package", "sitecustomize"}
    assert {top for name in names if not (top := name.partition(".")[0]).startswith("_")} <= known
    ours = [name for name in names if name.startswith("parallelhassnes")]
    assert len(ours) < 24, ours
    assert len(names) < 130
