"""``--reuse``: a trial that the store has scored by the same content is taken over, and says so; nothing else is."""

import json
import shutil

import pytest
from harness import make_task
from stores import SUPPORT, context, program

from parallelhassnes.actions import reuse
from parallelhassnes.actions.limits.capping import cap
from parallelhassnes.admin.audit.verify import verify
from parallelhassnes.plan import StepSpec
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.compare import compare
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.show import show

pytestmark = [pytest.mark.harbor, pytest.mark.namespaces]


def run(root, *, agents=(("oracle", 2),), reused=True, env=None, task=None, **more):
    """A batch, run to its end; its id and what ``run`` said."""
    own = {
        "path": [str(task or root / "hello")],
        "agents": [{"name": name, "n_trials": count} for name, count in agents],
        "environment": "sandbox",
        **more,
    }
    (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    words = ["run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", *["--reuse"] * reused]
    done = program(root, *words, env=SUPPORT | (env or {}))
    return Layout(root).batch_ids()[-1], done.stderr


@pytest.fixture
def ctx(tmp_path):
    made = context(tmp_path)
    make_task(tmp_path)
    return made


def launched(ctx, batch_id):
    return sum(
        event["event"] == "launched" and event.get("kind") == "trial"
        for _, event in ledger.read(ctx.layout.batch(batch_id))
    )


def test_a_scored_trial_is_taken_over_and_says_so(ctx, tmp_path):
    old, _ = run(tmp_path, reused=False)
    new, said = run(tmp_path, agents=(("oracle", 3),))
    assert f"2 of 3 trials reused, not run: from {old} (2)" in said
    assert launched(ctx, new) == 1
    rows = collect.read(ctx.layout, collect.choose(ctx.layout, new))
    assert [row.facts.reward for row in rows] == [1.0] * 3
    places = [row.reused for row in rows]
    assert len(set(places[:2])) == 2
    assert places[2] == ""
    assert {place.rpartition("/")[0] for place in places[:2]} == {f"{old}/hello/oracle.1", f"{old}/hello/oracle.2"}
    carried = [event for _, event in ledger.read(ctx.layout.batch(new)) if event["event"] == "carried"]
    assert [len(event["seal_sha256"]) for event in carried] == [64, 64]
    assert all(event["reused"] for event in carried)
    assert results(ctx.layout, collect.choose(ctx.layout, new)).notes == [
        f"2 of 3 trials reused, not run: from {old} (2)."
    ]
    assert [line.reused != "" for line in trial_lines(ctx.layout, collect.choose(ctx.layout, new)).trials] == [
        True,
        True,
        False,
    ]
    (attempt,) = show(ctx.layout, f"{new}/hello/oracle.1").attempts
    assert attempt.taken_from.startswith(f"{old}/hello/oracle.")
    assert "taken over from" in program(tmp_path, "show", f"{new}/hello/oracle.1").stdout
    assert verify(ctx.layout).ok
    # What was reused is reused again, once.
    newest, said = run(tmp_path, agents=(("oracle", 4),))
    assert "3 of 4 trials reused" in said
    assert launched(ctx, newest) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"timeout_sec": 77},
        {"max_tokens": 5000},
        {"pass": {"at_least": 0.5}},
        {"harbor": {"timeout_multiplier": 2.0}},
        {"agents": (("nop", 1),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_not_the_same_is_not_reused(ctx, tmp_path, change):
    run(tmp_path, reused=False)
    new, said = run(tmp_path, **({"agents": (("oracle", 1),)} | change))
    assert "is reused: no batch has scored the same" in said
    assert launched(ctx, new) == 1


def test_a_changed_task_is_another_one_and_a_moved_one_is_not(ctx, tmp_path):
    run(tmp_path, reused=False)
    moved = tmp_path / "moved" / "hello"
    shutil.copytree(tmp_path / "hello", moved)
    _, said = run(tmp_path, task=moved)
    assert "2 of 2 trials reused" in said
    (moved / "instruction.md").write_text("Something else.\n")
    _, said = run(tmp_path, task=moved)
    assert "nothing of the 2 trials is reused" in said


def test_what_cannot_be_trusted_is_not_reused(ctx, tmp_path):
    old, _ = run(tmp_path, reused=False)
    one, other = (ctx.layout.root / row.attempt for row in collect.read(ctx.layout, collect.choose(ctx.layout, old)))
    log = one / "trial" / "trial.log"
    log.chmod(0o600)
    log.write_text("better")
    _, said = run(tmp_path)
    assert "1 of 2 trials reused" in said
    cap(ctx, old, max_tokens=10**9)
    for each in (one, other):
        assert each.is_dir()
    found = [batch for batch in ctx.layout.batch_ids() if batch != old]
    shutil.rmtree(ctx.layout.batch(found[0]))
    _, said = run(tmp_path)
    assert "nothing of the 2 trials is reused" in said


def test_what_may_be_another_by_now_a_regrade_and_an_import_are_not_reused():
    spec = {"task_name": "t", "task_checksum": "sha256:1", "config": {"agent": {"name": "oracle"}}}
    step = StepSpec(step_id="s", kind="trial", queue_key="k", spec=spec)
    assert reuse.identity(step)
    for more in (
        {"config": {"agent": {"import_path": "a:B"}}},
        {"config": {"environment": {"import_path": "a:B"}}},
        {"config": {"verifier": {"import_path": "a:B"}}},
        {"config": {"user_agent": {"name": "oracle", "user_persona_path": "p.md"}}},
        {"config": {"agent": {"name": "terminus-2", "kwargs": {"prompt_template_path": "p.j2"}}}},
        {"config": {"agent": {"name": "terminus-2", "kwargs": {"config": "/etc/passwd"}}}},
        {"config": {"agent": {"name": "terminus-2", "skills": ["org/name"]}}},
        {"config": {"agent": {"name": "terminus-2", "env": {"URL": "${MY_PROVIDER}"}}}},
        {"config": {"environment": {"mounts": [{"type": "bind", "source": "/nowhere", "target": "/data"}]}}},
        {"config": {"environment": {"extra_docker_compose": ["more.yaml"]}}},
        {"config": {"extra_instruction_paths": ["more.md"]}},
        {"regrade": {"attempt": "x"}},
        {"source_key": "k"},
        {"task_checksum": ""},
    ):
        assert reuse.identity(step.model_copy(update={"spec": spec | more})) is None, more
    assert reuse.identity(step.model_copy(update={"env": {"LEVEL": "${LEVEL}"}})) is None
    same = {
        "agent": {
            "name": "terminus-2",
            "env": {"K": "${OPENAI_API_KEY}"},
            "kwargs": {"max_turns": 5, "note": "costs $5"},
        }
    }
    assert reuse.identity(step.model_copy(update={"spec": spec | {"config": same}}))


def test_submit_and_python_reuse_too(ctx, tmp_path):
    old, _ = run(tmp_path, reused=False)
    done = program(tmp_path, "submit", str(tmp_path / "table.json"), "--again", "--reuse", env=SUPPORT)
    assert f"2 of 2 trials reused, not run: from {old} (2)" in done.stderr
    program(tmp_path, "tick", "--until-idle", env=SUPPORT)
    assert launched(ctx, ctx.layout.batch_ids()[-1]) == 0


def test_a_run_that_two_batches_have_counts_once_where_they_come_together(ctx, tmp_path):
    old, _ = run(tmp_path, reused=False, experiment_id="e")
    run(tmp_path, agents=(("oracle", 3),), experiment_id="e")
    chosen = collect.choose(ctx.layout, experiment="e")
    (whole,) = results(ctx.layout, chosen).groups
    assert (whole.n, whole.passes) == (3, 3)
    assert [group.n for group in results(ctx.layout, chosen, ["batch"]).groups] == [2, 3]
    assert any(note.startswith("2 trials taken over from") for note in results(ctx.layout, chosen).notes)
    (pair,) = compare(ctx.layout, "experiment:e", old).agents
    assert [(task.a_scored, task.b_scored) for task in pair.tasks] == [(3, 2)]


def test_what_an_operator_has_capped_is_not_reused_though_the_cap_is_gone(ctx, tmp_path):
    make_task(tmp_path, solution="sleep 20; echo hi > /app/out")
    own = {"path": [str(tmp_path / "hello")], "agents": [{"name": "oracle"}], "environment": "sandbox"}
    (tmp_path / "table.json").write_text(json.dumps({"spec_version": "2.0", "sweep": own}))
    program(tmp_path, "submit", str(tmp_path / "table.json"), env=SUPPORT)
    (old,) = ctx.layout.batch_ids()
    cap(ctx, old, max_wall_sec=0.5)
    program(tmp_path, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)
    (row,) = collect.read(ctx.layout, collect.choose(ctx.layout, old))
    assert (row.scored, row.facts.capped, row.facts.reward) == (True, True, 0.0)
    cap(ctx, old, max_wall_sec=0)
    done = program(tmp_path, "submit", str(tmp_path / "table.json"), "--again", "--reuse", env=SUPPORT)
    assert "nothing of the 1 trial is reused" in done.stderr
