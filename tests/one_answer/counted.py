"""An independent count, straight from the files of the attempts: nothing of the project is asked."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Trials:
    """The trials of an agent."""

    n: int = 0
    scored: int = 0
    undecided: int = 0
    called_off: int = 0
    """Ended by a cancel, or canceled or skipped before any attempt."""
    missing: int = 0
    passes: int = 0
    rewards: list[float] = field(default_factory=list)
    """Main rewards."""
    superseded: int = 0
    cost: float = 0.0
    priced: int = 0
    """Attempts that say what they have cost."""
    input: int = 0
    output: int = 0


@dataclass
class Batch:
    """What a batch's files say."""

    steps: int = 0
    running: int = 0
    ended: int = 0
    """Attempts that have ended in this batch."""
    agents: dict[str, Trials] = field(default_factory=dict)
    skipped: int = 0
    cost: float = 0.0
    """Of all ended attempts that this batch has paid for."""
    newest: Counter[str] = field(default_factory=Counter)
    """Status of the newest attempt of a step, where it has ended → steps."""


def count(batch_dir: Path) -> Batch:
    """Count one batch."""
    found = Batch()
    carried = {
        event["attempt"]
        for event in map(json.loads, (batch_dir / "ledger.jsonl").read_text().splitlines())
        if event["event"] == "carried"
    }
    for job_file in sorted(batch_dir.glob("*/job.json")):
        job_dir = job_file.parent
        steps = list(_json(job_file)["steps"])
        for more in sorted(job_dir.glob("additions/*.json")):
            steps += _json(more)["steps"]
        said = _json(job_dir / "overrides.json")
        everything = bool(_json(batch_dir / "control.json").get("canceled"))
        for step in steps:
            found.steps += 1
            folders = sorted((job_dir / "steps" / step["step_id"] / "attempts").glob("[!.]*"))
            over = [folder for folder in folders if (folder / "seal.json").exists()]
            found.running += len(folders) - len(over)
            found.ended += sum(folder.name not in carried for folder in over)
            if folders and folders[-1] in over:
                found.newest[_json(folders[-1] / "final.json")["status"]] += 1
            if step["kind"] == "trial":
                skipped = not over and bool(said.get("enough", {}).get(step["step_id"]))
                found.skipped += skipped and not folders
                own = found.agents.setdefault(step["label"].rpartition(":")[2], Trials())
                off = everything or step["step_id"] in said.get("canceled", {})
                own.called_off += off and not folders
                own.missing += not over and not (off and not folders)
                found.cost += _count(own, step, over, carried)
    return found


def _count(to: Trials, step: dict[str, Any], over: list[Path], carried: set[str]) -> float:
    """Add one trial; what it has cost in this batch."""
    to.n += 1
    paid = 0.0
    scored: list[dict[str, float]] = []
    for folder in over:
        result = _json(folder / "trial" / "result.json")
        usage = result.get("agent_result") or {}
        if not any(value is not None for value in usage.values()):
            usage = {}
            for part in result.get("step_results") or ():
                for name, value in (part.get("agent_result") or {}).items():
                    usage[name] = usage.get(name, 0) + (value or 0)
        to.input += usage.get("n_input_tokens") or 0
        to.output += usage.get("n_output_tokens") or 0
        price = usage.get("cost_usd")
        if price is not None and price >= 0:
            to.cost += price
            to.priced += 1
            paid += 0 if folder.name in carried else price
        rewards = (result.get("verifier_result") or {}).get("rewards")
        if rewards and _json(folder / "final.json")["status"] == "succeeded" and not _silent(result):
            scored.append(rewards)
    to.superseded += max(0, len(over) - 1)
    ended = over and _json(over[-1] / "final.json")["status"] == "canceled"
    to.called_off += bool(ended and not scored)
    if scored:
        rewards = scored[-1]
        main = rewards.get("reward", next(iter(rewards.values())) if len(rewards) == 1 else None)
        to.scored += 1
        to.undecided += main is None
        if main is not None:
            to.passes += main >= 1
            to.rewards.append(main)
    return paid


def _silent(result: dict[str, Any]) -> bool:
    """A model was named and not spoken to, and the agent ended by an error."""
    usage = result.get("agent_result") or {}
    named = (result["agent_info"] or {}).get("model_info") is not None
    none = usage.get("n_input_tokens") == 0 and usage.get("n_output_tokens") == 0
    return named and none and "exception_info" in result


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found
