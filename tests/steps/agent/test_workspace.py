"""Where agents work: git worktrees of their own, or one at a time in a shared folder."""

import dataclasses
import json
import os
import signal
import subprocess

import pytest
from harness import finish, fork_worker, kill_group, make_attempt, run, until, wait

from parallelhassnes.steps import registry
from parallelhassnes.steps.agent import worktree
from parallelhassnes.steps.step_types import WorkerEnd
from parallelhassnes.store import locks
from parallelhassnes.store.evidence.seal import seal

REPORT = {"status": "succeeded", "summary": "s", "files_read": [], "files_written": [], "artifacts": []}


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit: ``sub/file.txt`` and ``bytes``."""
    top = tmp_path / "repository"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "file.txt").write_text("one\n")
    (top / "bytes").write_bytes(bytes(range(256)))
    (top / ".gitignore").write_text("ignored\n")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "first")
    return top


@pytest.fixture
def attempt_of(tmp_path):
    """Makes an attempt whose agent is a shell script that then reports."""

    def made(script, *, status="succeeded", step_id="s1", **spec):
        document = json.dumps({**REPORT, "status": status})
        plan = {
            "agent": "mine",
            "prompt": "x",
            **spec,
            "command": ["sh", "-c", f"{script}\ncat > {{output_file}} <<'E'\n{document}\nE"],
        }
        return make_attempt(tmp_path / "root" / "runs", "agent", plan, step_id=step_id)

    return made


def _isolated(folder, **policy):
    return {"working_directory": str(folder), "workspace_policy": {"mode": "isolated", **policy}}


def _unchanged(repository):
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "log", "--oneline").count("\n") == 1
    assert git(repository, "worktree", "list").count("\n") == 1
    git(repository, "fsck", "--strict", "--no-dangling")


def test_what_an_isolated_agent_changed_is_a_patch_and_nothing_else(attempt_of, repository):
    objects = git(repository, "count-objects", "-v")
    script = "pwd; echo two >> file.txt; echo new > added; rm ../bytes; echo x > ../ignored; printf 'a\\0b' > binary"
    attempt = attempt_of(script, **_isolated(repository / "sub"))
    _, outcome, final = run(attempt)
    assert outcome.status == "succeeded"
    place = final["agent"]["workspace"]
    assert place["directory"].endswith(f"/worktrees/batch/{attempt.run_id}/sub")
    assert place["kept"] is False
    assert not os.path.exists(place["worktree"])
    assert place["touched"] == ["bytes", "sub/added", "sub/binary", "sub/file.txt"]
    assert place["base"] == place["head"] == git(repository, "rev-parse", "HEAD").strip()
    folder = attempt.dir / "agent"
    assert json.loads((folder / "touched_files.json").read_text()) == place["touched"]
    assert (folder / "git_head.txt").read_text().strip() == place["head"]
    assert "?? sub/added" in (folder / "git_status.txt").read_text()
    _unchanged(repository)
    assert git(repository, "count-objects", "-v") == objects
    git(repository, "apply", "--check", str(attempt.dir / place["patch"]))
    git(repository, "apply", str(attempt.dir / place["patch"]))
    assert (repository / "sub" / "file.txt").read_text() == "one\ntwo\n"
    assert (repository / "sub" / "binary").read_bytes() == b"a\0b"
    assert not (repository / "bytes").exists()


def test_links_in_place_of_what_is_captured_lead_nowhere(repository, tmp_path):
    into, theirs = tmp_path / "into", tmp_path / "theirs"
    into.mkdir()
    theirs.write_text("dear\n")
    names = (worktree.PATCH, worktree.HEAD, worktree.STATUS, worktree.TOUCHED)
    for name in names:
        (into / name).symlink_to(theirs)
    (repository / "new.txt").write_text("new\n")
    _, touched = worktree.capture(repository, "HEAD", into)
    assert (touched, theirs.read_text()) == (["new.txt"], "dear\n")
    assert not any((into / name).is_symlink() for name in names)
    assert "+new" in (into / worktree.PATCH).read_text()


def test_an_agents_own_commits_are_in_the_patch(attempt_of, repository):
    commit = "git -c user.name=a -c user.email=a@a commit -q -a -m own"
    attempt = attempt_of(f"echo two >> sub/file.txt; {commit}", **_isolated(repository))
    _, _, final = run(attempt)
    place = final["agent"]["workspace"]
    assert place["head"] != place["base"]
    assert place["touched"] == ["sub/file.txt"]
    _unchanged(repository)


@pytest.mark.parametrize(
    ("keep", "status", "kept"),
    [
        ("on_failure", "failed", True),
        ("on_failure", "succeeded", False),
        ("always", "succeeded", True),
        ("never", "failed", False),
    ],
)
def test_when_a_worktree_stays(attempt_of, repository, keep, status, kept):
    attempt = attempt_of("echo two > two", status=status, **_isolated(repository, keep=keep))
    _, _, final = run(attempt)
    place = final["agent"]["workspace"]
    assert place["kept"] is kept
    assert os.path.exists(place["worktree"]) is kept
    assert git(repository, "worktree", "list").count("\n") == 1 + kept
    assert place["touched"] == ["two"]


def test_going_on_in_an_isolated_workspace_begins_with_the_changes(attempt_of, repository):
    first = attempt_of("echo two >> sub/file.txt; echo n > new", **_isolated(repository))
    run(first)
    final = json.loads((first.dir / "final.json").read_text())
    final["agent"]["thread_id"] = "t"  # a program has no conversation; the workspace is what is looked at
    (first.dir / "final.json").write_text(json.dumps(final))
    session = first.dir / "agent" / "home" / "sessions" / "x-t.jsonl"
    session.parent.mkdir(parents=True)
    session.write_text("")
    seal(first.dir, {})
    liar = (
        '#!/bin/sh\nif [ "$1" = --version ]; then echo codex 1.2; exit; fi\ncat >/dev/null; cat sub/file.txt new >&2\n'
        'echo \'{"type":"thread.started","thread_id":"t"}\'\necho \'{"type":"turn.completed","usage":{}}\'\n'
    )
    program = repository.parent / "codex"
    program.write_text(liar)
    program.chmod(0o755)
    spec = {"agent": "codex", "program": str(program), "prompt": "x", "resume_from": {"step_id": "s1"}}
    second = make_attempt(repository.parent / "root" / "runs", "agent", spec | _isolated(repository), step_id="s2")
    _, _, final = run(second)
    assert (second.dir / "agent" / "agent.stderr.log").read_text() == "one\ntwo\nn\n"
    assert final["agent"]["workspace"]["touched"] == ["new", "sub/file.txt"]


def test_the_steps_of_a_job_see_what_those_before_them_changed(attempt_of, repository):
    def step(step_id, script, *depends_on):
        attempt = attempt_of(script, step_id=step_id, **_isolated(repository))
        own = attempt.step.model_copy(update={"depends_on": tuple(f"job/{ref}" for ref in depends_on)})
        attempt = dataclasses.replace(attempt, step=own)
        _, outcome, final = run(attempt)
        seal(attempt.dir, {})
        assert outcome.status == "succeeded"
        return final["agent"]["workspace"]["touched"]

    assert step("s1", "echo two >> sub/file.txt") == ["sub/file.txt"]
    assert step("s2", "test $(wc -l < sub/file.txt) = 2 && echo 3 > three", "s1") == ["sub/file.txt", "three"]
    assert step("s3", "test -f three && rm sub/file.txt", "s1", "s2") == ["sub/file.txt", "three"]
    assert step("s4", "test ! -f three", "s0") == []
    _unchanged(repository)


def test_changes_that_cannot_be_captured_are_not_thrown_away(attempt_of, repository):
    attempt = attempt_of("echo two > two; rm .git", **_isolated(repository, keep="never"))
    _, outcome, final = run(attempt)
    place = final["agent"]["workspace"]
    assert (outcome.status, outcome.failure.failure_class) == ("failed", "infrastructure")
    assert outcome.failure.line.startswith("what it changed could not be captured: git rev-parse")
    assert (place["kept"], os.path.exists(f"{place['worktree']}/two")) == (True, True)


def test_a_bad_base_is_one_line(attempt_of, repository):
    _, outcome, _ = run(attempt_of("true", **_isolated(repository, base="--nonsense")))
    assert outcome.failure.failure_class == "task_definition"
    assert outcome.failure.line == f"{repository} has no commit '--nonsense'; correct workspace_policy.base"


@pytest.fixture
def impatient(monkeypatch):
    """Who may wait for a lock only so long as for the store's own does not wait at all."""
    monkeypatch.setattr(locks, "PATIENCE_SEC", 0.0)


@pytest.mark.usefixtures("impatient")
def test_eight_at_once_in_one_repository(attempt_of, repository):
    attempts = [attempt_of(f"echo {n} >> sub/file.txt", step_id=f"s{n}", **_isolated(repository)) for n in range(8)]
    pids = [fork_worker(attempt) for attempt in attempts]
    for n, (attempt, pid) in enumerate(zip(attempts, pids, strict=True)):
        outcome, _ = finish(attempt, WorkerEnd(wait(pid), "exited"))
        assert outcome.status == "succeeded"
        assert f"+{n}\n" in (attempt.dir / "agent" / "git_diff.patch").read_text()
    _unchanged(repository)


@pytest.mark.parametrize("keep", ["never", "on_failure"])
def test_a_killed_workers_changes_are_saved_by_whoever_ends_it(attempt_of, repository, keep):
    attempt = attempt_of("echo two > two; exec sleep 60", **_isolated(repository, keep=keep))
    pid = fork_worker(attempt)
    worktree = repository.parent / "root" / "worktrees" / "batch" / attempt.run_id
    until((worktree / "two").exists)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    (child,) = [int(n) for n in os.listdir("/proc") if n.isdigit() and _works_in(n, worktree)]
    os.kill(child, signal.SIGKILL)
    kind = registry.kind("agent")
    removed = kind.sweep(attempt)
    assert removed == ([f"worktree {worktree}"] if keep == "never" else [])
    assert kind.sweep(attempt) == []
    outcome, final = finish(attempt, WorkerEnd(None, "lost"))
    assert outcome.status == "lost"
    assert final["agent"]["workspace"]["touched"] == ["two"]
    assert worktree.exists() is (keep == "on_failure")


def _works_in(pid, folder):
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_a_worktree_that_is_killed_half_made_is_removed(attempt_of, repository, moment):
    """At any moment: the repository keeps no record of it, and the next one can be made."""
    import time

    attempt = attempt_of("true", **_isolated(repository, keep="never"))
    pid = fork_worker(attempt)
    run_file = attempt.dir / "agent" / "run.json"
    until(lambda: run_file.exists() and '"workspace":' in run_file.read_text())
    time.sleep(moment)
    kill_group(pid)
    registry.kind("agent").sweep(attempt)
    assert git(repository, "worktree", "list").count("\n") == 1
    assert not list((repository / ".git" / "worktrees").glob("*"))
    _, outcome, _ = run(attempt_of("true", step_id="s2", **_isolated(repository)))
    assert outcome.status == "succeeded"


@pytest.mark.usefixtures("impatient")
def test_one_at_a_time_in_a_shared_folder(attempt_of, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    script = "mkdir busy && sleep 0.2 && rmdir busy || exit 1"
    attempts = [
        attempt_of(script, step_id=f"s{n}", working_directory=str(place), workspace_policy={"exclusive": True})
        for n in range(3)
    ]
    pids = [fork_worker(attempt) for attempt in attempts]
    ends = [finish(each, WorkerEnd(wait(pid), "exited")) for each, pid in zip(attempts, pids, strict=True)]
    assert [outcome.status for outcome, _ in ends] == ["succeeded"] * 3


def test_a_record_that_has_only_its_name_yet_is_removed(repository, tmp_path):
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "mine"))
    record = repository / ".git" / "worktrees" / "early"
    record.mkdir()
    (record / "locked").write_text("initializing\n")
    assert worktree.remove(repository, tmp_path / "nowhere" / "early")
    assert [path.name for path in record.parent.iterdir()] == ["mine"]
    assert not worktree.remove(repository, tmp_path / "nowhere" / "early")
