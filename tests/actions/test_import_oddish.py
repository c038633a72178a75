"""``import`` of what ``oddish pull`` has written: real exports, of the real program."""

import json
import shutil

import harbor_jobs
import pytest
from harness import make_task
from oddish_clients import OddishClient
from stores import SUPPORT, context, idle, program, read, wait_for

from parallelhassnes.actions.imports import sources
from parallelhassnes.actions.imports.import_jobs import import_jobs
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.store import batches

TIMED = "[environment]\nbuild_timeout_sec = 60.0\n"
TEMP = 'environment = "temp_environment:TempEnvironment"\n'


def rewards(export):
    """What Harbor's results in an export say."""
    documents = [read(path) for path in export.glob("trials/*/result.json")]
    return sorted(each["verifier_result"]["rewards"]["reward"] for each in documents if each["verifier_result"])


def rewards_of(ctx, batch_id):
    return sorted(r.facts.reward for r in rows(ctx, batch_id) if r.facts.reward is not None)


def rows(ctx, batch_id):
    return collect.read(ctx.layout, collect.choose(ctx.layout, batch_id))


def clean_audit(ctx):
    wait_for(lambda: idle(ctx), "the verdicts")
    assert verify.verify(ctx.layout).problems == []


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    """Exports of the real program: ``early`` of an experiment with a trial that still runs, ``one`` of one of its trials
    alone, ``late`` of the experiment when it has ended and grown, ``bare`` of it without files; and its tasks.
    """
    folder = tmp_path_factory.mktemp("oddish")
    (folder / "there").mkdir()
    there = context(folder / "there", TEMP)
    oddish = OddishClient("oddish-0.1.10", folder)
    make_task(folder / "set", "hello", toml=TIMED)
    make_task(folder / "set", "world", solution="exit 0", toml=TIMED)
    slow = make_task(folder / "set", "slow", solution="sleep 900", toml=TIMED)
    (slow / "task.toml").write_text(
        (slow / "task.toml").read_text().replace("timeout_sec = 30.0", "timeout_sec = 900.0")
    )
    named = ("--experiment", "nightly")
    with oddish.served(there.layout.root) as server:

        def run(*options: str) -> str:
            said = oddish("run", *options, "--background", "--json")
            return json.loads(said)["tasks"][0]["id"]

        def status(task_id: str) -> str:
            return server.client.get(f"/tasks/{task_id}").json()["status"]

        hello, world = (run(f"set/{task}", "-a", "oracle", "--n-trials", "2", *named) for task in ("hello", "world"))
        waits = run(str(slow), "-a", "oracle", *named)
        wait_for(lambda: [status(each) for each in (hello, world, waits)] == ["completed"] * 2 + ["running"], "trials")
        oddish("pull", "nightly", "--include-task-files", "--structured", "--out", "early")
        oddish("pull", f"{hello}-1", "--out", "one")
        shutil.copytree(folder / "early", folder / "late")
        server.client.post("/tasks/cancel", json={"task_ids": [waits]})
        for experiment in ("nightly", "another"):
            run("--task", hello, "-a", "nop", "--experiment", experiment)
        wait_for(lambda: idle(there), "the end")
        oddish("pull", "nightly", "--include-task-files", "--structured", "--out", "late")
        oddish("pull", "nightly", "--no-files", "--out", "bare")
        oddish("pull", hello, "--out", "of-task")
    return folder


@pytest.fixture
def exports(pulled, tmp_path):
    """A copy of them that a test may change."""
    shutil.copytree(pulled, tmp_path / "exports", symlinks=True, ignore=shutil.ignore_patterns("there", ".oddish"))
    return tmp_path / "exports"


pytestmark = [pytest.mark.oddish, pytest.mark.timeout(400)]


def test_an_export_is_a_batch_and_grows(root, exports):
    ctx = context(root)
    done = import_jobs(ctx, [exports / "early"])
    assert done.problems == []
    (one,) = done.jobs
    assert (one.job_name, one.trials, one.unfinished, one.known, one.not_run, one.notes) == ("nightly", 5, 1, 0, 0, [])
    clean_audit(ctx)
    found = rows(ctx, one.batch_id)
    assert sorted((r.task, r.agent, r.facts.reward) for r in found if r.facts.reward is not None) == [
        *[("hello", "oracle", 1.0)] * 2,
        *[("world", "oracle", 0.0)] * 2,
    ]
    (lost,) = [r for r in found if r.facts.reward is None]
    assert (lost.task, lost.facts.result, "started_at" in read(root / lost.attempt / "state.json")) == (
        "slow",
        "infrastructure",
        False,
    )
    for row in found:
        seal = read(root / row.attempt / "seal.json")["imported"]
        assert (seal["source"], seal["job_id"]) == ("oddish", "oddish-nightly")
    assert import_jobs(ctx, [exports / "early"]).jobs[0].trials == 0
    (two,) = import_jobs(ctx, [exports / "late"]).jobs  # nop was added, and the slow one was canceled
    assert (two.batch_id, two.trials, two.unfinished, two.known) == (one.batch_id, 2, 0, 4)
    assert len(two.more_batches) == 1
    (three,) = import_jobs(ctx, [exports / "late"]).jobs
    assert (three.trials, three.known, three.more_batches) == (0, 6, two.more_batches)
    clean_audit(ctx)
    assert len(rows(ctx, one.batch_id)) == 5
    assert [(r.task, r.agent, r.facts.reward) for r in rows(ctx, two.more_batches[0])] == [("hello", "nop", 0.0)]


def test_what_looks_at_batches_looks_at_an_export(root, exports):
    ctx = context(root)
    said = json.loads(program(root, "import", str(exports / "late"), "--json").stdout)
    (one,) = said["jobs"]
    clean_audit(ctx)
    run = ["run", "-p", str(exports / "set" / "hello"), "-p", str(exports / "set" / "world"), "-a", "oracle", "-k", "2"]
    done = program(root, *run, "-e", harbor_jobs.ENVIRONMENT, "--json", "--fail-on", "never", env=SUPPORT)
    new = json.loads(done.stdout.splitlines()[-1])["batch_id"]
    compared = json.loads(program(root, "compare", one["batch_id"], new, "--json").stdout)
    pair = next(each for each in compared["agents"] if each["a"] == each["b"] == "oracle")
    assert len(pair["tasks"]) == 2
    assert [each["what"] for each in pair["unequal"]] == []
    for command in (["results"], ["errors"], ["report", "-o", str(root / "report.html")], ["show"]):
        program(root, command[0], one["batch_id"], *command[1:])
    program(root, "export", one["batch_id"], "--to", str(root / "out"), env=SUPPORT)
    assert sum(read(path)["n_total_trials"] for path in root.glob("out/*/result.json")) == 6
    (step,) = [
        step
        for job_dir in batches.job_dirs(ctx.layout, one["batch_id"])
        for step in batches.read_job(job_dir).steps
        if step.kind == "trial" and step.step_id.startswith("nop")
    ]
    assert step.spec["task_checksum"].startswith("sha256:")  # the export has the task as it was
    again = program(root, "rerun", one["batch_id"], "--failed", "-w", "--fail-on", "never", env=SUPPORT, check=False)
    assert again.returncode in (0, 2), again.stderr


def test_a_trial_that_was_pulled_alone_is_imported_once(root, exports):
    ctx = context(root)
    (one,) = import_jobs(ctx, [exports / "one"]).jobs
    assert (one.trials, one.unfinished) == (1, 0)
    whole = import_jobs(ctx, [exports / "of-task"]).jobs
    assert [(job.job_name, job.trials, job.known) for job in whole] == [("nightly", 2, 1), ("another", 1, 0)]
    again = import_jobs(ctx, [exports / "one", exports / "of-task"]).jobs
    assert [(job.trials, job.known) for job in again] == [(0, 1), (0, 3), (0, 1)]
    assert len(ctx.layout.batch_ids()) == 3
    clean_audit(ctx)


def test_an_export_without_files_knows_the_results_and_is_the_same_trials(root, exports):
    ctx = context(root)
    (bare,) = import_jobs(ctx, [exports / "bare"]).jobs
    assert (bare.trials, bare.unfinished) == (6, 0)
    clean_audit(ctx)
    assert rewards_of(ctx, bare.batch_id) == rewards(exports / "late")
    (late,) = import_jobs(ctx, [exports / "late"]).jobs
    assert (late.trials, late.known) == (0, 6)


def test_an_export_of_oddishs_own_servers_has_a_job_for_each_trial(root, exports):
    expected = rewards(exports / "late")
    for trial in (exports / "late" / "trials").iterdir():
        name = read(trial / "result.json")["trial_name"]
        inner = trial / name
        inner.mkdir()
        for each in list(trial.iterdir()):
            if each != inner and each.name not in ("logs.txt", "logs_structured.json", "trajectory.json"):
                each.rename(inner / each.name)
        config = {"job_name": "j", "agents": [{"name": "oracle"}], "tasks": [{"path": "/gone"}]}
        (trial / "config.json").write_text(json.dumps(config))
        (trial / "result.json").write_text('{"id": "x", "stats": {"n_trials": 1}, "n_total_trials": 1}')
        shutil.copytree(inner, trial / "hello__earlier")
        was = read(trial / "hello__earlier" / "result.json")
        was |= {"started_at": "2020-01-01T00:00:00+00:00", "verifier_result": {"rewards": {"reward": 0.5}}}
        (trial / "hello__earlier" / "result.json").write_text(json.dumps(was))
    ctx = context(root)
    (one,) = import_jobs(ctx, [exports / "late"]).jobs
    assert (one.trials, one.unfinished, one.not_run) == (6, 0, 0)
    assert len([note for note in one.notes if "1 earlier of its attempts" in note]) == 6
    assert rewards_of(ctx, one.batch_id) == expected
    found = rows(ctx, one.batch_id)
    assert not (root / found[0].attempt / "trial" / "logs.txt").exists()
    clean_audit(ctx)


def test_what_the_export_lacks_is_unknown(root, exports):
    place = exports / "late"
    trials = {path.name: read(path / "result.json")["task_name"] for path in (place / "trials").iterdir()}
    first, second = [name for name in sorted(trials) if trials[name].endswith("world")]
    shutil.rmtree(place / "trials" / first)
    shutil.rmtree(place / "trials" / second)
    (path,) = [path for path in place.glob("tasks/*/task.json") if path.parent.name == first.rpartition("-")[0]]
    document = read(path)
    for trial in document["trials"]:
        if trial["id"] == first:
            trial |= {"status": "failed", "error_message": "the image\ncould not be built"}
        elif trial["id"] == second:
            trial |= {"status": "queued", "attempts": 3}
    path.write_text(json.dumps(document))
    ctx = context(root)
    (one,) = import_jobs(ctx, [place]).jobs
    assert (one.trials, one.not_run) == (4, 2)
    assert one.notes[0] == (
        f"{first}: it has ended there, and the export has none of its files; pull it without --no-files: the image"
    )
    assert any(note.startswith("Oddish tried again 2 times in nightly, and deleted") for note in one.notes)
    clean_audit(ctx)
    world = [r for r in rows(ctx, one.batch_id) if r.task == "world"]
    assert [(r.agent, r.facts.result, r.facts.reward) for r in world] == [("oracle", "canceled", None)] * 2


def test_what_is_no_export_and_hostile_ones_are_told(root, exports, tmp_path):
    place = exports / "late"
    trial = next((place / "trials").iterdir())
    with pytest.raises(UserError, match=f"is of an export of Oddish; name that: {place}"):
        sources.find(trial)
    bad = tmp_path / "bad"
    (bad / "tasks" / "x").mkdir(parents=True)
    assert not sources.oddish_exports.is_export(bad)
    outside = tmp_path / "outside"
    shutil.copytree(trial, outside)
    (bad / "trials").mkdir()
    (bad / "trials" / "link-0").symlink_to(outside)
    (bad / "trials" / "odd\n-1").mkdir()
    entries = [
        {"id": "../../outside", "agent": "oracle"},
        {"id": 5},
        None,
        {"id": "x-7", "agent": {"a": 1}, "status": []},
    ]
    task = {"id": "../..", "task_path": 7, "name": ["x"], "experiment_id": "a b/c\n", "trials": entries}
    (bad / "tasks" / "x" / "task.json").write_text(json.dumps(task))
    ctx = context(root)
    done = import_jobs(ctx, [bad, place])
    assert [job.trials for job in done.jobs if job.path == str(place)] == [6]
    assert all(job.trials == 0 for job in done.jobs if job.path == str(bad))
    assert any("nothing of Harbor's is in it" in line for line in done.problems)
    clean_audit(ctx)


def test_an_export_of_which_nothing_can_be_imported_is_a_problem_and_no_success(root, exports, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(exports / "late", bare)
    shutil.rmtree(bare / "trials")
    empty = tmp_path / "empty"
    (empty / "trials").mkdir(parents=True)
    (empty / "manifest.json").write_text('{"source": {"target_id": "nightly"}}')
    odd = tmp_path / "odd"
    (odd / "trials" / "\x1b]0;owned\x07\n-1").mkdir(parents=True)
    shutil.copy(empty / "manifest.json", odd)
    for place, says in (
        (bare, "has no trial that can be imported"),
        (empty, "has no trials; name an export that has"),
        (odd, "nothing of Harbor's is in it"),
    ):
        for options in (["--dry-run"], [], ["--json"]):
            done = program(root, "import", str(place), *options, check=False)
            assert done.returncode == 2, done
            lines = json.loads(done.stdout)["problems"] if "--json" in options else done.stderr.splitlines()
            lines = [line for line in lines if not line.startswith("made a store in ")]
            assert lines
            assert [line for line in lines if not line.startswith(f"{place}") or says not in line] == []
            assert "\x1b" not in done.stderr
            assert done.stdout == "" or "--json" in options
    assert context(root).layout.batch_ids() == []
