"""``resources`` of steps and sweeps: what a table may say, what the plan makes of it, and where it is refused."""

import json

import pytest
from harness import make_task
from stores import command, context, job, put, states, table

from parallelhassnes.actions.run_until_idle import until_idle
from parallelhassnes.actions.submit import plan_table
from parallelhassnes.api.http.auth import Authenticator
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.config import ApiConfig
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.plan import Resources
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import hosts
from parallelhassnes.tables.expand import expand


def planned(*steps):
    return expand(table(job("j", *steps)), name="t.json", base_dirs=[]).jobs[0].steps


def test_the_plan_has_what_the_table_says():
    said = {"cpus": 4, "memory_mb": 16000, "gpus": 1, "partition": "gpu,long", "time": "1-12:30"}
    with_them, without = planned(command("a", "true", resources=said), command("b", "true"))
    assert with_them.resources == Resources(**said)
    assert without.resources is None


@pytest.mark.parametrize("time", ["30", "90:30", "4:00:00", "2-12", "2-12:30", "2-12:30:15"])
def test_times_are_slurms(time):
    assert planned(command("a", "true", resources={"time": time}))[0].resources.time == time


@pytest.mark.parametrize(
    ("said", "at", "why"),
    [
        ({}, "resources", "says nothing: give cpus, memory_mb, gpus, partition or time"),
        ({"cpus": 0}, "resources/cpus", "greater than or equal to 1"),
        ({"cpus": "4"}, "resources/cpus", "integer"),
        ({"gpus": 0}, "resources/gpus", "greater than or equal to 1"),
        ({"time": "soon"}, "resources/time", "as Slurm writes it: 30 (minutes), 4:00:00 or 2-12"),
        ({"time": "1:2:3:4"}, "resources/time", "as Slurm writes it: 30 (minutes), 4:00:00 or 2-12"),
        ({"time": "-1"}, "resources/time", "as Slurm writes it: 30 (minutes), 4:00:00 or 2-12"),
        ({"partition": "a b"}, "resources/partition", "must be letters, digits"),
        ({"partition": "--wrap=x"}, "resources/partition", "must be letters, digits"),
        ({"memory": 3}, "resources/memory", "unknown"),
        (4, "resources", "object"),
    ],
)
def test_what_is_refused_is_said_where_it_stands(said, at, why):
    with pytest.raises(InvalidInput) as caught:
        planned(command("a", "true", resources=said))
    found = [each for each in caught.value.problems if each.pointer == f"/jobs/0/steps/0/{at}"]
    assert found, caught.value
    assert why in str(found[0])


def test_a_sweep_gives_them_to_its_trials_alone(tmp_path):
    make_task(tmp_path / "task")
    sweep = {"path": str(tmp_path / "task"), "agents": [{"name": "nop"}], "environment": "sandbox", "analysis": "rules"}
    data = json.dumps({"sweep": {**sweep, "resources": {"gpus": 1}}}).encode()
    steps = expand(data, name="t.json", base_dirs=[]).jobs[0].steps
    assert {step.kind: step.resources for step in steps} == {
        "trial": Resources(gpus=1),
        "analysis": None,
        "verdict": None,
    }


def test_they_are_refused_where_nothing_gives_them(tmp_path):
    ctx = context(tmp_path)
    data = table(job("j", command("a", "true", resources={"cpus": 1})))
    with pytest.raises(
        InvalidInput, match=r"j/a asks for resources, and nothing gives them to steps here; .*\[slurm\]"
    ):
        plan_table(ctx, data, name="t.json", folders=[])
    (ctx.layout.incoming / "dropped.json").write_bytes(data)
    (rejected,) = tick(ctx).ingested
    assert "j/a asks for resources" in rejected.problems[0].line()


def test_a_program_that_began_before_the_root_had_several_hosts_goes_on(tmp_path):
    """A server, or whoever waits for a batch, is not a stranger to the host that it runs on."""
    ctx = context(tmp_path)
    server = ServerState(tmp_path, ApiConfig(), Authenticator(ctx.layout, auth="none"), ticking=False)
    toml = tmp_path / "parallelhassnes.toml"
    toml.write_text(toml.read_text() + "[slurm]\njobs = 3\n")
    until_idle(ctx, None, lambda: None)
    assert (ctx.layout.hosts / "shared").exists()
    now = server.context()
    assert now.layout.runner == hosts.own_name()
    batch = put(now, table(job("j", command("s", "true"))))
    until_idle(ctx, [batch], lambda: None)
    assert states(now, batch) == {"j/s": ["succeeded"]}


def test_the_first_host_of_several_is_made_by_the_setting_and_not_under_a_shared_name(tmp_path):
    ctx = context(tmp_path, "[slurm]\njobs = 3\n")
    tick(ctx)
    assert (ctx.layout.hosts / "shared").exists()
    assert tick(ctx).failed is False
    other = tmp_path / "named"
    other.mkdir()
    named = context(other, 'runner_id = "x"\n[slurm]\njobs = 3\n')
    with pytest.raises(UserError, match="runner_id stands in"):
        tick(named)
