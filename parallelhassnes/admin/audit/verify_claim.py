"""Check a number of a ParallelHassnes batch on a machine that has neither its store nor the program.

    python3 -I verify_claim.py PROOF.json --signers allowed_signers
    python3 -I verify_claim.py PROOF.json --checkpoint-sha256 HEX

PROOF.json is what ``parallelhassnes audit prove`` wrote. Needs Python 3.8 or later, and ssh-keygen for ``--signers``. The following is checked:
1. the checkpoint: signed by somebody in OpenSSH's ``allowed_signers``, or the one whose SHA-256 you were given another way;
2. the batch's ledger, line by line: it is the one that the checkpoint names, and has every attempt that was started;
3. each report that counts: its hash leads to the Merkle root (RFC 6962) in the ledger's line of the attempt's end;
4. the number: it follows from them. That the reports are true is not shown; they are what the harness wrote at the time.
Exit code: 0 the claim holds, 1 the claim is wrong, 2 the check could not be made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NAMESPACE = "checkpoint@parallelhassnes"
REPORT = "final.json"
TOLERANCE = 1e-9  # relative: what summing tenths loses
CLAIMS = ("pass rate", "mean reward")


class Fails(Exception):
    """The claim does not hold, and why."""


def main(arguments: Sequence[str]) -> int:
    """Check a proof; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("proof")
    parser.add_argument("--signers", metavar="FILE", help="OpenSSH's allowed_signers")
    parser.add_argument("--checkpoint-sha256", metavar="HEX", help="of the checkpoint, as published")
    asked = parser.parse_args(arguments)
    if not (asked.signers or asked.checkpoint_sha256):
        parser.error("give --signers FILE, or --checkpoint-sha256 HEX of a checkpoint that you trust")
    try:
        proof = json.loads(Path(asked.proof).read_text("utf-8"))
    except (OSError, ValueError) as error:
        print(f"cannot be checked: {asked.proof}: {error}")
        return 2
    try:
        said = trusted(proof, asked.signers, asked.checkpoint_sha256)
        found = follows(proof)
    except OSError as error:
        print(f"cannot be checked: {error.filename}: {error.strerror}")
        return 2
    except (Fails, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = str(error) if isinstance(error, Fails) else f"the proof is not whole: {error!r}"
        print(f"does NOT hold: {what}")
        return 1
    print(f"{found['what']} of {found['agent']} in {found['batch_id']}: {found['value']}")
    print(f"  {found['passes']} of {found['scored']} scored trials passed; {found['planned']} were planned")
    print(f"  without a score: {found['planned'] - found['scored']}; attempts started: {found['attempts']}")
    for name, why in sorted(found["left_out"].items()):
        print(f"  has a reward, and is left out: {name}: {why}")
    for task, digest in sorted(found["tasks"].items()):
        print(f"  task {task} {digest}")
    print(f"holds: {said}")
    return 0


def trusted(proof: dict[str, Any], signers: str | None, published: str | None) -> str:
    """Tell who stands for the checkpoint, in words."""
    text = proof["checkpoint"].encode()
    digest = hashlib.sha256(text).hexdigest()
    said = []
    if published:
        if digest != published.lower().replace("sha256:", ""):
            raise Fails(f"the checkpoint is sha256:{digest}, not the one that was published")
        said.append(f"the checkpoint is sha256:{digest}")
    if signers:
        said.append(f"the checkpoint was signed by {signer(text, proof.get('signature') or '', signers)}")
    at = json.loads(text)["at"]
    return f"{' and '.join(said)}, at {at}"


def signer(text: bytes, signature: str, signers: str) -> str:
    """Tell who in ``allowed_signers`` has signed the text."""
    if not Path(signers).is_file():
        raise FileNotFoundError(2, os.strerror(2), signers)
    with tempfile.TemporaryDirectory() as folder:
        beside = str(Path(folder, "checkpoint.sig"))
        Path(beside).write_text(signature, "ascii")
        ask = ["ssh-keygen", "-Y", "find-principals", "-f", signers, "-s", beside]
        names = subprocess.run(ask, capture_output=True, check=False).stdout.decode().split()
        for name in names:
            ask = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", name, "-n", NAMESPACE, "-s", beside]
            if subprocess.run(ask, input=text, capture_output=True, check=False).returncode == 0:
                return name
    raise Fails("the checkpoint is signed by nobody in " + signers)


def follows(proof: dict[str, Any]) -> dict[str, Any]:
    """Return the claim, made again from what the proof holds."""
    claim, head = (proof["claim"], json.loads(proof["checkpoint"])["batches"][proof["claim"]["batch_id"]])
    lines = chain(proof["ledger"], head)
    reports = {}
    for line in ends(lines, claim["agent"]):
        if line["status"] == "succeeded":
            if line["run_id"] not in proof["reports"]:
                raise Fails(f"the report of attempt {line['attempt']} is missing")
            reports[line["run_id"]] = opened(proof["reports"][line["run_id"]], line)
    found = count(lines, reports, claim["what"], claim["agent"], claim["left_out"])
    for key, value in found.items():
        if claim.get(key) != value:
            raise Fails(f"{key} is {value}, and {claim.get(key)} was claimed")
    return dict(found, batch_id=claim["batch_id"])


def chain(texts: Sequence[str], head: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a ledger that ends where the checkpoint says."""
    prev, found = "", []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:  # cut by a crash; the next line holds its hash
            line = None
        if isinstance(line, dict):
            if line.get("prev") != prev:
                raise Fails(f"line {number} of the ledger does not follow the one before it")
            found.append(line)
        prev = hashlib.sha256(text.encode("utf-8")).hexdigest()
    if (len(texts), prev) != (head["lines"], head["head"]):
        raise Fails("the ledger is not the one that the checkpoint names")
    return found


def ends(lines: Sequence[dict[str, Any]], agent: str) -> list[dict[str, Any]]:
    """Return the lines of the ends of an agent's attempts, and of those that were taken over from another batch."""
    mine = {line["run_id"] for line in lines if line["event"] in ("launched", "carried") and line.get("label") == agent}
    return [line for line in lines if line["event"] in ("ended", "carried") and line["run_id"] in mine]


def opened(part: dict[str, Any], line: dict[str, Any]) -> Any:
    """Return the report of an attempt, once it is shown to be the one that was sealed."""
    data, facts = part["report"].encode("utf-8"), part["facts"]
    if facts.get("sha256") != hashlib.sha256(data).hexdigest():
        raise Fails(f"the report of attempt {line['attempt']} has been changed")
    leaf = json.dumps([REPORT, facts], sort_keys=True, separators=(",", ":")).encode()
    node = hashlib.sha256(b"\0" + leaf).digest()
    for step in part["path"]:
        other = bytes.fromhex(step[1:])
        node = hashlib.sha256(b"\1" + (other + node if step[0] == "L" else node + other)).digest()
    if node.hex() != line["merkle_root"]:
        raise Fails(f"the report of attempt {line['attempt']} is not the one that was sealed")
    return json.loads(data)


def count(
    lines: Sequence[dict[str, Any]], reports: dict[str, Any], what: str, agent: str, left_out: dict[str, str]
) -> dict[str, Any]:
    """Return the number, and what it rests on: of each trial the newest scored attempt counts.

    ``left_out`` are attempts with a reward that the harness does not count, and why; they are printed.
    """
    if what not in CLAIMS:
        raise Fails(f"there is no claim {what}")
    planned = sum((line.get("trials") or {}).get(agent, 0) for line in unrepeated(lines))
    kinds = ("launched", "carried")
    started = [line for line in lines if line["event"] in kinds and line.get("label") == agent]
    counted = {}
    for line in sorted(ends(lines, agent), key=lambda line: line["attempt"]):
        found = rewarded((reports.get(line["run_id"]) or {}).get("trial") or {})
        if line["status"] == "succeeded" and found and line["attempt"] not in left_out:
            counted[line["job_id"], line["step_id"]] = found
    values = [passed if what == "pass rate" else reward for reward, passed in counted.values()]
    known = [float(value) for value in values if value is not None]
    return {
        "what": what,
        "agent": agent,
        "planned": planned,
        "scored": len(counted),
        "decided": len(known),
        "passes": sum(passed is True for _, passed in counted.values()),
        "value": math.fsum(known) / len(known) if known else None,
        "attempts": len({line["run_id"] for line in started}),
        "left_out": left_out,
        "tasks": {line["task"]: line.get("task_sha256", "") for line in started if line.get("task")},
    }


def unrepeated(lines: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return the lines that plan trials; one that a crash had written twice counts once, the last time."""
    found = {}
    for line in lines:
        if line["event"] in ("submitted", "added"):
            found[line.get("job_id"), line.get("file")] = line
    return found.values()


def rewarded(trial: dict[str, Any]) -> tuple[float | None, bool | None] | None:
    """Return the main reward and whether it passed, each None where that is undecided; None where there is no reward at all."""
    found: Any = trial.get("rewards") if "rewards" in trial else {"reward": trial.get("reward")}
    if not found or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in found.values()):
        return None
    rule = trial.get("pass_rule") or {}
    name = rule.get("reward") or ("reward" if "reward" in found or len(found) > 1 else next(iter(found)))
    if name not in found:
        return None, None
    reward, limit = float(found[name]), rule.get("at_least", 1.0)
    return reward, reward >= limit - TOLERANCE * abs(limit)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
