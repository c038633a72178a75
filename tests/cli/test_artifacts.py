"""``artifact``, ``tail``, ``diff``, ``open``, ``feedback``: what attempts have left, by the names that a user knows."""

import json
import sys

import pytest
from stores import CHECKOUT, context, job, program, put, shell, started, table, wait_for

AGENT = {
    "name": "parrot",
    "command": [
        sys.executable,
        str(CHECKOUT / "tests" / "support" / "agent_program.py"),
        "{prompt_file}",
        "{output_file}",
    ],
}


@pytest.fixture
def ran(root):
    """A store with one batch of agent steps that has run; its id."""
    ctx = context(root)
    work = root / "work"
    (work / "out").mkdir(parents=True)
    (work / "out" / "a.txt").write_text("first\n")
    (work / "out" / "b.txt").write_text("second\n")
    (work / "notes.md").write_text("# Notes\n")
    wanted = ["notes.md", {"name": "texts", "glob": "out/*.txt"}]
    said = "SAY\nDone.\n- **PROMPT_AMBIGUITY:** which port?\nMISSING_INPUT: the key\nMISSING_INPUT: the key\nHINT: none"
    batch_id = put(
        ctx,
        table(
            job("j", {"step_id": "s", "prompt": said, "artifacts_expected": wanted}),
            job("k", {"step_id": "s", "prompt": "SAY\nPROMPT_DELTA: say which file"}, shell("c", "seq 30")),
            agent=AGENT,
            working_directory=str(work),
        ),
    )
    program(root, "tick", "--until-idle", "--fail-on", "never")
    return root, batch_id


def test_artifacts_by_their_names(ran):
    root, batch_id = ran
    listed = json.loads(program(root, "artifact", f"{batch_id}/j", "--json").stdout)
    assert [(file["name"], file["size"]) for file in listed["files"]] == [("notes.md", 8), ("texts", 6), ("texts", 7)]
    assert "notes.md\t8 B\tagent/artifacts/notes.md/notes.md" in program(root, "artifact", f"{batch_id}/j").stdout
    assert program(root, "artifact", f"{batch_id}/j/s", "notes.md").stdout == "# Notes\n"
    assert program(root, "artifact", f"{batch_id}/j/s", "b.txt").stdout == "second\n"
    assert json.loads(program(root, "artifact", f"{batch_id}/j", "meta.json").stdout)["job_id"] == "j"
    path = program(root, "artifact", f"{batch_id}/j", "a.txt", "--path").stdout.strip()
    assert path.endswith("agent/artifacts/texts/out/a.txt")
    assert program(root, "artifact", f"{batch_id}/k/c").stderr.endswith("has left no artifacts\n")


def test_a_missing_artifact_of_a_running_attempt_may_still_come(root):
    put(context(root), table(job("j", shell("s", "exec sleep 60"))))
    program(root, "tick")
    refused = program(root, "artifact", "latest", "final.json", check=False)
    assert refused.stderr.endswith("it has none; it has not ended yet\n")
    program(root, "cancel", "latest")
    program(root, "tick", "--until-idle", "--fail-on", "never")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["artifact", "latest/j", "texts"], "texts is 2 files"),
        (["artifact", "latest/j", "note.md"], "did you mean notes.md?"),
        (["artifact", "latest/j", "../../../../job.json"], "has no artifact"),
        (["artifact", "latest/jj", "x"], "has no job jj"),
        (["tail", "latest/j/x"], "has no step x"),
        (["diff", "nothing"], "no batch nothing"),
        (["open", "latest/j/s/9"], "has no attempt 9"),
        (["feedback", "lates"], "no batch lates"),
        (["report", "latest/j/x"], "has no step x"),
    ],
)
def test_refusals_are_one_line(ran, arguments, message):
    done = program(ran[0], *arguments, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_link_is_not_followed_out_of_the_attempt(ran):
    root, batch_id = ran
    (secret,) = root.glob("parallelhassnes.toml")
    (folder,) = (root / "runs" / batch_id).glob("j/steps/s/attempts/*/agent/artifacts/texts")
    (folder / "link").symlink_to(secret)
    done = program(root, "artifact", f"{batch_id}/j", "link", check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_last_lines(ran):
    root, batch_id = ran
    shown = program(root, "tail", f"{batch_id}/k/c", "-n", "3").stdout
    assert shown.split() == ["28", "29", "30"]
    assert json.loads(program(root, "tail", f"{batch_id}/k/c", "-n", "1", "--json").stdout)["lines"] == ["30"]


def test_following_ends_with_the_attempt(root):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", f"echo one; until [ -e {root}/go ]; do sleep 0.05; done; echo two"))))
    program(root, "tick")
    wait_for(lambda: list(root.glob(f"runs/{batch_id}/j/steps/s/attempts/*/stdout.log")), "the attempt")
    following = started(root, "tail", batch_id, "--follow")
    first = following.stdout.readline()
    (root / "go").touch()
    rest, err = following.communicate(timeout=100)
    assert (first, rest, err) == ("one\n", "two\n", "")


def test_a_shared_workspace_has_no_patch(ran):
    root, batch_id = ran
    done = program(root, "diff", f"{batch_id}/j")
    assert (done.stdout, "no isolated workspace" in done.stderr) == ("", True)
    assert json.loads(program(root, "diff", f"{batch_id}/j", "--json").stdout)["patch"] is None


def test_the_folder(ran):
    root, batch_id = ran
    assert program(root, "open", batch_id).stdout.strip() == str(root / "runs" / batch_id)
    assert json.loads(program(root, "open", f"{batch_id}/j/s/1", "--json").stdout)["path"].count("attempts") == 1


def test_feedback_is_gathered_over_a_batch(ran):
    root, batch_id = ran
    found = json.loads(program(root, "feedback", batch_id, "--json").stdout)
    assert found["attempts"] == 2
    assert [(line["marker"], line["text"], line["step"], line["number"]) for line in found["lines"]] == [
        ("PROMPT_AMBIGUITY", "which port?", "j/s", 1),
        ("MISSING_INPUT", "the key", "j/s", 1),
        ("PROMPT_DELTA", "say which file", "k/s", 1),
    ]
    shown = program(root, "feedback", "latest").stdout
    assert "MISSING_INPUT (1)\n  j/s #1: the key\n" in shown
    only = json.loads(program(root, "feedback", "latest", "--marker", "HINT:", "--json").stdout)
    assert [line["text"] for line in only["lines"]] == ["none"]
    with (root / "parallelhassnes.toml").open("a") as stream:
        stream.write('feedback_markers = ["HINT"]\n')
    assert json.loads(program(root, "feedback", "latest", "--json").stdout)["markers"] == ["HINT"]


def test_the_report_of_a_step_is_readable(ran):
    root, batch_id = ran
    shown = program(root, "report", f"{batch_id}/j/s").stdout
    assert "Done." in shown
    assert "succeeded" in shown
    assert "notes.md" in shown
    assert json.loads(program(root, "report", f"{batch_id}/j/s", "--json").stdout)["report"]["status"] == "succeeded"
