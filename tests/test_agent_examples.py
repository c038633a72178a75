"""The tables of examples/agents: run by the real Codex CLI on a scripted model, or by a program where any agent will do."""

import json
import subprocess
import sys

import pytest
import yaml
from models import answer, provider, run, serving
from stores import CHECKOUT, context, program, read, states

from parallelhassnes.actions import table_edits
from parallelhassnes.actions.submit import submit
from parallelhassnes.admin.audit import verify
from parallelhassnes.schedule.context import open_context
from parallelhassnes.store import attempts

EXAMPLES = CHECKOUT / "examples" / "agents"
ANY_AGENT = json.dumps(
    {
        "command": [
            sys.executable,
            str(CHECKOUT / "tests" / "support" / "agent_program.py"),
            "{prompt_file}",
            "{output_file}",
        ]
    }
)
TOML = 'secrets = ["OPENAI_BASE_URL", "OPENAI_API_KEY"]\nconcurrency = 4\n'


def said(summary, **more):
    report = {"status": "succeeded", "summary": summary, "files_read": [], "files_written": [], "artifacts": []}
    return answer({**report, **more})


def submitted(root, name, *changes):
    """A store with an example's table in its queue, as submitted in the store's folder."""
    ctx = context(root, TOML)
    document = yaml.safe_load((EXAMPLES / name).read_text())
    table_edits.apply(document, changes)
    data = json.dumps(document).encode()
    return ctx, submit(ctx, data, name=name.replace(".yaml", ".json"), folders=[root]).batch_id


def drive(root, url=None, **more):
    program(root, "tick", "--until-idle", "--fail-on", "never", env=provider(url) if url else None, **more)


def newest(ctx, batch_id, step):
    job_id, _, step_id = step.partition("/")
    ref = attempts.newest(ctx.layout.step(batch_id, job_id, step_id))
    return ref.dir


def report(ctx, batch_id, step):
    return read(newest(ctx, batch_id, step) / "final.json")


def test_forty_jobs(root):
    ctx, batch_id = submitted(root, "forty.yaml", f"agent={ANY_AGENT}")
    drive(root)
    found = states(ctx, batch_id)
    assert (len(found), set(map(tuple, found.values()))) == (40, {("succeeded",)})
    folder = newest(ctx, batch_id, "billing/ask")
    asked = (folder / "agent" / "asked.txt").read_text()
    assert asked.startswith("You document a program.")
    assert asked.endswith("\n\nSay in one sentence what the module billing is for.\n")
    assert read(folder / "final.json")["summary"].endswith("billing is for.")


def test_a_fan_in_over_twenty_jobs(root):
    ctx, batch_id = submitted(root, "fan_in.yaml", f"agent={ANY_AGENT}")
    drive(root)
    folder = newest(ctx, batch_id, "summary/all")
    asked = (folder / "agent" / "asked.txt").read_text()
    assert asked.startswith("These are 20 reviews")
    assert asked.count("(succeeded): Heard: Review part") == 20
    assert len(attempts.read_meta(folder).inputs) == 20


def test_a_fan_in_that_its_prompt_does_not_speak_of_is_given_all_the_same(root):
    ctx, batch_id = submitted(
        root,
        "fan_in.yaml",
        f"agent={ANY_AGENT}",
        "jobs.summary.steps.all.prompt=Summarise.",
        'jobs.summary.steps.all.fan_in.labels.part="[12]"',
    )
    drive(root)
    asked = (newest(ctx, batch_id, "summary/all") / "agent" / "asked.txt").read_text()
    assert asked.startswith("Summarise.\n\nThe reports of 2 steps, as JSON:\n")
    given = json.loads(asked.split("as JSON:\n")[1])
    assert [each["job_id"] for each in given] == ["part-01", "part-02"]
    assert given[0]["report"]["summary"].startswith("Heard: Review part 1")


@pytest.mark.codex
def test_chains_and_branches(root, tmp_path):
    ctx, batch_id = submitted(root, "chains.yaml")
    with serving(tmp_path / "model", said("Done.")) as model:
        drive(root, model.url)
        requests = [entry["body"] for entry in model.requests()]
    assert {key: found for key, found in states(ctx, batch_id).items() if found != ["succeeded"]} == {}
    threads = {
        step: report(ctx, batch_id, step)["agent"]["thread_id"]
        for step in ("design/plan", "design/refine", "design/finish", "design/doubt", "elsewhere/port")
    }
    assert len(set(threads.values())) == 1
    heard = [json.dumps(body) for body in requests]
    finish = next(text for text in heard if "Finish the plan." in text)
    assert "marigold" in finish
    assert "Refine the plan." in finish
    doubt = next(text for text in heard if "what may go wrong" in text)
    assert "marigold" in doubt
    assert "Refine the plan." not in doubt
    assert verify.verify(ctx.layout).problems == []


@pytest.mark.codex
def test_a_conversation_goes_on_after_the_store_was_moved(root, tmp_path):
    changes = [f"jobs.design.steps.{step}.gate=human" for step in ("refine", "doubt")]
    ctx, batch_id = submitted(root, "chains.yaml", *changes)
    with serving(tmp_path / "model", said("Done.")) as model:
        drive(root, model.url)
        there = root.rename(tmp_path / "elsewhere")
        program(there, "approve", f"{batch_id}/design", env=provider(model.url))
        drive(there, model.url)
    moved = open_context(there)
    assert states(moved, batch_id)["design/finish"] == ["succeeded"]
    threads = {report(moved, batch_id, f"design/{s}")["agent"]["thread_id"] for s in ("plan", "finish", "doubt")}
    assert len(threads) == 1
    assert verify.verify(moved.layout).problems == []
    assert not ctx.layout.root.exists()


@pytest.mark.codex
def test_eight_jobs_edit_the_same_file(root, tmp_path):
    subprocess.run(["sh", EXAMPLES / "make_repository.sh", root / "repository"], check=True)
    ctx, batch_id = submitted(root, "isolated.yaml")
    words = [job["labels"]["word"] for job in yaml.safe_load((EXAMPLES / "isolated.yaml").read_text())["jobs"]]
    when = {f"the word {word}.": [run(f"echo {word} >> NOTES.md"), said("Appended.")] for word in words}
    with serving(tmp_path / "model", said("?"), when=when) as model:
        drive(root, model.url)
    assert set(map(tuple, states(ctx, batch_id).values())) == {("succeeded",)}
    for number, word in ((1, words[0]), (8, words[7])):
        edit = f"{batch_id}/edit-{number}"
        changed = [line for line in program(root, "diff", edit).stdout.splitlines() if line[0] in "+-"]
        assert [line for line in changed if line[:3] not in ("+++", "---")] == [f"+{word}"]
        told = program(root, "tail", edit).stdout.splitlines()
        assert any(f"echo {word} >> NOTES.md" in line for line in told)
        assert program(root, "artifact", edit, "notes").stdout == f"# Notes\n{word}\n"
    assert (root / "repository" / "NOTES.md").read_text() == "# Notes\n"
    listed = subprocess.run(["git", "worktree", "list"], cwd=root / "repository", capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


@pytest.mark.codex
def test_a_critic_loop_and_its_gate(root, tmp_path):
    ctx, batch_id = submitted(root, "critic_loop.yaml")
    when = {
        "The name is: Quill": [said("ACCEPT: short and clear.")],
        "The name is: Q": [said("REJECT: too short.")],
        "The critic said: REJECT": [said("Quill")],
        "Propose a name": [said("Q")],
        "Announce the name: Quill": [said("Announced.")],
    }
    with serving(tmp_path / "model", said("?"), when=when) as model:
        drive(root, model.url)
        assert states(ctx, batch_id) == {"name/solve": ["succeeded"] * 2, "name/judge": ["succeeded"] * 2}
        first, second = sorted(ctx.layout.step(batch_id, "name", "solve").glob("attempts/*"))
        asked = (second / "agent" / "asked.txt").read_text()
        assert "The critic said: REJECT: too short." in asked
        assert "critic said" not in (first / "agent" / "asked.txt").read_text()
        threads = {read(folder / "final.json")["agent"]["thread_id"] for folder in (first, second)}
        assert len(threads) == 1
        program(root, "approve", f"{batch_id}/name/announce", env=provider(model.url))
        drive(root, model.url)
    assert report(ctx, batch_id, "name/announce")["summary"] == "Announced."
    assert verify.verify(ctx.layout).problems == []
