"""What a table may unfold to is bounded, and looked at before anything is made: in no time and no memory."""

import json
import resource

import pytest
from harness import make_task
from servers import serving
from stores import context, program, put, python

AGENTS = [{"name": name} for name in ("oracle", "nop", "oracle")]


def table(tmp_path, kind: str) -> dict:
    for name in ("a", "b", "c"):
        make_task(tmp_path / "many", name)
    tasks = str(tmp_path / "many")
    agents = [{**agent, "n_trials": 1_000_000} for agent in AGENTS]
    return {
        "sweep": {"spec_version": "2.0", "sweep": {"path": tasks, "agents": agents}},
        "n_valid": {
            "spec_version": "2.0",
            "sweep": {"path": tasks, "agents": [{"name": "oracle", "n_valid": 400_000}]},
        },
        "analyses": {
            "spec_version": "2.0",
            "analysis": ["rules", "rules"],
            "sweep": {"path": tasks, "agents": [{"name": "oracle", "n_trials": 200_000}]},
        },
        "harbor": {
            "datasets": [{"path": tasks}],
            "agents": [{"name": "oracle"}, {"name": "nop"}],
            "n_attempts": 1_000_000,
        },
        "oddish": {"path": tasks, "agents": agents},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("sweep", "/sweep: unfolds to 9,000,003 steps, and 1,000,000 may be"),
        ("n_valid", "/sweep: unfolds to 1,200,003 steps, and 1,000,000 may be"),
        ("analyses", "/sweep: unfolds to 1,800,003 steps, and 1,000,000 may be"),
        ("harbor", "/n_attempts: unfolds to 6,000,003 steps, and 1,000,000 may be"),
        ("oddish", ": unfolds to 9,000,003 steps, and 1,000,000 may be"),
    ],
)
def test_a_table_that_unfolds_to_too_much_is_one_line_and_no_memory(root, tmp_path, kind, says):
    context(root)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(table(tmp_path, kind)))
    for command in ("validate", "submit"):
        code = (
            "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_DATA, (700 << 20, 700 << 20));"
            f"sys.argv = ['parallelhassnes', '{command}', {str(path)!r}, '--root', {str(root)!r}];"
            "runpy.run_module('parallelhassnes', run_name='__main__')"
        )
        done = python(code, check=False)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert says in line
        assert line.endswith("ask for fewer, in several tables, or raise max_steps in parallelhassnes.toml")
    assert not list(root.glob("runs/batch*"))


def test_the_bound_is_a_setting_and_counts_what_is_written(root, tmp_path):
    context(root, "max_steps = 5\n")
    path = tmp_path / "t.json"
    make_task(tmp_path / "many", "a")
    for steps, code in ((5, 0), (6, 2)):
        step = {"kind": "command", "command": ["true"]}
        path.write_text(json.dumps({"spec_version": "2.0", "jobs": [{"steps": [step] * steps}]}))
        assert program(root, "validate", str(path), check=False).returncode == code
    for trials, code in ((4, 0), (5, 2)):  # and a verdict
        agents = [{"name": "nop", "n_trials": trials}]
        path.write_text(
            json.dumps({"spec_version": "2.0", "sweep": {"path": str(tmp_path / "many"), "agents": agents}})
        )
        assert program(root, "validate", str(path), check=False).returncode == code


def test_the_server_refuses_it_as_fast_and_grows_by_nothing(root, tmp_path):
    context(root)
    data = json.dumps(table(tmp_path, "sweep")).encode()
    with serving(root, "--no-tick") as server:
        small = {"spec_version": "2.0", "sweep": {"path": str(tmp_path / "many"), "agents": AGENTS}}
        assert server.client.post("/v1/validate", json=small).status_code == 200  # what is imported for it
        before = _resident_mb(server.process.pid)
        for path in ("/v1/validate", "/v1/batches"):
            answer = server.client.post(path, content=data)
            assert answer.status_code == 422
            assert "unfolds to 9,000,003 steps" in answer.json()["detail"]
        assert _resident_mb(server.process.pid) - before < 50


def _resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / (1 << 20)


def test_append_is_bounded_too(root, tmp_path):
    ctx = context(root, 'max_steps = 20\nenvironment = "sandbox"\n')
    make_task(tmp_path / "many", "a")
    agents = [{"name": "oracle"}, {"name": "nop"}]
    batch_id = put(
        ctx,
        json.dumps(
            {"spec_version": "2.0", "analysis": "rules", "sweep": {"path": str(tmp_path / "many"), "agents": agents}}
        ).encode(),
    )
    before = list((root / "runs" / batch_id).rglob("*"))
    done = program(root, "append", batch_id, "-k", "1000000", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"with 1000000 more of each agent {batch_id} unfolds to 4,000,005 steps, and 20 may be"
    )
    assert list((root / "runs" / batch_id).rglob("*")) == before
