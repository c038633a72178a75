"""Sandboxes at a provider's: remembered as soon as Harbor knows them, taken down by Harbor's own class whoever has died."""

import json
import os
import signal

import pytest
from harness import make_task, until
from stores import SUPPORT, context, program

from parallelhassnes.steps.trial_data import remote_sandboxes
from parallelhassnes.store.layout import Layout

pytestmark = pytest.mark.harbor
AGENT = {"import_path": "slow_agent:CountingAgent"}


@pytest.fixture
def rented(tmp_path):
    """The provider: a file for each sandbox that is up."""
    folder = tmp_path / "provider"
    folder.mkdir()
    return folder


def start(root, rented, *, agent=AGENT, detach=True, **kwargs):
    context(root, 'secrets = ["RENTED"]\nenv_file = "keys.env"\n')
    keys = root / "keys.env"
    keys.write_text(f"RENTED={rented}\n")
    keys.chmod(0o600)
    environment = {"import_path": "rented_environment:RentedEnvironment", "kwargs": kwargs}
    own = {"path": [str(make_task(root))], "agents": [agent], "environment": environment}
    table = {"spec_version": "2.0", "retry": {"max_attempts": 1}, "sweep": own}
    (root / "table.json").write_text(json.dumps(table))
    words = ["--detach"] if detach else ["-q", "--fail-on", "never"]
    program(root, "run", "-c", str(root / "table.json"), *words, env=SUPPORT)
    return Layout(root).batch(Layout(root).batch_ids()[-1])


def attempts(batch):
    return sorted(batch.glob("*/steps/*.1/attempts/*"))


def state(batch):
    return json.loads((attempts(batch)[-1] / "state.json").read_text())


def at_work(batch, rented):
    """The state of an attempt whose agent works in a sandbox; it knows which."""
    until(lambda: attempts(batch) and (attempts(batch)[-1] / "state.json").exists())
    until(lambda: state(batch).get("sandbox") and state(batch).get("phase") == "agent")
    (up,) = rented.iterdir()
    found = state(batch)
    assert found["sandbox"] == f"rented_environment:RentedEnvironment:{up.name}"
    (record,) = remote_sandboxes.every(batch.parent)
    assert record.sandbox_id == up.name
    return found


def drain(root):
    program(root, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)


def test_a_trial_that_ends_by_itself_leaves_none_and_no_record(tmp_path, rented):
    batch = start(tmp_path, rented, agent={"name": "oracle"}, detach=False)
    assert json.loads((attempts(batch)[-1] / "final.json").read_text())["trial"]["reward"] == 1.0
    assert list(rented.iterdir()) == []
    assert list(remote_sandboxes.every(batch.parent)) == []


def test_the_supervisor_of_a_killed_worker_takes_its_sandbox_down(tmp_path, rented):
    batch = start(tmp_path, rented)
    os.kill(at_work(batch, rented)["worker_pid"], signal.SIGKILL)
    drain(tmp_path)
    assert list(rented.iterdir()) == []
    assert list(remote_sandboxes.every(batch.parent)) == []
    assert (
        "removed sandbox rented_environment:RentedEnvironment:sb-"
        in (attempts(batch)[-1] / "supervisor.log").read_text()
    )


def test_repair_takes_it_down_where_supervisor_and_worker_died(tmp_path, rented):
    batch = start(tmp_path, rented)
    found = at_work(batch, rented)
    for pid in (found["pid"], found["worker_pid"]):
        os.kill(pid, signal.SIGKILL)
    drain(tmp_path)
    assert list(rented.iterdir()) == []
    assert state(batch)["sandbox"] == found["sandbox"]


def test_one_that_its_provider_did_not_take_down_is_remembered_until_doctor_has(tmp_path, rented):
    deaf = tmp_path / "deaf"
    deaf.touch()
    batch = start(tmp_path, rented, deaf=str(deaf))
    os.kill(at_work(batch, rented)["worker_pid"], signal.SIGKILL)
    drain(tmp_path)
    (up,) = rented.iterdir()
    reap = ("doctor", "--reap", "--json")
    told = json.loads(program(tmp_path, *reap, env=SUPPORT, check=False).stdout)["left"]
    assert [(each["what"], each["name"].endswith(up.name), each["removed"]) for each in told] == [
        ("sandbox", True, False)
    ]
    deaf.unlink()
    told = json.loads(program(tmp_path, *reap, env=SUPPORT, check=False).stdout)["left"]
    assert [(each["what"], each["removed"]) for each in told] == [("sandbox", True)]
    assert list(rented.iterdir()) == []
    assert json.loads(program(tmp_path, *reap, env=SUPPORT, check=False).stdout)["left"] == []


def test_one_that_is_gone_at_its_provider_is_forgotten(tmp_path, rented):
    deaf = tmp_path / "deaf"
    deaf.touch()
    batch = start(tmp_path, rented, agent={"name": "oracle"}, detach=False, deaf=str(deaf))
    (up,) = rented.iterdir()
    up.unlink()
    program(tmp_path, "doctor", "--reap", env=SUPPORT, check=False)
    assert list(remote_sandboxes.every(batch.parent)) == []
