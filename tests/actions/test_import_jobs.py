"""``import``: Harbor's own job folders as batches, with what is not known said, and nothing of a source changed or believed."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import harbor_jobs
import pytest
from stores import SUPPORT, context, idle, program, read, wait_for

from parallelhassnes.actions.imports import sources
from parallelhassnes.actions.imports.import_jobs import import_jobs
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger, merkle

pytestmark = pytest.mark.harbor


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with ``jobs/``: ``whole`` (oracle and nop, twice), ``retries`` and ``stopped``, which was killed at its third trial."""
    folder = tmp_path_factory.mktemp("source")
    harbor_jobs.tasks(folder)
    temper = ("-a", "temper_agent:TemperAgent", "-k", "2")
    whole = harbor_jobs.start(folder, "whole", "-a", "oracle", "-k", "2", count="4")
    retries = harbor_jobs.start(folder, "retries", *temper, "-r", "3", mode="raise")
    stopped = harbor_jobs.start(folder, "stopped", *temper, mode="hang")
    harbor_jobs.kill_when(stopped, lambda: list(folder.glob("jobs/stopped/*/agent/said.txt")))
    harbor_jobs.end(whole)
    harbor_jobs.end(retries)
    return folder


@pytest.fixture
def jobs(made, tmp_path):
    """A copy of these jobs that a test may change, and the tasks beside it."""
    shutil.copytree(made, tmp_path / "source")
    return tmp_path / "source" / "jobs"


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that an import could change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_size, info.st_nlink, content)
    return found


def settled(ctx):
    wait_for(lambda: idle(ctx), "the verdicts")


def clean_audit(ctx):
    settled(ctx)
    found = verify.verify(ctx.layout)
    assert found.problems == []


def rows(ctx, batch_id):
    return collect.read(ctx.layout, collect.choose(ctx.layout, batch_id))


def test_a_whole_job_is_a_batch_beside_todays(root, jobs):
    ctx = context(root)
    before = state_of(jobs)
    said = json.loads(program(root, "import", str(jobs / "whole"), "--json").stdout)
    (one,) = said["jobs"]
    assert (one["trials"], one["unfinished"], one["known"], one["not_run"], one["notes"]) == (4, 0, 0, 0, [])
    assert state_of(jobs) == before
    clean_audit(ctx)
    found = rows(ctx, one["batch_id"])
    assert [(r.task, r.agent, r.facts.reward) for r in found] == [
        (task, "oracle", reward) for task, reward in (("easy", 1.0), ("hard", 0.0)) for _ in range(2)
    ]
    env = {**SUPPORT}
    run = ["run", "-p", str(jobs.parent / "tasks"), "-a", "oracle", "-k", "2", "-e", harbor_jobs.ENVIRONMENT]
    new = json.loads(program(root, *run, "--json", "--fail-on", "never", env=env).stdout.splitlines()[-1])["batch_id"]
    compared = json.loads(program(root, "compare", one["batch_id"], new, "--json").stdout)
    (pair,) = compared["agents"]
    assert (pair["a"], pair["b"], len(pair["tasks"])) == ("oracle", "oracle", 2)
    assert [each["what"] for each in pair["unequal"]] == []
    for command in (["errors"], ["report", "-o", str(root / "report.html")], ["show"]):
        program(root, *command, one["batch_id"])
    program(root, "export", one["batch_id"], "--to", str(root / "out"), env=SUPPORT)
    (result,) = root.glob("out/*/result.json")
    assert read(result)["n_total_trials"] == 4
    rebuild(ctx)
    assert [r.facts.reward for r in rows(ctx, one["batch_id"])] == [1.0, 1.0, 0.0, 0.0]


def test_what_cannot_be_known_is_said(root, jobs):
    ctx = context(root)
    done = import_jobs(ctx, [jobs])
    by_name = {job.job_name: job for job in done.jobs}
    assert done.ok
    assert by_name["whole"].batch_id
    retried, stopped = by_name["retries"], by_name["stopped"]
    count = read(jobs / "retries" / "result.json")["stats"]["n_retries"]
    assert count >= 2
    assert retried.notes == [
        f"Harbor tried again {count} times in retries, and deleted what had failed: nothing is known of these attempts"
    ]
    assert (stopped.trials, stopped.unfinished, stopped.not_run) == (3, 1, 1)
    settled(ctx)
    found = rows(ctx, stopped.batch_id)
    assert sorted(r.facts.result for r in found) == ["canceled", "infrastructure", "scored", "scored"]
    (lost,) = [r for r in found if r.facts.result == "infrastructure"]
    folder = root / lost.attempt
    meta, state, report = (read(folder / f"{name}.json") for name in ("meta", "state", "final"))
    assert (state["status"], "started_at" in state, meta["host"]) == ("lost", False, "unknown")
    assert "began" not in meta["imported"]
    assert report["failure"]["line"] == "no result where it was imported from: it was stopped there, or still ran"
    assert (folder / "trial/agent/said.txt").read_text() == "thinking"
    about = batches.read_batch(ctx.layout.batch(retried.batch_id)).imported
    assert (about.job_name, about.retries, about.planned, about.ended) == ("retries", count, 4, True)
    program(root, "export", retried.batch_id, "--to", str(root / "out"), env=SUPPORT)
    (result,) = root.glob("out/*/result.json")
    assert read(result)["stats"]["n_retries"] == count
    clean_audit(ctx)


def test_the_seal_has_the_hashes_of_the_source(root, jobs):
    ctx = context(root)
    (one,) = import_jobs(ctx, [jobs / "whole"]).jobs
    for row in rows(ctx, one.batch_id):
        sealed = read(root / row.attempt / "seal.json")
        source = jobs / "whole" / sealed["imported"]["trial"]
        files = {
            str(path.relative_to(source)): {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in source.rglob("*")
            if path.is_file()
        }
        assert sealed["imported"]["merkle_root"] == merkle.root(files)
        assert {f"trial/{name}": found for name, found in files.items()}.items() <= sealed["files"].items()


def test_a_second_import_adds_nothing_whatever_the_folder_is_called(root, jobs):
    ctx = context(root)
    import_jobs(ctx, [jobs])
    settled(ctx)
    before = {batch_id: len(list(ledger.read(ctx.layout.batch(batch_id)))) for batch_id in ctx.layout.batch_ids()}
    moved = jobs.rename(jobs.with_name("of-last-year"))
    for paths in ([moved], [moved / "stopped", moved / "stopped", moved]):
        again = import_jobs(ctx, paths)
        assert again.ok
        assert {job.trials for job in again.jobs} == {0}
        assert {job.batch_id for job in again.jobs} == set(before)
    settled(ctx)
    after = {batch_id: len(list(ledger.read(ctx.layout.batch(batch_id)))) for batch_id in ctx.layout.batch_ids()}
    assert after == before


def test_a_job_that_has_grown_adds_what_is_new(root, jobs):
    ctx = context(root)
    (first,) = import_jobs(ctx, [jobs / "stopped"]).jobs
    settled(ctx)
    old = {r.attempt for r in rows(ctx, first.batch_id) if r.attempt}
    harbor_jobs.resume(jobs.parent, "stopped")
    preview = import_jobs(ctx, [jobs / "stopped"], dry_run=True).jobs[0]
    (second,) = import_jobs(ctx, [jobs / "stopped"]).jobs
    assert (second.batch_id, second.trials, second.known, second.not_run) == (first.batch_id, 2, 2, 0)
    assert (preview.batch_id, preview.trials, preview.known) == (first.batch_id, 2, 2)
    assert second.more_batches == []
    settled(ctx)
    found = rows(ctx, first.batch_id)
    assert [r.facts.result for r in found] == ["scored"] * 4
    assert all((root / place / "seal.json").exists() for place in old)
    tries = sorted(
        len(list(path.iterdir())) for path in ctx.layout.batch(first.batch_id).glob("*/steps/temper*/attempts")
    )
    assert tries == [1, 1, 1, 2]  # what was lost there stays, and what Harbor made in its place is a further attempt
    verdicts = [read(path) for path in ctx.layout.batch(first.batch_id).glob("*/verdict.json")]
    assert [(v["counts"]["scored"], v["counts"]["n"]) for v in verdicts] == [(2, 2), (2, 2)]
    clean_audit(ctx)


def test_a_trial_that_was_run_again_under_its_name_is_a_further_attempt(root, jobs):
    ctx = context(root)
    (first,) = import_jobs(ctx, [jobs / "whole"]).jobs
    result = next((jobs / "whole").glob("easy__*/result.json"))
    document = read(result)
    document["verifier_result"]["rewards"]["reward"] = 0.0
    result.write_text(json.dumps(document))
    (second,) = import_jobs(ctx, [jobs / "whole"]).jobs
    assert (second.trials, second.known) == (1, 3)
    settled(ctx)
    assert sorted(r.facts.reward for r in rows(ctx, first.batch_id)) == [0.0, 0.0, 0.0, 1.0]
    clean_audit(ctx)


def test_what_the_source_has_not_run_starts_here_only_when_asked(root, jobs):
    ctx = context(root)
    (one,) = import_jobs(ctx, [jobs / "stopped"]).jobs
    program(root, "tick", "--until-idle", "--fail-on", "never")
    assert sorted(r.facts.result for r in rows(ctx, one.batch_id)) == ["canceled", "infrastructure", "scored", "scored"]
    counter = root / "count"
    counter.mkdir()
    env = {**SUPPORT, "TEMPER_DIR": str(counter), "TEMPER": ""}
    (todo,) = [r for r in rows(ctx, one.batch_id) if r.facts.result == "canceled"]
    (root / "parallelhassnes.toml").write_text('secrets = ["TEMPER_DIR", "TEMPER"]\n')
    program(root, "retry", todo.step, env=env)
    program(root, "tick", "--until-idle", "--fail-on", "never", env=env)
    assert sorted(r.facts.result for r in rows(ctx, one.batch_id)) == ["infrastructure", "scored", "scored", "scored"]


def test_a_dry_run_writes_nothing(root, jobs):
    done = program(root, "import", str(jobs), "--dry-run")
    assert list(root.iterdir()) == []
    assert f"would import {jobs / 'whole'} as a new batch: 4 new trials" in done.stdout
    assert (
        f"would import {jobs / 'stopped'} as a new batch: 3 new trials, 1 of them without a result, 1 planned and not run there"
        in done.stdout
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "is not there; name a Harbor job folder, or a folder of them such as jobs/"),
        ("a-file", "is no folder; name a Harbor job folder, or a folder of them such as jobs/"),
        (
            "tasks",
            "is no Harbor job and holds none: no config.json with agents in it, or below it; name a folder that harbor run or oddish pull has made, or the folder of these, such as jobs/",
        ),
        ("jobs/whole/TRIAL", "is a trial; name its job: "),
    ],
)
def test_what_is_no_job_is_one_clear_line_and_holds_up_no_other(root, jobs, name, says):
    (jobs.parent / "a-file").touch()
    place = jobs.parent / name.replace("TRIAL", next((jobs / "whole").glob("easy__*")).name)
    done = program(root, "import", str(place), str(jobs / "retries"), check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(str(place))]
    assert line.startswith(f"{place} {says}")
    assert "4 new trials" in done.stdout


def test_a_job_without_a_lock_is_imported_by_its_trials(root, jobs):
    for path in [*jobs.glob("whole/lock.json"), *jobs.glob("whole/*/lock.json")]:
        path.unlink()
    ctx = context(root)
    (one,) = import_jobs(ctx, [jobs / "whole"]).jobs
    assert (one.trials, one.not_run) == (4, 0)
    found = rows(ctx, one.batch_id)
    assert sorted(r.facts.reward for r in found) == [0.0, 0.0, 1.0, 1.0]
    specs = [
        step.spec for job_dir in batches.job_dirs(ctx.layout, one.batch_id) for step in batches.read_job(job_dir).steps
    ]
    # The task is still there as it was by Harbor's own hash, so its content hash is known.
    assert all(spec["task_checksum"].startswith("sha256:") for spec in specs if "config" in spec)


def test_hostile_content_is_contained(root, jobs, tmp_path):
    secret = tmp_path / "outside.json"
    secret.write_text('{"verifier_result": {"rewards": {"reward": 1}}}')
    job = jobs / "whole"
    first, second, third, fourth = sorted(job.glob("*__*"))
    (first / "result.json").unlink()
    (first / "result.json").symlink_to(secret)
    (second / "agent" / "out").symlink_to("/etc")
    os.mkfifo(second / "agent" / "pipe")
    (second / "agent" / "key.txt").write_text("the key is hunter2-hunter2, keep it")
    shutil.rmtree(third / "verifier")
    (third / "verifier").symlink_to(tmp_path)
    document = read(fourth / "result.json")
    (fourth / "result.json").write_text(
        json.dumps({**document, "trial_name": 5, "agent_info": [], "started_at": "soon"})
    )
    (job / "linked__trial").symlink_to(fourth)
    (job / "no\ntrial").mkdir()
    before = state_of(jobs)
    ctx = context(root, 'secrets = ["THEIR_KEY"]\n')
    program(root, "import", str(job), env={"THEIR_KEY": "hunter2-hunter2"})
    assert state_of(jobs) == before
    (batch_id,) = ctx.layout.batch_ids()
    found = {read(root / r.attempt / "meta.json")["imported"]["trial"]: r for r in rows(ctx, batch_id)}
    assert set(found) == {first.name, second.name, third.name, fourth.name}
    assert found[first.name].facts.result != "scored"  # what a link leads to is not believed
    kept = root / found[second.name].attempt
    assert (kept / "trial/agent/out").is_symlink()
    assert not (kept / "trial/agent/pipe").exists()
    assert (kept / "trial/agent/key.txt").read_text() == "the key is [REDACTED:THEIR_KEY], keep it"
    sealed = read(kept / "seal.json")
    assert {"path": "trial/agent/pipe", "why": "is no file, folder or link"} in sealed["left_out"]
    theirs = hashlib.sha256((second / "agent" / "key.txt").read_bytes()).hexdigest()
    assert sealed["imported"]["changed_here"] == {"agent/key.txt": {"sha256": theirs, "size": 35}}
    assert (root / found[third.name].attempt / "trial/verifier").is_symlink()
    assert found[fourth.name].facts.result == "scored"
    clean_audit(ctx)


def test_secrets_of_an_early_harbor_are_in_no_table(root, jobs):
    for path in (jobs / "whole").glob("*/config.json"):
        document = read(path)
        document["agent"] = {"name": "oracle", "env": {"OPENAI_API_KEY": "abcdefghij0123456789", "PLAIN": "yes it is"}}
        document["verifier"] = {"env": {"NOTE": "sk-" + "a" * 30}}
        path.write_text(json.dumps(document))
    ctx = context(root)
    (one,) = import_jobs(ctx, [jobs / "whole"]).jobs
    for path in [
        *ctx.layout.batch(one.batch_id).glob("launch_table.json"),
        *ctx.layout.batch(one.batch_id).glob("*/job.json"),
    ]:
        assert "abcdefghij0123456789" not in path.read_text()
        assert "sk-" + "a" * 30 not in path.read_text()
    job = batches.read_job(next(iter(batches.job_dirs(ctx.layout, one.batch_id))))
    assert job.steps[0].spec["config"]["agent"]["env"] == {"OPENAI_API_KEY": "${OPENAI_API_KEY}", "PLAIN": "yes it is"}
    settled(ctx)  # and the verdicts wait for no key


def test_the_configuration_of_no_job_makes_a_folder_one(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "something else"}')
    with pytest.raises(UserError, match="is no Harbor job and holds none"):
        sources.find(tmp_path)


def test_a_known_trial_of_which_another_file_has_changed_is_named(root, jobs):
    ctx = context(root, 'secrets = ["IMPORTED_KEY"]\n')
    trial = next(path for path in sorted((jobs / "whole").iterdir()) if (path / "result.json").is_file())
    (trial / "agent" / "key.txt").write_text("sesame-open-98765\n")
    os.environ["IMPORTED_KEY"] = "sesame-open-98765"
    try:
        import_jobs(ctx, [jobs / "whole"])
    finally:
        del os.environ["IMPORTED_KEY"]
    assert import_jobs(ctx, [jobs / "whole"]).jobs[0].notes == []
    (trial / "trial.log").write_text("something else\n")
    (trial / "agent" / "more.txt").write_text("more\n")
    (trial / "agent" / "key.txt").unlink()
    (done,) = import_jobs(ctx, [jobs / "whole"]).jobs
    assert (done.trials, done.known) == (0, 4)
    said = f"{trial.name}: not as it was imported: agent/key.txt, agent/more.txt, trial.log; what was imported stays"
    assert done.notes == [said]
    clean_audit(ctx)
