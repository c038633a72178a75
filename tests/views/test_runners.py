"""Runners and jobs of Slurm, as each view tells of them: from the same files, in the same words, without asking Slurm."""

import re

import httpx
import joined_hosts
import pytest
from joined_hosts import attempt, beats, has_right
from servers import serving
from stores import program

from parallelhassnes.execute.slurm import ClusterJob
from parallelhassnes.schedule.cluster import pilot_jobs
from parallelhassnes.schedule.cluster.cluster_jobs import JobRecord
from parallelhassnes.schedule.cluster.pilot_jobs import Pilot
from parallelhassnes.store import atomic, hosts
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.store.records import dump, now_text
from parallelhassnes.views.explain import explain

REASON = "AssocGrpCpuLimit"


@pytest.fixture
def ctx(root):
    """Three hosts have joined; h2, a pilot, runs one of two steps. Another pilot waits, and a third is over."""
    ctx = joined_hosts.three(root, steps=2)
    has_right(ctx, 1, "h2")
    for name in ("h1", "h2"):
        beats(ctx, name, 1)
    made = attempt(ctx, "h2")
    handed.note_taken(ctx.layout, made.ticket, "h2")
    atomic.write_json(ctx.layout.runners / "h2" / "job.json", {"schema_version": 1, "engine": "slurm", "job_id": "11"})
    for number in (1, 2, 3):
        pilot = Pilot(pilot=f"p{number}", job_id=str(10 + number), asked_at=now_text(), options=())
        ctx.layout.pilots.mkdir(exist_ok=True)
        atomic.write_json(ctx.layout.pilots / f"p{number}.json", dump(pilot))
    (ctx.layout.runners / handed.JOBS).mkdir()
    pilot_jobs.note(
        ctx.layout,
        [
            ClusterJob("11", "parallelhassnes-p1", "RUNNING", "None", "h2"),
            ClusterJob("12", "parallelhassnes-p2", "PENDING", REASON, ""),
        ],
    )
    return ctx


def as_job(ctx):
    """Have the one running step be a job of Slurm that waits."""
    entry = tickets.running(ctx.layout)[0]
    ticket = tickets.read(entry.path)
    step_dir = ctx.layout.step(ticket.batch_id, ticket.job_id, ticket.step_id)
    name = next((step_dir / "attempts").iterdir()).name
    record = JobRecord(
        attempt=name,
        batch_id=ticket.batch_id,
        job_id=ticket.job_id,
        step_id=ticket.step_id,
        slurm_id="99",
        asked_at=now_text(),
        state="PENDING",
        reason="Resources",
    )
    atomic.write_json(ctx.layout.runners / handed.JOBS / "jobs" / f"{name}.json", dump(record))
    return f"{ticket.batch_id}/{ticket.job_id}/{ticket.step_id}", "job 99 of Slurm is pending (Resources)"


def test_every_view_says_what_runs_where_and_why_jobs_wait(ctx):
    jobs = ctx.layout.runners / handed.JOBS / "jobs"
    jobs.mkdir()
    step, line = as_job(ctx)
    with serving(ctx.layout.root, "--no-tick") as server:
        said = server.client.get("/v1/runners").json()
        page = re.sub(r"<[^>]*>|\s+", " ", httpx.get(server.url).text)
        metrics = server.client.get("/metrics").text
    runners = {each["runner_id"]: each for each in said["items"]}
    assert runners["h2"]["runs"] == [step]
    assert runners["h2"]["job_id"] == "11"
    assert runners["h1"]["runs"] == []
    assert [(p["pilot"], p["state"], p["reason"]) for p in said["slurm"]["pilots"]] == [
        ("p1", "RUNNING", ""),
        ("p2", "PENDING", REASON),
    ]
    assert [(j["step"], j["line"]) for j in said["slurm"]["jobs"]] == [(step, line)]
    assert line in page
    assert f"pending ({REASON})" in page
    assert 'parallelhassnes_slurm_jobs{state="pending"} 1.0' in metrics
    assert 'parallelhassnes_slurm_pilots{state="running"} 1.0' in metrics
    assert 'parallelhassnes_runner_live{runner="h2"} 1.0' in metrics
    assert 'parallelhassnes_runner_capacity{runner="h2"} 4.0' in metrics
    assert line in explain(ctx, step).steps[0].why[0]
    assert line in program(ctx.layout.root, "runners", "--quick").stdout
    answer = {"schema_version": 1, "answered": False, "at": now_text()}
    atomic.write_json(ctx.layout.runners / handed.JOBS / "answer.json", answer)
    assert f"{line}; Slurm does not answer now" in explain(ctx, step).steps[0].why[0]
    assert f"{line}; Slurm does not answer now" in program(ctx.layout.root, "runners", "--quick").stdout


def test_what_is_ready_says_that_every_runner_is_full_and_that_a_pilot_waits(ctx):
    full = {"h1": 0, "h2": 1}
    for name, capacity in full.items():
        beat = hosts.beat_of(ctx.layout, name)
        assert beat is not None
        hosts.write_beat(ctx.layout, beat.model_copy(update={"capacity": capacity}))
    waiting = next(iter(ctx.layout.ready.rglob("*.command")))
    ticket = tickets.read(waiting)
    why = explain(ctx, f"{ticket.batch_id}/{ticket.job_id}/{ticket.step_id}").steps[0].why
    assert "every runner is full: h1 0 of 0, h2 1 of 1 live" in why
    assert f"job 12 of Slurm, a runner to be, is pending ({REASON})" in why
