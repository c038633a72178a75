"""Caps: what an agent may use, enforced while it works, its work verified all the same."""

import asyncio
import json
import time

import pytest
from harness import make_task, until
from models import ENDPOINT, provider, say, serving
from models import run as shell
from stores import SUPPORT, context, job, program, put, table

from parallelhassnes.actions.limits.capping import cap
from parallelhassnes.actions.registry import LEDGER_WORDS
from parallelhassnes.errors import UserError
from parallelhassnes.plan import Caps
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import results
from parallelhassnes.results.compare import compare
from parallelhassnes.results.rows import trial_lines
from parallelhassnes.results.text_tables import markdown, of_comparison, of_results, of_trials
from parallelhassnes.steps import caps
from parallelhassnes.steps.trial.capped_agent import AgentUnderCaps, KeptCount, used_in
from parallelhassnes.store import batches
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.history import operators_words

pytestmark = pytest.mark.harbor
AGENT = {"import_path": "slow_agent:CountingAgent"}
TEMP = {"import_path": "temp_environment:TempEnvironment"}


def sweep(root, *, agent=None, **more):
    agents = [{**AGENT, **(agent or {})}]
    own = {"path": [str(make_task(root))], "agents": agents, "environment": TEMP, **more}
    return json.dumps({"spec_version": "2.0", "sweep": own}).encode()


def run(root, data):
    """Run a table to its end; the reports of its trials."""
    (root / "table.json").write_bytes(data)
    program(root, "run", "-c", str(root / "table.json"), "-q", "--fail-on", "never", env=SUPPORT)
    return reports(root)


def reports(root):
    batch = Layout(root).batch(Layout(root).batch_ids()[-1])
    found = [json.loads(path.read_text()) for path in sorted(batch.glob("*/steps/*/attempts/*/final.json"))]
    return [each for each in found if "trial" in each or "agent" in each]


@pytest.mark.parametrize(
    ("caps", "line"),
    [
        ({"max_tokens": 300}, "max_tokens 300 is reached"),
        ({"max_cost_usd": 1.5}, "max_cost_usd 1.5 is reached"),
        ({"max_turns": 4}, "max_turns 4 is reached"),
        ({"max_wall_sec": 0.4}, "max_wall_sec 0.4 is reached"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_agent_is_ended_at_its_cap_and_its_work_is_scored(tmp_path, caps, line):
    context(tmp_path)
    began = time.monotonic()
    (report,) = run(tmp_path, sweep(tmp_path, **caps))
    assert time.monotonic() - began < 40  # of the fifty seconds that it would go on
    trial = report["trial"]
    assert (report["status"], trial["reward"], trial["passed"]) == ("succeeded", 1.0, True)
    assert (trial["exception"]["type"], trial["exception"]["class"]) == ("AgentCappedError", "capped")
    assert trial["exception"]["message"].startswith(line)


def test_an_agent_that_ends_by_itself_below_its_caps_is_not_capped(tmp_path):
    context(tmp_path)
    (report,) = run(
        tmp_path, sweep(tmp_path, agent={"kwargs": {"turns": 3}}, max_tokens=301, max_turns=3, max_cost_usd=9)
    )
    assert (report["trial"]["reward"], report["trial"]["exception"]) == (1.0, None)


def test_one_that_went_beyond_a_cap_in_its_last_turn_is_capped_whenever_it_was_looked_at(tmp_path):
    context(tmp_path)
    (report,) = run(tmp_path, sweep(tmp_path, agent={"kwargs": {"turns": 1, "tokens": 500}}, max_tokens=300))
    assert report["trial"]["exception"]["class"] == "capped"


def test_a_capped_trial_without_a_reward_has_failed_so_and_is_not_tried_again(tmp_path):
    ctx = context(tmp_path)
    task = make_task(tmp_path, "mute", test="true")
    own = {"path": [str(task)], "agents": [AGENT], "environment": TEMP, "max_tokens": 200}
    (report,) = run(tmp_path, json.dumps({"spec_version": "2.0", "sweep": own}).encode())
    assert report["status"] == "failed"
    assert report["failure"]["class"] == "capped"
    (row,) = collect.read(ctx.layout, collect.choose(ctx.layout, "latest"))
    assert row.facts.capped


def test_results_and_comparisons_know_caps(tmp_path):
    ctx = context(tmp_path)
    run(tmp_path, sweep(tmp_path, max_tokens=200))
    run(tmp_path, sweep(tmp_path, agent={"kwargs": {"turns": 2}}))
    one, other = ctx.layout.batch_ids()
    found = results(ctx.layout, collect.choose(ctx.layout, one))
    assert (found.groups[0].capped, found.groups[0].scored) == (1, 1)
    assert "capped" in markdown(of_results(found))
    lines = trial_lines(ctx.layout, collect.choose(ctx.layout, one))
    assert lines.trials[0].capped
    assert "capped" in markdown(of_trials(lines))
    compared = compare(ctx.layout, one, other)
    (pair,) = compared.agents
    assert (pair.a_rate.capped, pair.b_rate.capped) == (1, 0)
    assert {each.what: (each.a, each.b) for each in pair.unequal}["max_tokens"] == ("200", "–")
    assert "1 trial ended by a cap" in markdown(of_comparison(compared)[0])


def test_an_operator_caps_a_trial_that_runs(tmp_path):
    ctx = context(tmp_path)
    (tmp_path / "table.json").write_bytes(sweep(tmp_path))
    program(tmp_path, "run", "-c", str(tmp_path / "table.json"), "--detach", env=SUPPORT)
    (batch_id,) = ctx.layout.batch_ids()
    shown = program(tmp_path, "cap", batch_id).stdout
    assert "no operator has said what its agents may use" in shown
    until(lambda: list(ctx.layout.batch(batch_id).glob("*/steps/*/attempts/*/trial/config.json")))
    said = program(tmp_path, "cap", f"{batch_id}/hello/CountingAgent.1", "--max-tokens", "1", "--reason", "dear").stdout
    assert "max_tokens 1; each running agent obeys within a second" in said
    program(tmp_path, "tick", "--until-idle", "--fail-on", "never", env=SUPPORT)
    (report,) = reports(tmp_path)
    assert (report["trial"]["reward"], report["trial"]["exception"]["class"]) == (1.0, "capped")
    (word,) = [each for each in operators_words(ctx.layout.batch(batch_id), LEDGER_WORDS) if each.event == "caps"]
    assert (word.said, word.reason) == ("set the caps of", "dear")


def test_a_cap_is_changed_per_value_and_taken_away(tmp_path):
    ctx = context(tmp_path)
    batch_id = put(ctx, sweep(tmp_path, max_tokens=200))
    step = f"{batch_id}/hello/CountingAgent.1"
    assert cap(ctx, batch_id, max_turns=7).changed
    assert not cap(ctx, batch_id, max_turns=7).changed
    cap(ctx, step, max_tokens=0)
    control = batches.read_control(ctx.layout.batch(batch_id))
    assert caps.merged(Caps(max_tokens=200), control.caps, "hello/CountingAgent.1") == Caps(max_turns=7)
    assert caps.merged(Caps(max_tokens=200), control.caps, "hello/other") == Caps(max_tokens=200, max_turns=7)
    with pytest.raises(UserError, match=r"--max-turns 1\.5: is out of range"):
        cap(ctx, batch_id, max_turns=1.5)


def test_a_batch_without_agents_has_nothing_to_cap(tmp_path):
    ctx = context(tmp_path)
    batch_id = put(ctx, table(job("j", {"step_id": "s", "command": ["true"]})))
    with pytest.raises(UserError, match="has neither trials nor agent steps"):
        cap(ctx, batch_id, max_turns=3)


def test_what_nobody_sees_of_an_agent_is_said_at_submission(tmp_path):
    context(tmp_path)
    task = make_task(tmp_path)
    said = program(tmp_path, "run", str(task), "-a", "aider", "-m", "openai/x", "--max-tokens", "9", "--dry-run").stderr
    assert "max_tokens: aider does not say while it runs what that is; max_wall_sec holds in any case" in said
    said = program(
        tmp_path, "run", str(task), "-a", "aider", "-m", "openai/x", "--max-wall-sec", "9", "--dry-run"
    ).stderr
    assert "max_wall_sec" not in said
    for model, known in (("openai/gpt-5.2", True), ("anthropic/claude-sonnet-4-5", True), ("openai/made-up", False)):
        words = ("run", str(task), "-a", "codex", "-m", model, "--max-cost-usd", "9", "--dry-run")
        said = program(tmp_path, *words).stderr
        assert (f"max_cost_usd: litellm's prices, by which it is reckoned, lack {model}; max_wall_sec" in said) != known


def test_the_nearest_word_of_a_table_counts(tmp_path):
    ctx = context(tmp_path)
    document = json.loads(sweep(tmp_path, agent={"max_turns": 3}, max_turns=4, max_tokens=50)) | {
        "max_cost_usd": 2,
        "max_tokens": 9,
    }
    batch_id = put(ctx, json.dumps(document).encode())
    (trial, _) = batches.read_job(ctx.layout.job(batch_id, "hello")).steps
    assert trial.caps == Caps(max_cost_usd=2, max_tokens=50, max_turns=3)


def test_a_trajectory_tells_what_was_used():
    steps = [
        {"source": "user"},
        {"source": "agent", "metrics": {"prompt_tokens": 5, "completion_tokens": 2, "cost_usd": 0.5}},
    ]
    assert used_in({"steps": [*steps, {"source": "agent", "is_copied_context": True}]}) == (0.5, 7, 1)
    assert used_in({"steps": steps, "final_metrics": {"total_prompt_tokens": 50, "total_completion_tokens": 1}}) == (
        0.5,
        51,
        1,
    )
    assert used_in({"steps": "x", "final_metrics": 3}) == caps.NOTHING


def turns_at(*seconds):
    metrics = {"prompt_tokens": 90, "completion_tokens": 10}
    return {
        "steps": [{"source": "agent", "timestamp": f"2026-11-28T10:00:{at:02}Z", "metrics": metrics} for at in seconds]
    }


@pytest.mark.parametrize(
    ("looks", "counted"),
    [
        ([(1,), (1, 2), (1, 2, 3)], 3),
        ([(1,), (1,), (1,)], 1),
        ([(1, 2), (3,)], 3),
        ([(1,), (2,), (3,), (4,)], 4),
        ([(1, 2, 3, 4), (4, 5)], 5),
        ([(1, 2), (), (3,)], 3),
        ([(1, 2, 3), (1,), (1, 4)], 4),
    ],
)
def test_what_logs_have_lost_stays_counted(looks, counted, capsys):
    kept = KeptCount()
    for at in looks:
        found = kept.count(turns_at(*at))
    assert (found.tokens, found.turns) == (100 * counted, counted)
    assert ("stays counted" in capsys.readouterr().err) == (looks[-1][: len(looks[0])] != looks[0])


@pytest.mark.namespaces
@pytest.mark.timeout(200)
@pytest.mark.programs("tmux")
def test_terminus_2_is_ended_at_its_tokens_and_scored(tmp_path):
    context(tmp_path)
    first = {
        "analysis": "a",
        "plan": "p",
        "commands": [{"keystrokes": "touch /app/out\n", "duration": 0.2}],
        "task_complete": False,
    }
    info = {
        "max_input_tokens": 30000,
        "max_output_tokens": 2000,
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 1e-6,
    }
    with serving(tmp_path / "model", say(json.dumps(first), tokens=[900, 100])) as model:
        keys = provider(model.url)
        kwargs = {
            "api_base": f"{model.url}/v1",
            "record_terminal_session": False,
            "enable_summarize": False,
            "model_info": info,
        }
        agent = {"name": "terminus-2", "model_name": "openai/scripted", "kwargs": kwargs}
        own = {"path": [str(make_task(tmp_path))], "agents": [agent], "environment": "sandbox", "max_tokens": 2500}
        data = json.dumps({"spec_version": "2.0", "secrets": list(keys), "sweep": own})
        (tmp_path / "table.json").write_text(data)
        program(
            tmp_path, "run", "-c", str(tmp_path / "table.json"), "-q", "--fail-on", "never", env=keys, timeout_sec=150
        )
    (report,) = reports(tmp_path)
    trial = report["trial"]
    assert (report["status"], trial["reward"]) == ("succeeded", 1.0)
    assert trial["exception"]["class"] == "capped", trial["exception"]
    assert 2500 <= trial["tokens"]["input"] + trial["tokens"]["output"] <= 5000


PROGRAMS = [pytest.param("codex", marks=pytest.mark.codex), pytest.param("claude", marks=pytest.mark.claude)]


def run_agent_step(root, name, command, **caps):
    """Run an agent step whose scripted model has it do a command again and again; its report, its folder, how often the model was asked."""
    context(root)
    (root / "work").mkdir()
    again = shell(f"{command}; sleep 0.5", tokens=[100, 10])
    with serving(root / "model", *[again] * 40, say("done")) as model:
        keys = provider(model.url)
        step = {
            "step_id": "s",
            "agent": name,
            "model": "gpt-5.2" if name == "codex" else "sonnet",
            "prompt": "Go on.",
            **caps,
            "working_directory": str(root / "work"),
            "execution_policy": {"config": ENDPOINT if name == "codex" else {}, "sandbox": "danger-full-access"},
            "env": {key: value for key, value in keys.items() if "KEY" not in key},
        }
        secrets = [key for key in keys if "KEY" in key]
        (root / "table.json").write_bytes(table(job("j", step), secrets=secrets))
        words = ("run", "-c", str(root / "table.json"), "-q", "--fail-on", "never")
        done = program(root, *words, env=keys, timeout_sec=180)
        assert "max_cost_usd" not in done.stderr
        asked = len([each for each in model.requests() if each["path"].endswith(("/responses", "/messages"))])
    (report,) = reports(root)
    (folder,) = (path.parent for path in root.glob("runs/*/*/steps/*/attempts/*/final.json"))
    return report, folder, asked


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "caps",
    [{"max_turns": 3}, {"max_tokens": 400}, {"max_cost_usd": 0.0012}, {"max_wall_sec": 5}],
    ids=lambda each: next(iter(each)),
)
@pytest.mark.timeout(240)
def test_an_agent_step_is_ended_at_its_cap_and_what_it_did_is_kept(tmp_path, name, caps):
    report, _, asked = run_agent_step(tmp_path, name, "echo more >> notes.txt", **caps)
    ((cap, most),) = caps.items()
    assert (report["status"], report["failure"]["class"]) == ("failed", "capped"), report
    assert f"{cap} {most:g} is reached" in report["failure"]["line"]
    assert asked < 30
    if cap != "max_wall_sec":  # a busy host may not have had the time
        assert (tmp_path / "work" / "notes.txt").read_text().startswith("more\n")


EMPTIED = {"codex": "rollout-*.jsonl", "claude": "claude.events.jsonl"}
"""What tells of an agent step how many tokens it has used."""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("act", ["-exec truncate -s 0 {} +", "-delete"], ids=["emptied", "removed"])
@pytest.mark.timeout(240)
def test_an_agent_step_that_destroys_what_tells_of_it_is_ended_at_its_cap_all_the_same(tmp_path, name, act):
    destroy = f"sleep 0.7; find {tmp_path}/runs -name '{EMPTIED[name]}' {act}"
    report, folder, asked = run_agent_step(tmp_path, name, destroy, max_tokens=700)
    assert (report["status"], report["failure"]["class"]) == ("failed", "capped"), report
    assert asked < 30
    assert "shortened or removed" in (folder / "stderr.log").read_text()


def test_what_ended_the_agent_during_a_look_is_not_taken_for_the_cap():
    """So that a provider's refusal makes no score of 0."""
    falls = asyncio.Event()

    class Watch:
        caps, runs, line = Caps(max_turns=1), False, None

        def begin(self): ...

        def pause(self): ...

        def look(self):
            return self.caps

        def left_sec(self, _used):
            return 0.0

        def reached(self, _used):
            return self.line

    class Meter:
        used = caps.NOTHING

        def begin(self, _context): ...

        def end(self): ...

        async def look(self, left_sec=0, *, last=False):
            falls.set()
            await asyncio.wait([task for task in asyncio.all_tasks() if task.get_coro().__name__ == "own"])
            watch.line = "max_turns 1 is reached: 2 so far"

    async def own():
        await falls.wait()
        raise ConnectionError("the provider is gone")

    watch = Watch()
    with pytest.raises(ConnectionError, match="the provider is gone"):
        asyncio.run(AgentUnderCaps(own, watch, Meter(), None).run())
