"""Harbor's job plugins around single trials: a real package with real plugins, found by the name that it gives them."""

import json

import pytest
from harness import make_task
from stores import SUPPORT, context, program, read

from parallelhassnes.actions import reuse
from parallelhassnes.store import batches

pytestmark = pytest.mark.harbor
ENVIRONMENT = "temp_environment:TempEnvironment"
MODULE = '''
import json
from pathlib import Path

class Notes:
    """Writes down what it is told."""

    def __init__(self, mark="", bad_end=False):
        self.mark, self.bad_end = mark, bad_end

    async def on_job_start(self, job):
        self.job, self.folder = job, Path(job.job_dir)
        self.write("job", trials=len(job), name=job.config.job_name, agent=job.config.agents[0].name, id=str(job.id))
        kinds = ("trial_started", "environment_started", "agent_started", "agent_ended", "verification_started", "trial_ended", "trial_cancelled")
        for kind in kinds:
            async def note(event, kind=kind):
                there = (self.folder / event.trial_name / "config.json").is_file()
                self.write(kind, trial=event.trial_name, there=there)
            assert getattr(job, "on_" + kind)(note) is job

    async def on_job_end(self, job_result):
        (result,) = job_result.trial_results
        self.write("end", completed=job_result.stats.n_completed_trials, reward=result.verifier_result.rewards["reward"])
        if self.bad_end:
            raise RuntimeError("no room for the end")

    def write(self, what, **more):
        with (self.folder / "notes.jsonl").open("a") as stream:
            stream.write(json.dumps({"what": what, "mark": self.mark, **more}) + "\\n")


class Nosy(Notes):
    async def on_job_start(self, job):
        job.trial_queue.submit()


class Quiet:
    def __init__(self):
        pass

    async def on_job_start(self, job):
        pass

    async def on_job_end(self, job_result):
        pass
'''


@pytest.fixture
def env(tmp_path):
    """Where the package is found."""
    place = tmp_path / "packages"
    about = place / "noting-1.0.dist-info"
    about.mkdir(parents=True)
    (place / "noting.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: noting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[harbor.plugins]\nnotes = noting:Notes\n")
    return {"PYTHONPATH": f"{SUPPORT['PYTHONPATH']}:{place}"}


def run(root, env, *options, check=True):
    task = make_task(root)
    line = ["harbor", "run", "-p", str(task), "-a", "oracle", "-e", ENVIRONMENT, "-q", "--fail-on", "never", *options]
    return program(root, *line, env=env, check=check)


@pytest.mark.timeout(300)
def test_a_plugin_sees_each_trial_as_a_job_of_one(root, env):
    ctx = context(root)
    run(root, env, "-k", "2", "--plugin", "notes", "--plugin-kwarg", "mark=m", "--plugin-kwarg", "bad_end=true")
    (batch_id,) = ctx.layout.batch_ids()
    attempts = sorted((root / "runs").glob(f"{batch_id}/*/steps/oracle.*/attempts/*"))
    assert len(attempts) == 2
    ids = set()
    for attempt in attempts:
        notes = [json.loads(line) for line in (attempt / "plugins" / "notes.jsonl").read_text().splitlines()]
        assert [note["what"] for note in notes] == [
            "job",
            "trial_started",
            "environment_started",
            "agent_started",
            "agent_ended",
            "verification_started",
            "trial_ended",
            "end",
        ]
        assert {note["mark"] for note in notes} == {"m"}
        assert all(note["there"] for note in notes if "there" in note)
        assert (notes[0]["trials"], notes[0]["name"], notes[0]["agent"]) == (1, batch_id, "oracle")
        assert (notes[-1]["completed"], notes[-1]["reward"]) == (1, 1.0)
        ids.add(notes[0]["id"])
        assert [path.name for path in (attempt / "plugins").iterdir()] == ["notes.jsonl"]
        assert "plugins/notes.jsonl" in read(attempt / "seal.json")["files"]
        assert read(attempt / "final.json")["status"] == "succeeded"
    assert len(ids) == 2
    job = batches.read_job(next(iter(batches.job_dirs(ctx.layout, batch_id))))
    trials = [step for step in job.steps if step.kind == "trial"]
    wanted = [{"import_path": "notes", "kwargs": {"mark": "m", "bad_end": True}}]
    assert [step.spec["plugins"] for step in trials] == [wanted] * 2
    assert all("plugins" not in step.spec for step in job.steps if step.kind != "trial")


@pytest.mark.timeout(300)
def test_what_of_a_plugin_cannot_be_is_one_line(root, env):
    ctx = context(root)
    run(root, env, "--plugin", "noting:Nosy")
    (report,) = (root / "runs").glob("*/*/steps/oracle.1/attempts/*/final.json")
    failure = read(report)["failure"]
    said = "the job plugin noting:Nosy does not start: it asks for job.trial_queue, which one trial does not have"
    assert said in failure["line"], failure
    assert (failure["class"], failure.get("guessed", False)) == ("configuration", False)
    assert not (report.parent / "plugins").exists()
    for options, line in (
        (("--plugin", "nots"), "Unknown plugin 'nots'. Installed plugins: "),
        (("--plugin", "a:A", "--plugin", "b:B", "--plugin-kwarg", "x=1"), "Plugin kwargs require exactly one --plugin"),
    ):
        refused = run(root, env, *options, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert line in refused.stderr
    (root / "job.json").write_text(
        json.dumps(
            {
                "tasks": [{"path": "hello"}],
                "agents": [{"name": "oracle"}],
                "plugins": [{"import_path": "notes", "kwarg": {}}],
            }
        )
    )
    refused = program(root, "validate", str(root / "job.json"), env=env, check=False)
    assert refused.returncode == 2
    assert "/plugins/0/kwarg" in refused.stderr
    assert len(ctx.layout.batch_ids()) == 1


@pytest.mark.timeout(300)
def test_a_quiet_plugin_leaves_nothing_and_its_trial_is_never_reused(root, env):
    ctx = context(root)
    run(root, env, "--plugin", "noting:Quiet")
    (attempt,) = (root / "runs").glob("*/*/steps/oracle.1/attempts/*")
    assert not (attempt / "plugins").exists()
    (batch_id,) = ctx.layout.batch_ids()
    job = batches.read_job(next(iter(batches.job_dirs(ctx.layout, batch_id))))
    assert reuse.identity(job.steps[0]) is None
