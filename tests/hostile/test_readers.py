"""Below an attempt only the careful readers open anything: no link is followed, no pipe waited for, no tree walked by recursion."""

import ast
import os
import threading
from pathlib import Path

import pytest

import parallelhassnes
from parallelhassnes import walk
from parallelhassnes.attempt_data import follow_logs, safe_open, trajectory, zip_stream
from parallelhassnes.errors import UnknownId
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial import result

PACKAGE = Path(parallelhassnes.__file__).parent
METHODS = {"read_text", "read_bytes", "rglob", "open"}
FUNCTIONS = {
    "open",
    "FileIO",
    "io.open",
    "io.FileIO",
    "os.open",
    "os.walk",
    "os.fwalk",
    "shutil.rmtree",
    "shutil.copytree",
    "shutil.copyfile",
    "shutil.copy",
    "shutil.copy2",
    "shutil.move",
}
CAREFUL = {
    "AttemptFile",
    "atomic",
    "safe_read",
    "walk",
    "one",
    "entry",
    "self",
    "os.fdopen",
    "made",
    "opened",
    "zipfile",
    "tarfile",
    "webbrowser",
}
"""What these have an ``open`` or ``read_bytes`` of is careful itself, or no file of an attempt."""
ALLOWED = {
    "config.py": "the user's own settings",
    "env_file.py": "the user's own keys",
    "prices.py": "a file of a package",
    "api/http/file_responses.py": "what open_below opened",
    "api/http/openapi.py": "files of the package",
    "api/http/peers.py": "/proc",
    "cli": "files that the user names",
    "admin/audit/verify.py": "records of a batch, above its attempts",
    "admin/audit/audit_batch.py": "records of a batch, above its attempts",
    "admin/audit/audit_checkpoints.py": "checkpoints",
    "admin/audit/audit_ledger.py": "ledgers",
    "refs.py": "ledgers",
    "execute/set_apart.py": "folders of the copy that it makes, by descriptors, following no link",
    "admin/harbor_view.py": "sealed files, linked where they are regular",
    "admin/init.py": "files that init makes",
    "admin/notifications.py": "its own log",
    "actions/archive/send_beside.py": "its own log",
    "store/archives/object_store.py": "a folder that people keep archives in; what is read is believed by its hash alone",
    "compat/oddish_uploads.py": "archives that it has taken in itself, and a fresh folder",
    "views/history.py": "ledgers",
    "views/endpoints.py": "a batch's table",
    "attempt_data/follow_logs.py": "what open_below opened",
    "actions/preflight.py": "the user's tasks",
    "admin/audit/prove.py": "ledgers, checkpoints and the package's own script",
    "report": "records of a batch, above its attempts",
    "actions/stored/rerun.py": "a batch's table",
    "views/system_scoreboard.py": "a snapshot of the system",
    "actions/submit.py": "the user's table",
    "actions/imports/stage_attempt.py": "files that it makes itself, in a fresh folder",
    "actions/unpack_archive.py": "what it makes itself, by descriptors",
    "actions/uploads.py": "uploads before they are tasks",
    "admin/audit/verify_claim.py": "the one file that its user names",
    "attempt_data/zip_stream.py": "what open_below opened",
    "execute/clean.py": "by descriptors of its walk",
    "execute/finish.py": "/dev/null",
    "execute/launcher.py": "/dev/null",
    "execute/logs.py": "a log of the system, never through a link",
    "execute/own_files.py": "by descriptors of its walk",
    "execute/processes.py": "/proc",
    "execute/supervisor.py": "/proc, and the worker's own logs before it works",
    "schedule": "tables, tickets, locks and logs of the system",
    "steps/agent/ask.py": "logs that it appends to",
    "steps/agent/prompt.py": "the user's prompt",
    "steps/agent/work.py": "files of the package, and what is_inside the workspace",
    "steps/agent/reports.py": "the schemas of the package",
    "steps/agent/resume.py": "sessions of a sealed attempt, which walk.files named",
    "steps/agent/worktree.py": "the user's repository",
    "steps/analysis/engine_harbor.py": "files of Harbor's package",
    "steps/analysis/taxonomy_tables.py": "files of the package",
    "steps/final_report.py": "files of the package",
    "sandbox": "in the worker's own process",
    "steps/trial/image.py": "the task's files",
    "steps/trial/tampering.py": "the task's tests",
    "steps/trial/warm_up.py": "pipes of a trial in which nothing runs",
    "steps/trial/workspace.py": "blobs that it makes itself, new and by no name of an agent",
    "walk.py": "its own descriptors",
    "packed.py": "a batch's archive and its index, which the store made",
    "store": "records of the store; its attempts' by atomic, walk and seal",
    "tables": "the user's tables and tasks",
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def is_careless(node: ast.Call) -> bool:
    name = called(node)
    if name in FUNCTIONS:
        return True
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
        return False
    return ast.unparse(node.func.value).split("(")[0] not in CAREFUL


def careless() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and is_careless(node):
                found.setdefault(relative, []).append(f"{relative}:{node.lineno} {called(node)}")
    return found


def test_nothing_opens_files_by_itself_without_a_reason():
    left = {
        path: lines
        for path, lines in careless().items()
        if not any(path == allowed or path.startswith(f"{allowed}/") for allowed in ALLOWED)
    }
    assert left == {}, "open it with safe_read, walk or open_below, or say here why it is safe"


def test_every_reason_is_still_needed():
    found = careless()
    stale = [a for a in ALLOWED if not any(p == a or p.startswith(f"{a}/") for p in found)]
    assert stale == []


@pytest.fixture
def hostile(tmp_path):
    """An attempt whose files have all become pipes or lead elsewhere by links."""
    attempt = tmp_path / "attempts" / "20260101T000000Z_abc"
    (attempt / "trial" / "agent").mkdir(parents=True)
    (attempt / "trial" / "verifier").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("ctrf.json", "trajectory.json", "x.log"):
        (outside / name).write_text('{"results":{"summary":{"passed":1,"tests":1}},"steps":[]}')
        os.mkfifo(attempt / "trial" / "verifier" / name)
    (attempt / "trial" / "agent" / "linked").symlink_to(outside)
    (attempt / "stdout.log").symlink_to(outside / "x.log")
    return attempt


def in_time(call, *args):
    """What a call returns, which must not take long; nor may a thread of it stay behind."""
    got = []
    thread = threading.Thread(target=lambda: got.append(call(*args)), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits"
    return got[0]


def test_no_reader_waits_for_a_pipe_or_follows_a_link(hostile):
    trial = hostile / "trial"
    assert in_time(result.test_counts, trial) is None
    assert in_time(trajectory.read_trajectory, trial / "verifier" / "trajectory.json") is None
    assert in_time(trajectory.read_trajectory, trial / "agent" / "linked" / "trajectory.json") is None
    assert in_time(safe_read.read_bytes, trial / "agent" / "linked" / "x.log", 100) is None
    assert in_time(safe_read.read_bytes, hostile / "stdout.log", 100) is None
    assert walk.files(hostile) == []
    assert walk.files(hostile, "trial/agent/linked") == []
    assert b"passed" not in b"".join(in_time(lambda: [*zip_stream.zip_pieces(hostile, "x")]))
    assert in_time(follow_logs.Logs(None, hostile, None).files) == []
    for name in ("stdout.log", "trial/agent/linked/x.log", "trial/verifier/x.log", "../x", ""):
        with pytest.raises(UnknownId):
            safe_open.open_below(hostile, name)
