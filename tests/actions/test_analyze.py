"""``analyze``: over trials that were run before, again by another engine, and what the engines say side by side."""

import json

import pytest
from harness import make_task
from models import answer, serving
from stores import SUPPORT, context, idle, program, put, read, states, wait_for

from parallelhassnes.actions import packs
from parallelhassnes.actions.analyze import analyze
from parallelhassnes.admin.audit import verify
from parallelhassnes.errors import UserError
from parallelhassnes.results import analysis_list
from parallelhassnes.schedule.additions import add_steps
from parallelhassnes.schedule.rebuild import rebuild
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import index
from parallelhassnes.tables.model import AnalysisPart
from parallelhassnes.views import batch_status

RULES = [AnalysisPart(engine="rules")]


@pytest.fixture
def old(root, monkeypatch):
    """A root with a batch of oracle and nop on one task, run before anybody thought of analyses."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT["PYTHONPATH"])
    ctx = context(root)
    sweep = {
        "path": str(make_task(root)),
        "agents": [{"name": "oracle"}, {"name": "nop"}],
        "environment": "temp_environment:TempEnvironment",
    }
    batch = put(ctx, json.dumps({"spec_version": "2.0", "sweep": sweep}).encode())
    settle(ctx)
    return ctx, batch


def settle(ctx):
    tick(ctx)
    wait_for(lambda: idle(ctx), "the batch to end")


def sealed(ctx, batch):
    return {p: p.read_bytes() for p in ctx.layout.batch(batch).glob("*/steps/*/attempts/*/seal.json")}


def said(ctx, batch):
    found = analysis_list.analyses(ctx.layout, batch)
    return {t.trial: [(o.engine, o.state, o.outcome, o.subtype) for o in t.opinions] for t in found.trials}


def test_old_trials_are_analysed_once_and_judged_anew(old):
    ctx, batch = old
    before = sealed(ctx, batch)
    done = analyze(ctx, batch, RULES)
    assert done.added == ["hello/oracle.1.rules", "hello/nop.1.rules"]
    settle(ctx)
    assert said(ctx, batch) == {
        "hello/oracle.1": [("rules", "done", "good_success", "reference")],
        "hello/nop.1": [("rules", "done", "good_failure", "no_action")],
    }
    assert states(ctx, batch)["hello/verdict"][-1] == "succeeded"
    assert len(states(ctx, batch)["hello/verdict"]) >= 2, "the verdict takes the analyses in"
    now = sealed(ctx, batch)
    assert {path: now[path] for path in before} == before
    again = analyze(ctx, batch, RULES)
    assert (again.added, again.again, again.had) == ([], [], 2)
    found = verify.verify(ctx.layout)
    assert found.ok, found.problems
    current = read(ctx.layout.job(batch, "hello") / "current.json")
    listed = read(ctx.layout.batch(batch) / "index.json")
    rebuild(ctx)
    assert read(ctx.layout.job(batch, "hello") / "current.json") == current
    assert read(ctx.layout.batch(batch) / "index.json") == listed
    assert idle(ctx)


def test_a_packed_batch_is_unpacked_where_there_is_anything_to_analyse_and_only_there(old):
    ctx, batch = old
    before = sealed(ctx, batch)
    packs.pack(ctx, batch)
    told = program(ctx.layout.root, "analyze", batch, "--no-wait").stderr
    assert "2 analyses added" in told
    assert f"its files were unpacked for that; `pack {batch}` packs them again" in told
    settle(ctx)
    both = said(ctx, batch)
    assert {trial: [each[:2] for each in opinions] for trial, opinions in both.items()} == {
        "hello/oracle.1": [("rules", "done")],
        "hello/nop.1": [("rules", "done")],
    }
    assert {path: sealed(ctx, batch)[path] for path in before} == before
    packs.pack(ctx, batch)
    done = analyze(ctx, batch, RULES)
    assert (done.added, done.again, done.had, done.unpacked) == ([], [], 2, False)
    assert packs.is_packed(ctx.layout.batch(batch))
    assert said(ctx, batch) == both
    assert not verify.verify(ctx.layout).problems


def test_only_what_failed(old):
    ctx, batch = old
    assert analyze(ctx, batch, RULES, failed=True).added == ["hello/nop.1.rules"]
    settle(ctx)


def test_another_engine_and_how_far_they_agree(old, root, monkeypatch):
    ctx, batch = old
    analyze(ctx, batch, RULES)
    settle(ctx)
    document = {
        "outcome": "good_failure",
        "subtype": "gave_up",
        "evidence": [],
        "root_cause": "It stopped.",
        "recommendation": "None.",
        "confidence": 0.5,
    }
    good = {**document, "outcome": "bad_success", "subtype": "too_permissive"}
    turns = {"verified reward 1": [answer(good)], "verified reward 0": [answer(document)]}
    monkeypatch.setenv("SOME_KEY", "scripted")
    with serving(root / "model", answer(document), when=turns) as model:
        line = ("--engine", "api:scripted", "--base-url", f"{model.url}/v1", "--secret", "SOME_KEY")
        told = program(root, "analyze", batch, *line, "--json")
    found = json.loads(told.stdout)
    assert found["outcomes"]["api · scripted"] == {"bad_success": 1, "good_failure": 1}
    (pair,) = found["agreement"]
    assert (pair["engines"], pair["both"], pair["same_outcome"], pair["same_subtype"]) == (
        ["rules", "api · scripted"],
        2,
        1,
        0,
    )
    assert found["disagree"] == ["hello/oracle.1"]
    assert "SOME_KEY" not in (root / "runs" / batch / "launch_table.json").read_text()
    shown = program(root, "analyses", batch).stdout
    assert "they disagree on hello/oracle.1" in shown
    assert verify.verify(ctx.layout).ok


def test_one_that_failed_is_missing_and_asked_again(old, root):
    ctx, batch = old
    with serving(root / "model", answer({"no": "analysis"})) as model:
        part = AnalysisPart(engine="api", model="scripted", base_url=f"{model.url}/v1")
        analyze(ctx, f"{batch}/hello/nop.1", [part])
        settle(ctx)
        assert said(ctx, batch)["hello/nop.1"] == [("api · scripted", "failed", None, None)]
        assert analyze(ctx, batch, [part], failed=True).again == ["hello/nop.1.api"]
        settle(ctx)
    assert len(states(ctx, batch)["hello/nop.1.api"]) == 2


@pytest.mark.parametrize("act", ["append", "write", "place"])
def test_a_crash_on_the_way_is_mended_by_the_next_tick(old, monkeypatch, act):
    ctx, batch = old

    def crash(*_args, **_more):
        raise KeyboardInterrupt

    where = {"append": add_steps.ledger, "write": index, "place": add_steps.JobState}[act]
    with monkeypatch.context() as patched:
        patched.setattr(where, act, crash)
        with pytest.raises(KeyboardInterrupt):
            analyze(ctx, batch, RULES)
    settle(ctx)
    assert said(ctx, batch)["hello/nop.1"] == [("rules", "done", "good_failure", "no_action")]
    assert list(ctx.layout.added.iterdir()) == []
    found = verify.verify(ctx.layout)
    assert found.ok, found.problems
    assert [step.state for step in batch_status.read(ctx.layout, batch)] == ["succeeded"] * 5


def test_an_addition_that_was_changed_is_found(old):
    ctx, batch = old
    analyze(ctx, batch, RULES)
    settle(ctx)
    path = ctx.layout.job(batch, "hello") / "additions" / "0001.json"
    text = path.read_text()
    path.write_text(text.replace('"rules"', '"codex"', 1))
    assert [(f.what, f.place) for f in verify.verify(ctx.layout).problems] == [
        ("changed", f"{batch}/hello/additions/0001.json")
    ]
    path.unlink()
    assert [f.what for f in verify.verify(ctx.layout).problems][:1] == ["missing"]


def test_wrong_inputs_are_one_line(root, old):
    ctx, _ = old
    done = program(root, "analyze", "latest", "--engine", "codexx", check=False)
    assert (done.returncode, done.stderr.strip()) == (2, "there is no engine codexx; did you mean codex?")
    done = program(root, "analyze", "latest", "--engine", "api", check=False)
    assert done.returncode == 2
    assert "the engine api needs a model" in done.stderr
    with pytest.raises(UserError):
        analyze(ctx, "nothing", RULES)


@pytest.mark.parametrize(("engine", "name"), [("codex", "OPENAI_API_KEY"), ("claude", "ANTHROPIC_API_KEY")])
def test_a_key_that_an_engine_would_use_and_nobody_passes_on_is_told(root, engine, name):
    sweep = {
        "path": str(make_task(root)),
        "agents": [{"name": "nop"}],
        "environment": "temp_environment:TempEnvironment",
    }
    table = root / "table.json"
    for secrets, told in (([], True), ([name], False)):
        document = {"spec_version": "2.0", "analysis": engine, "sweep": sweep, "secrets": secrets}
        table.write_text(json.dumps(document))
        env = {name: "set-to-something", "PYTHONPATH": SUPPORT["PYTHONPATH"]}
        said = program(root, "validate", str(table), env=env)
        assert (f"{name} is set but not passed on" in said.stdout + said.stderr) == told


def test_kappa_by_hand():
    """Cohen (1960): two raters, 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give 0.4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert analysis_list.kappa(pairs) == pytest.approx(0.4)
    assert analysis_list.kappa([]) is None
    assert analysis_list.kappa([("a", "a")] * 3) is None
    assert analysis_list.kappa([("a", "b"), ("b", "a")]) == pytest.approx(-1.0)
