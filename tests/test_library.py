"""The face for Python: what docs/python.md promises, with real trials, in processes of their own where that matters."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stores import CHECKOUT, environment, job, program, python, shell
from stores import table as table_bytes

import parallelhassnes as ph
from parallelhassnes import library

HELLO = str(CHECKOUT / "examples" / "tasks" / "hello")


def table(*jobs):
    """A launch table as a dict."""
    return json.loads(table_bytes(*jobs))


PAGE = CHECKOUT / "docs" / "python.md"
NOTEBOOK = CHECKOUT / "examples" / "results.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A store in which two agents have each tried a task twice."""
    store = ph.open_store(tmp_path_factory.mktemp("face"), create=True)
    batch = store.run([HELLO], agents=["oracle", "nop"], n=2, environment="sandbox", experiment="e")
    return store, batch


def test_a_run_waits_and_its_results_are_typed(ran):
    store, batch = ran
    board = batch.status()
    assert (board.counts.succeeded, board.counts.running) == (5, 0)
    found = batch.results(by=["agent"])
    rates = {line.key["agent"]: line.pass_rate for line in found.groups}
    assert rates == {"oracle": 1.0, "nop": 0.0}
    said = json.loads(program(store.root, "results", batch.id, "--by", "agent", "--json").stdout)
    ours = json.loads(json.dumps(found.to_dict()))
    assert {**said, "at": ""} == {**ours, "at": "", "of": said["of"]}


def test_frames_have_a_row_per_trial_attempt_and_group(ran):
    store, batch = ran
    trials = ph.trials_df(batch)
    assert len(trials) == 4
    assert trials.groupby("agent")["reward"].mean().to_dict() == {"nop": 0.0, "oracle": 1.0}
    attempts = ph.attempts_df(store)
    assert len(attempts[attempts.batch == batch.id]) == 5
    assert (attempts.ended_at > attempts.launched_at).all()
    groups = ph.results_df([batch], by=["agent", "task"])
    assert list(groups.columns[:2]) == ["agent", "task"]
    assert list(groups.passes) == [2, 0]


def test_frames_of_nothing_have_their_columns(tmp_path):
    store = ph.open_store(tmp_path, create=True)
    batch = store.submit(table(job("j", shell("s", "true")))).wait(60)
    assert ph.trials_df(batch).empty
    assert "reward" in ph.trials_df(batch).columns
    assert next(iter(ph.results_df(batch, by=["agent"]).columns)) == "agent"
    assert list(ph.attempts_df(batch).kind) == ["command"]


def test_nothing_to_retry_is_an_empty_result(ran):
    _, batch = ran
    done = batch.retry(only="failed", reason="again")
    assert (done.attempts, done.steps, done.started) == ([], [], 0)
    with pytest.raises(ph.UserError, match="did you mean infrastructure"):
        batch.retry(only="infrastructur")


def test_a_submitted_table_starts_with_a_tick_and_is_waited_for(tmp_path):
    store = ph.open_store(tmp_path, create=True)
    go = tmp_path / "go"
    batch = store.submit(table(job("j", shell("s", f"until test -e {go}; do sleep 0.02; done"))))
    assert batch.status().counts.ready == 1
    assert len(store.tick().launched) == 1
    with pytest.raises(TimeoutError, match=batch.id):
        batch.wait(timeout=0.2)
    go.touch()
    assert batch.wait(timeout=60) is batch
    assert batch.status().counts.succeeded == 1
    again = store.submit(table(job("j", shell("s", f"until test -e {go}; do sleep 0.02; done"))))
    assert again.id == batch.id


def test_cancel_ends_what_runs(tmp_path):
    store = ph.open_store(tmp_path, create=True)
    batch = store.submit(table(job("j", shell("s", "sleep 300"))))
    store.tick()
    batch.cancel("enough seen")
    batch.wait(60)
    assert batch.status().counts.canceled == 1


def test_errors_are_ours_and_say_what_to_do(ran, tmp_path):
    store, batch = ran
    with pytest.raises(ph.UserError, match="create=True"):
        ph.open_store(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ph.UnknownId):
        store.batch("nothing-like-it")
    with pytest.raises(ph.InvalidTable, match="jobs"):
        store.submit({"jobs": 3})
    with pytest.raises(ph.UserError, match="no option agent"):
        store.run([HELLO], agent="oracle")
    with pytest.raises(ph.UserError, match="did you mean"):
        ph.analyze(batch, engine="rule")
    with pytest.raises(ph.UserError, match="2 stores"):
        ph.compare(batch, ph.Batch(ph.Store(tmp_path), "x"))
    (tmp_path / "parallelhassnes.toml").write_text("concurrency = []\n")
    with pytest.raises(ph.UserError, match="concurrency"):
        ph.open_store(tmp_path, create=True)


def test_one_text_is_one_name_and_not_its_letters(ran, tmp_path):
    store = ph.open_store(tmp_path, create=True)
    with pytest.raises(ph.InvalidTable, match="path /no/such does not exist"):
        store.run("/no/such", agents="oracle")
    with pytest.raises(ph.InvalidTable, match="unknown agent 'orakel'"):
        store.run(Path(CHECKOUT / "examples" / "tasks" / "hello"), agents="orakel")
    made = library._request({"secrets": "MY_KEY", "task_names": ["a", "b"]}, models=())
    assert (made.secrets, made.task_names) == (("MY_KEY",), ("a", "b"))
    with pytest.raises(ph.UserError, match="limits is no mapping"):
        store.run("/no/such", limits=["k"])
    _, batch = ran
    assert batch.results(by="agent").groups == batch.results(by=["agent"]).groups


@pytest.mark.parametrize("odd", [{1}, float("nan"), Path("x")])
def test_a_table_that_is_no_json_is_an_invalid_table(tmp_path, odd):
    store = ph.open_store(tmp_path, create=True)
    with pytest.raises(ph.InvalidTable, match="is not JSON"):
        store.submit({"spec_version": "2.0", "jobs": [odd]})


def test_what_was_deleted_or_moved_away_is_told_and_not_taken_for_done(tmp_path):
    store = ph.open_store(tmp_path / "root", create=True)
    kept, gone = (store.submit(table(job("j", shell("s", f"echo {n}")))) for n in range(2))
    shutil.rmtree(store.root / "runs" / gone.id)
    calls = [gone.wait, gone.status, gone.results, gone.retry, gone.cancel, lambda: ph.trials_df([kept, gone])]
    for call in calls:
        with pytest.raises(ph.UnknownId, match=gone.id):
            call()
    (store.root / "runs").rename(store.root / "away")
    for call in (store.batches, kept.status, kept.wait, lambda: store.submit({})):
        with pytest.raises(ph.UserError, match="there is no store in"):
            call()
    assert not (store.root / "runs").exists()


def test_a_program_whose_folder_was_deleted_gets_a_line(tmp_path):
    store = ph.open_store(tmp_path / "root", create=True)
    here, gone = Path.cwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        for call in (ph.open_store, store.tick, lambda: store.run("x"), lambda: store.submit({})):
            with pytest.raises(ph.UserError, match="the current folder: No such file"):
                call()
    finally:
        os.chdir(here)


def test_attempts_comparisons_and_analyses(ran):
    store, batch = ran
    attempt = store.attempt("latest")
    assert attempt.report["status"] == attempt.state["status"] == "succeeded"
    assert (attempt.folder / "seal.json").is_file()
    assert [one.id for one in store.batches(experiment="e")] == [batch.id]
    other = store.run([HELLO], agents=["oracle"], environment="sandbox")
    assert ph.compare(batch, other).to_dict()["a"]
    assert ph.analyze(other).outcomes == {"rules": {"good_success": 1}}


def test_a_program_with_threads_may_end_at_any_time(tmp_path):
    """Attempts are no children of the caller: they outlive it, and no thread of it is forked."""
    script = """
import sys, threading, os
import parallelhassnes as ph
threading.Thread(target=threading.Event().wait, daemon=True).start()
store = ph.open_store(sys.argv[1], create=True)
batch = store.submit({"spec_version": "2.0", "jobs": [{"job_id": "j", "steps": [
    {"step_id": "s", "command": ["sh", "-c", "until test -e " + sys.argv[1] + "/go; do sleep 0.02; done"]}]}]})
store.tick()
print(batch.id, flush=True)
os._exit(9)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    assert (done.returncode, done.stderr) == (9, "")
    batch = ph.open_store(tmp_path).batch(done.stdout.strip())
    assert batch.status().counts.running == 1
    (tmp_path / "go").touch()
    assert batch.wait(60).status().counts.succeeded == 1


def test_two_threads_may_wait_for_two_batches(tmp_path):
    store = ph.open_store(tmp_path, create=True)
    batches = [store.submit(table(job(f"j{n}", shell("s", f"exit {n}")))) for n in range(2)]
    threads = [threading.Thread(target=batch.wait, args=(60,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b.status().counts.succeeded for b in batches] == [1, 0]


def test_the_caller_keeps_its_mask(tmp_path):
    before = os.umask(0o022)
    try:
        ph.open_store(tmp_path, create=True).batches()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_caller_keeps_its_mask_among_threads(tmp_path):
    """A program with two threads, a private store and one file after another of its own."""
    store = ph.open_store(tmp_path / "root", create=True)
    (store.root / "parallelhassnes.toml").write_text("private = true\n")
    code = f"""
import os, threading
import parallelhassnes as ph
os.umask(0o022)
store = ph.Store(__import__('pathlib').Path({str(store.root)!r}))
threads = [threading.Thread(target=lambda: [store.batches() for _ in range(150)]) for _ in range(4)]
for thread in threads: thread.start()
modes, number = set(), 0
while any(thread.is_alive() for thread in threads):
    number += 1
    handle = os.open({str(tmp_path)!r} + f'/f{{number}}', os.O_CREAT | os.O_WRONLY, 0o666)
    modes.add(os.fstat(handle).st_mode & 0o777)
    os.close(handle)
for thread in threads: thread.join()
print(oct(os.umask(0)), modes <= {{0o600, 0o644}})
"""
    done = python(code, check=False)
    assert done.stdout.split() == ["0o22", "True"], done.stderr


def test_importing_the_package_loads_nothing():
    code = "import sys, parallelhassnes; print(*sorted(name for name in sys.modules if 'parallelhassnes' in name))"
    done = python(code, check=False)
    assert done.stdout.split() == ["parallelhassnes", "parallelhassnes.version"]


def test_the_face_is_about_fifteen_names_each_described():
    assert 10 <= len(ph.__all__) <= 16
    assert [name for name in ph.__all__ if not name.endswith("_df")] == library.__all__
    for name in ph.__all__:
        assert getattr(ph, name).__doc__, name
        assert f"`{name}" in PAGE.read_text() or f"ph.{name}" in PAGE.read_text(), name
    assert (Path(ph.__file__).parent / "py.typed").is_file()


def test_what_the_page_shows_runs(tmp_path):
    """All blocks of docs/python.md in order, in one process, as somebody would paste them."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    _run("\n".join(blocks), tmp_path)


def test_the_notebook_runs(tmp_path):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    ast.parse(code)
    _run(code, tmp_path)
    assert all(not cell.get("outputs") for cell in cells), "commit it without outputs"


def _run(code: str, folder: Path) -> None:
    (folder / "tasks").symlink_to(CHECKOUT / "examples" / "tasks")
    python(code, cwd=folder, env={"MPLBACKEND": "agg", "HOME": str(folder)})


def test_a_frame_without_pandas_is_one_line(tmp_path):
    code = "import sys; sys.modules['pandas'] = None\nimport parallelhassnes as ph\nph.trials_df(ph.open_store(sys.argv[1], create=True))"
    done = python(code, str(tmp_path), check=False)
    assert "frames need pandas, which is not installed; pip install 'parallelhassnes[df]'" in done.stderr
