"""Regrade: what agents have left is judged by other tests, without running them again."""

import json
import shutil
import subprocess
import tarfile

import harbor_jobs
import pytest
from harness import make_task
from stores import SUPPORT, context, program, put

from parallelhassnes.actions.imports.import_jobs import import_jobs
from parallelhassnes.actions.stored.regrade import regrade
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.errors import UserError
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.compare import compare
from parallelhassnes.results.regraded import conclusions
from parallelhassnes.results.text_tables import markdown, of_conclusions
from parallelhassnes.steps.trial import workspace
from parallelhassnes.store import batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout

pytestmark = pytest.mark.harbor
TEMP = {"import_path": "temp_environment:TempEnvironment"}
STRICT = 'grep -q "hello, world" /app/out && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt'
WORK = "mkdir -p /app/sub; echo hi > /app/out; ln -s out /app/link; cp /app/out /app/sub/same; chmod 750 /app/sub/same; mkfifo /app/pipe"


def run(root, *, agents=("oracle", "nop"), task=None, environment=TEMP, env=None, **more):
    """A batch whose agents' work is kept, run to its end; its id."""
    own = {
        "path": [str(task or make_task(root, solution=WORK))],
        "agents": [{"name": name} for name in agents],
        "environment": environment,
        "keep_workspace": True,
        **more,
    }
    (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=SUPPORT | (env or {}))
    return Layout(root).batch_ids()[-1]


def drain(root):
    program(root, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)


def rewards(ctx, batch):
    rows = collect.read(ctx.layout, collect.choose(ctx.layout, batch))
    return {row.agent: row.facts.reward for row in rows}


def attempt_of(ctx, batch, agent):
    (row,) = collect.read(ctx.layout, collect.choose(ctx.layout, batch)._replace(agent=agent))
    return ctx.layout.root / row.attempt


def test_changed_tests_judge_what_agents_have_left(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path)
    assert rewards(ctx, old) == {"oracle": 1.0, "nop": 0.0}
    ran = json.loads((attempt_of(ctx, old, "oracle") / "final.json").read_text())["trial"]["workspace"]
    assert ran["directory"].endswith("/app")
    tests = make_task(tmp_path / "new", "hello", test=STRICT)
    new = program(tmp_path, "regrade", old, "--verifier", str(tests), env=SUPPORT).stdout.strip()
    drain(tmp_path)
    assert rewards(ctx, old) == {"oracle": 1.0, "nop": 0.0}
    assert rewards(ctx, new) == {"oracle": 0.0, "nop": 0.0}

    report = json.loads((attempt_of(ctx, new, "oracle") / "final.json").read_text())
    again = report["trial"]["regrade"]
    assert (again["by"], again["reward"], again["passed"]) == ("workspace", 1.0, True)
    assert again["attempt"] == str(attempt_of(ctx, old, "oracle").relative_to(ctx.layout.runs)).replace(
        "/steps", ""
    ).replace("/attempts", "")
    assert report["trial"]["agent"]["name"] == "oracle"
    assert (report["trial"]["cost_usd"], report["trial"]["tokens"]["input"]) == (0.0, 0)

    found = conclusions(ctx.layout, new)
    assert (found.regrade_of, found.pending, found.left_out) == (old, 0, 0)
    assert {(each.agent, each.before, each.after, each.flipped) for each in found.trials} == {
        ("oracle", 1.0, 0.0, True),
        ("nop", 0.0, 0.0, False),
    }
    assert [(each.before, each.after, each.flipped) for each in found.verdicts] == [("good", "broken", True)]
    assert {each.agent: (each.before, each.after) for each in found.rates} == {"oracle": (1.0, 0.0), "nop": (0.0, 0.0)}
    text = "".join(map(markdown, of_conclusions(found)))
    assert "2 trials of" in text
    assert "verdict of hello" in text
    assert "1 with another reward, 1 flipped" in program(tmp_path, "regrade", new).stdout.replace("\n", " ")
    assert any(
        event["event"] == "regraded" and event["batch_id"] == new for _, event in ledger.read(ctx.layout.batch(old))
    )
    assert compare(ctx.layout, old, new).agents
    assert verify(ctx.layout).ok


def test_a_comparison_of_agents_that_turns_is_told(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path)
    tests = make_task(
        tmp_path / "new",
        "hello",
        test="[ -f /app/out ] && echo 0 > /logs/verifier/reward.txt || echo 1 > /logs/verifier/reward.txt",
    )
    new = regrade(ctx, old, [tests]).batch_id
    drain(tmp_path)
    (turned,) = conclusions(ctx.layout, new).comparisons
    assert (turned.turned, turned.difference_before, turned.difference_after) == (True, -1.0, 1.0)


def test_the_whole_workspace_comes_back_as_it_was(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, agents=("oracle",))
    look = (
        'set -e; cd /app; [ "$(readlink link)" = out ]; cmp out sub/same; [ "$(stat -c %a sub/same)" = 750 ]; [ ! -e pipe ]; '
        '[ "$(find . | sort | tr "\\n" " ")" = ". ./link ./out ./sub ./sub/same " ]; echo 1 > /logs/verifier/reward.txt'
    )
    new = regrade(ctx, old, [make_task(tmp_path / "new", "hello", test=look)]).batch_id
    drain(tmp_path)
    assert rewards(ctx, new) == {"oracle": 1.0}
    folder = attempt_of(ctx, old, "oracle") / workspace.FOLDER
    assert len(list((folder / workspace.BLOBS).iterdir())) == 1  # both files have the same content


def test_secrets_are_taken_out_of_a_workspace_and_it_can_be_judged_all_the_same(tmp_path):
    ctx = context(tmp_path, 'secrets = ["MY_TOKEN"]\n')
    task = make_task(tmp_path, solution="echo hi > /app/out; echo $MY_TOKEN > /app/token")
    old = run(tmp_path, agents=("oracle",), task=task, env={"MY_TOKEN": "sesame-open-12345"})
    attempt = attempt_of(ctx, old, "oracle")
    texts = [path.read_text() for path in (attempt / workspace.FOLDER / workspace.BLOBS).iterdir()]
    assert not any("sesame-open" in text for text in texts)
    new = regrade(ctx, old, [make_task(tmp_path / "new", "hello")]).batch_id
    program(tmp_path, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT | {"MY_TOKEN": "sesame-open-12345"})
    assert rewards(ctx, new) == {"oracle": 1.0}


def test_a_workspace_that_was_changed_after_its_seal_is_not_judged(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, agents=("oracle",))
    attempt = attempt_of(ctx, old, "oracle")
    new = regrade(ctx, old, [make_task(tmp_path / "new", "hello")]).batch_id
    (blob,) = (attempt / workspace.FOLDER / workspace.BLOBS).iterdir()
    blob.chmod(0o600)
    blob.write_text("better")
    drain(tmp_path)
    (row,) = collect.read(ctx.layout, collect.choose(ctx.layout, new))
    assert (row.facts.result, row.facts.failure_class) == ("infrastructure", "infrastructure")
    assert "is not what was sealed" in (ctx.layout.root / row.attempt / "final.txt").read_text()
    seal = attempt / "seal.json"
    seal.chmod(0o600)
    seal.write_text(seal.read_text().replace(" ", "") + " ")
    with pytest.raises(UserError, match="their seals are not what the ledger names"):
        regrade(ctx, old, [tmp_path / "new" / "hello"])


def test_a_packed_batch_is_judged_again_from_its_archive(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, agents=("oracle",))
    program(tmp_path, "pack", old)
    new = regrade(ctx, old, [make_task(tmp_path / "new", "hello", test=STRICT)]).batch_id
    drain(tmp_path)
    assert rewards(ctx, new) == {"oracle": 0.0}


def test_where_nothing_is_kept_that_is_one_line(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, keep_workspace=False)
    with pytest.raises(
        UserError,
        match=r"2 trials left out, the tests run in the agent's own environment, and there is no workspace: none was kept: .*; run with --keep-workspace",
    ):
        regrade(ctx, old, [make_task(tmp_path / "new", "hello")])
    with pytest.raises(UserError, match="their task is not among those of --verifier"):
        regrade(ctx, run(tmp_path, agents=("oracle",)), [make_task(tmp_path / "new", "other")])
    with pytest.raises(UserError, match="judges no other batch"):
        conclusions(ctx.layout, old)


def test_a_hostile_tar_becomes_no_file_elsewhere(tmp_path):
    tar = tmp_path / "w.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    assert workspace.take_apart(tar, tmp_path / "one", "/app") == "it has a name that leads out of it"
    assert not (tmp_path / "evil").exists()
    with tarfile.open(tar, "w") as archive:
        huge = tarfile.TarInfo("huge")
        huge.size = workspace.MOST_BYTES + 1
        archive.fileobj.write(huge.tobuf())
    assert "512 MB" in workspace.take_apart(tar, tmp_path / "two", "/app")
    tar.write_bytes(b"no tar" * 1000)
    assert workspace.take_apart(tar, tmp_path / "three", "/app").startswith("what came is no tar")
    assert not any(tmp_path.glob("*/manifest.json"))


@pytest.mark.parametrize(
    "members",
    [
        [("x", tarfile.SYMTYPE, "/usr/local/bin"), ("x/pytest", tarfile.REGTYPE, "")],
        [("x", tarfile.DIRTYPE, ""), ("x", tarfile.SYMTYPE, "/tests"), ("x/test.sh", tarfile.REGTYPE, "")],
        [("x", tarfile.LNKTYPE, "/etc/passwd")],
        [("x", tarfile.LNKTYPE, "../../etc/passwd")],
    ],
)
def test_a_tar_whose_links_lead_out_is_not_kept(tmp_path, members):
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.linkname = kind, target
            archive.addfile(member)
    assert workspace.take_apart(tmp_path / "w.tar", tmp_path / "w", "/app") == "it has a name that leads out of it"


def test_a_part_of_a_tar_is_not_taken_for_the_whole(tmp_path):
    tar = tmp_path / "w.tar"
    with tarfile.open(tar, "w") as archive:
        for name in (".", "./one", "./two"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "." else tarfile.REGTYPE
            archive.addfile(member)
    whole = tar.read_bytes()
    assert workspace.take_apart(tar, tmp_path / "whole", "/app") == ""
    for number, data in enumerate((whole[:1024], whole[:1100], whole[:1024] + b"broken!!" * 64 + whole[1536:])):
        tar.write_bytes(data)
        assert workspace.take_apart(tar, tmp_path / f"{number}", "/app") == "what came is no whole tar"


def test_the_same_tests_judge_the_same_trials_once_unless_asked(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, agents=("oracle",))
    tests = make_task(tmp_path / "new", "hello", test=STRICT)
    first = regrade(ctx, old, [tests])
    same = program(tmp_path, "regrade", old, "--verifier", str(tests))
    assert same.stdout.strip() == first.batch_id
    assert "these tests have judged them before, --again makes a new batch" in same.stderr
    told = [event["batch_id"] for _, event in ledger.read(ctx.layout.batch(old)) if event["event"] == "regraded"]
    assert told == [first.batch_id]
    assert regrade(ctx, old, [tests], again=True).batch_id != first.batch_id
    (tests / "tests" / "test.sh").write_text("#!/bin/bash\necho 1 > /logs/verifier/reward.txt\n")
    assert not regrade(ctx, old, [tests]).duplicate


@pytest.mark.namespaces
def test_in_the_sandbox(tmp_path):
    ctx = context(tmp_path)
    task = make_task(tmp_path, solution=WORK)
    program(tmp_path, "run", str(task), "-a", "oracle", "-e", "sandbox", "--keep-workspace", "-q", env=SUPPORT)
    (old,) = ctx.layout.batch_ids()
    new = regrade(ctx, old, [make_task(tmp_path / "new", "hello", test=STRICT)]).batch_id
    drain(tmp_path)
    assert rewards(ctx, new) == {"oracle": 0.0}
    again = regrade(
        ctx,
        old,
        [
            make_task(
                tmp_path / "more", "hello", test="cmp /app/out /app/sub/same && echo 1 > /logs/verifier/reward.txt"
            )
        ],
    ).batch_id
    drain(tmp_path)
    assert rewards(ctx, again) == {"oracle": 1.0}


def apart(folder, test, *, name="hello", solution="mkdir -p /logs/artifacts; echo 7 > /logs/artifacts/n", more=""):
    """A task whose verifier has an environment of its own, and is given what Harbor has collected."""
    made = make_task(folder, name, solution=solution, test=test)
    toml = made / "task.toml"
    separate = '[verifier]\ntimeout_sec = 30.0\nenvironment_mode = "separate"\n'
    toml.write_text(more + toml.read_text().replace("[verifier]\ntimeout_sec = 30.0\n", separate))
    (made / "tests" / "Dockerfile").write_text("FROM debian:bookworm-slim\nWORKDIR /app\nCOPY test.sh /tests/test.sh\n")
    return made


def wants(number):
    return (
        f"[ $(cat /logs/artifacts/n) = {number} ] && echo 1 > /logs/verifier/reward.txt"
        " || echo 0 > /logs/verifier/reward.txt"
    )


@pytest.mark.namespaces
def test_harbors_own_regrade_judges_artifacts_where_the_verifier_is_apart(tmp_path):
    ctx = context(tmp_path)
    first = apart(tmp_path, wants(7))
    program(tmp_path, "run", str(first), "-a", "oracle", "-e", "sandbox", "-q", "--fail-on", "never", env=SUPPORT)
    (old,) = ctx.layout.batch_ids()
    assert rewards(ctx, old) == {"oracle": 1.0}, (attempt_of(ctx, old, "oracle") / "final.txt").read_text()
    new = regrade(ctx, old, [apart(tmp_path / "new", wants(8))]).batch_id
    drain(tmp_path)
    report = json.loads((attempt_of(ctx, new, "oracle") / "final.json").read_text())
    assert (report["trial"]["reward"], report["trial"]["regrade"]["by"]) == (0.0, "artifacts"), report


def harbor_run(folder, *options):
    """A job of the real ``harbor run``, in the sandbox of ours."""
    environment = "parallelhassnes.sandbox.environment:SandboxEnvironment"
    command = [harbor_jobs.HARBOR, "run", "-p", folder / "tasks", "-a", "oracle", "-e", environment, "-y", "-q"]
    done = subprocess.run(
        [*command, "-o", folder / "jobs", *options],
        env=harbor_jobs.environment(folder / "of-run"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.namespaces
@pytest.mark.timeout(300)
def test_an_imported_job_is_judged_again_by_its_artifacts_and_what_cannot_be_is_said(tmp_path):
    """By changed tests, without an agent: what Harbor has collected of each trial; and of each that cannot be judged why."""
    ctx = context(tmp_path)
    source = tmp_path / "source"
    for name in ("kept", "linked", "shared", "wants-more"):
        apart(source / "tasks", wants(7), name=name)
    linked = source / "tasks" / "linked" / "solution" / "solve.sh"
    linked.write_text(linked.read_text() + "ln -s /etc/passwd /logs/artifacts/out\n")
    harbor_run(source, "--job-name", "old", "-n", "4")
    (one,) = import_jobs(ctx, [source / "jobs" / "old"]).jobs
    changed = tmp_path / "changed"
    for name in ("kept", "linked"):
        apart(changed, wants(8), name=name)
    make_task(changed, "shared")
    apart(changed, wants(8), name="wants-more", more='artifacts = ["/app/other"]\n')
    made = regrade(ctx, one.batch_id, [changed])
    assert (made.trials, made.left_out) == (1, 3)
    why = {line.rpartition(": ")[2].split("/")[1]: line for line in made.notes}
    assert "the tests run in the agent's own environment, and there is no workspace: none was kept" in why["shared"]
    assert "Harbor has not collected /app/other, and there is no workspace" in why["wants-more"]
    assert "out leads to nothing of the trial's, and Harbor follows it" in why["linked"]
    drain(tmp_path)
    assert rewards(ctx, one.batch_id) == {"oracle": 1.0}
    assert rewards(ctx, made.batch_id) == {"oracle": 0.0}
    (flip,) = [each for each in conclusions(ctx.layout, made.batch_id).trials if each.flipped]
    assert (flip.task, flip.before, flip.after) == ("kept", 1.0, 0.0)
    assert verify(ctx.layout).ok


def test_two_jobs_of_harbor_come_in_are_compared_with_a_batch_of_today_and_one_is_judged_again(tmp_path):
    """One job that was killed half-way, one in which Harbor has tried again; the batch of today is judged by changed tests."""
    ctx = context(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    tasks = harbor_jobs.tasks(source)
    agent = ("-a", "temper_agent:TemperAgent", "-k", "2")
    retries = harbor_jobs.start(source, "retries", *agent, "-r", "3", mode="raise")
    stopped = harbor_jobs.start(source, "stopped", *agent, mode="hang")
    harbor_jobs.kill_when(stopped, lambda: list(source.glob("jobs/stopped/*/agent/said.txt")))
    harbor_jobs.end(retries)
    done = import_jobs(ctx, [source / "jobs"])
    assert (done.problems, len(done.jobs)) == ([], 2)
    imported = {job.job_name: job.batch_id for job in done.jobs}
    agents = [{"import_path": "temper_agent:TemperAgent", "n_trials": 2}]
    own = {"path": [str(tasks)], "agents": agents, "environment": TEMP, "keep_workspace": True}
    (tmp_path / "count").mkdir()
    table = {"spec_version": "2.0", "secrets": ["TEMPER_DIR", "TEMPER"], "sweep": own}
    today = put(ctx, json.dumps(table).encode())
    temper = {"TEMPER_DIR": str(tmp_path / "count"), "TEMPER": "calm"}
    program(tmp_path, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT | temper)
    for name in ("retries", "stopped"):
        (pair,) = compare(ctx.layout, imported[name], today).agents
        assert {each.task for each in pair.tasks} <= {"easy", "hard"}
    changed = tmp_path / "changed"
    shutil.copytree(tasks, changed)
    (changed / "hard" / "tests" / "test.sh").write_text("#!/bin/bash\necho 1 > /logs/verifier/reward.txt\n")
    new = regrade(ctx, today, [changed]).batch_id
    drain(tmp_path)
    found = conclusions(ctx.layout, new)
    assert {(each.task, each.before, each.after) for each in found.trials if each.flipped} == {("hard", 0.0, 1.0)}
    assert (len(found.trials), found.left_out) == (4, 0)
    with pytest.raises(UserError, match=r"nothing of .* can be judged again: .*no workspace: none was kept"):
        regrade(ctx, imported["retries"], [changed])
    assert batches.read_batch(ctx.layout.batch(new)).regrade.batch == today
    assert verify(ctx.layout).ok


def test_an_experiment_counts_a_run_as_it_was_judged_first(tmp_path):
    ctx = context(tmp_path)
    old = run(tmp_path, agents=("oracle",), experiment_id="e")
    strict = make_task(tmp_path / "strict", test=STRICT)
    new = regrade(ctx, old, [strict]).batch_id
    drain(tmp_path)
    assert (rewards(ctx, old), rewards(ctx, new)) == ({"oracle": 1.0}, {"oracle": 0.0})
    (whole,) = results(ctx.layout, collect.choose(ctx.layout, experiment="e")).groups
    assert (whole.n, whole.mean_reward) == (1, 1.0)
    (other,) = results(ctx.layout, collect.choose(ctx.layout, new)).groups
    assert (other.n, other.mean_reward) == (1, 0.0)
