"""One number is proven to somebody who has neither the store nor the program, and nothing else is."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import TEMP, make_task
from stores import context, idle, program, put, read, table, wait_for

from parallelhassnes.admin.audit import verify_claim
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.evidence import checkpoints

pytestmark = pytest.mark.programs("ssh-keygen")
PYTHON = shutil.which("python3.11") or "/usr/bin/python3"
"""One that does not have the program, and is not the one that runs it."""


@pytest.fixture(scope="module")
def proof(tmp_path_factory) -> dict[str, Path]:
    """A batch of real trials, the proof of a pass rate of it, the script that checks it, and whose signature counts."""
    root, away = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("away")
    key, signers = tmp_path_factory.mktemp("keys") / "key", away / "allowed_signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().split()
    signers.write_text(f"ann@lab {public[0]} {public[1]}\n")
    ctx = context(root, f'[audit]\nkey = "{key}"\n')
    task = make_task(root, "hello")
    agents = [{"name": "oracle", "n_trials": 2}, {"name": "nop"}]
    batch = put(ctx, table(sweep={"path": str(task), "agents": agents, "environment": TEMP}))
    tick(ctx)
    wait_for(lambda: idle(ctx) and checkpoints.numbers(ctx.layout), "the batch", 100)
    said = program(
        root,
        "audit",
        "prove",
        "latest",
        "--claim",
        "pass rate of oracle",
        "--out",
        str(away / "proof.json"),
        "--verifier",
        str(away / "verify_claim.py"),
    ).stdout
    assert "pass rate of oracle is 1.0 (2 of 2 scored trials passed, 2 planned)" in said
    return {"root": root, "batch": ctx.layout.batch(batch), "away": away, "signers": signers}


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-I", "verify_claim.py", "proof.json", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        timeout=60,
    )


def test_a_stranger_checks_it_in_an_empty_folder(proof):
    done = check(proof["away"], "--signers", "allowed_signers")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pass rate of oracle" in done.stdout
    assert "2 of 2 scored trials passed; 2 were planned" in done.stdout
    assert "signed by ann@lab" in done.stdout
    digest = read(proof["away"] / "proof.json")["checkpoint"].encode()
    import hashlib

    sha = hashlib.sha256(digest).hexdigest()
    assert check(proof["away"], "--checkpoint-sha256", sha).returncode == 0
    assert check(proof["away"], "--checkpoint-sha256", "0" * 64).returncode == 1
    assert check(proof["away"]).returncode == 2  # nobody stands for the checkpoint


def test_it_says_what_the_verdict_says_and_holds_no_log(proof):
    document = read(proof["away"] / "proof.json")
    verdict = read(next(proof["batch"].glob("*/verdict.json")))
    oracle = next(each for each in verdict["agents"] if each["agent"] == "oracle")
    claim = document["claim"]
    assert (claim["value"], claim["scored"], claim["passes"]) == (
        oracle["pass_rate"],
        oracle["scored"],
        oracle["passes"],
    )
    assert set(document["reports"]) == {
        line["run_id"] for line in map(json.loads, document["ledger"]) if line.get("label") == "oracle"
    }
    assert "Make /app/out" not in json.dumps(document)
    out = proof["away"].parent / "nop.json"
    program(proof["root"], "audit", "prove", "latest", "--claim", "mean reward of nop", "--out", str(out))
    assert read(out)["claim"]["value"] == 0.0
    said = program(proof["root"], "audit", "prove", "latest", "--claim", "pass rate of orcale", check=False)
    assert "did you mean oracle?" in said.stderr


def line_of(document: dict, event: str) -> int:
    return next(n for n, text in enumerate(document["ledger"]) if f'"event":"{event}"' in text)


def other_number(document):
    document["claim"]["value"] = 0.5


def other_report(document):
    part = next(iter(document["reports"].values()))
    part["report"] = part["report"].replace('"reward":1', '"reward":0')


def other_seal(document):
    import hashlib

    other_report(document)
    part = next(iter(document["reports"].values()))
    data = part["report"].encode()
    part["facts"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def no_report(document):
    document["reports"].popitem()


def attempt_left_out(document):
    del document["ledger"][line_of(document, "launched")]


def other_plan(document):
    place = line_of(document, "submitted")
    document["ledger"][place] = document["ledger"][place].replace('"oracle":2', '"oracle":9')


def other_checkpoint(document):
    document["checkpoint"] = document["checkpoint"].replace('"lines":', '"lines":1')


def other_agent(document):
    document["claim"]["agent"] = "nop"


CHANGES = {
    other_number: "value is 1.0, and 0.5 was claimed",
    other_report: "has been changed",
    other_seal: "is not the one that was sealed",
    no_report: "is missing",
    attempt_left_out: "does not follow",
    other_plan: "does not follow",
    other_checkpoint: "is signed by nobody",
    other_agent: "is missing",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_was_changed_does_not_hold(proof, change, tmp_path):
    for name in ("verify_claim.py", "allowed_signers"):
        shutil.copyfile(proof["away"] / name, tmp_path / name)
    document = read(proof["away"] / "proof.json")
    change(document)
    (tmp_path / "proof.json").write_text(json.dumps(document))
    done = check(tmp_path, "--signers", "allowed_signers")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("does NOT hold: ")
    assert CHANGES[change] in done.stdout


def test_the_script_is_short_and_needs_nothing():
    text = Path(verify_claim.__file__).read_text()
    assert len(text.splitlines()) <= 250
    assert "parallelhassnes." not in "".join(line for line in text.splitlines() if "import" in line)
