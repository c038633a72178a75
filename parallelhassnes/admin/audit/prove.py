"""``audit prove``: one file that shows one number to somebody who has neither the store nor this program.

    {"schema_version": 1,
     "claim":      {"batch_id", "what", "agent", "value", "planned", "scored", "decided", "passes", "attempts", "tasks", "left_out"},
     "checkpoint": "<the text of a checkpoint that names the batch's ledger as it is>", "signature": "<the text of its .sig>",
     "ledger":     ["<each line of the batch's ledger>", …],
     "reports":    {"<run_id>": {"report": "<final.json>", "facts": <what the seal says of it>, "path": ["L<hash>", …]}}}

The ledger has every attempt, so none can be left out; of the attempts only the reports of those that succeeded are in it: no
prompt, no log. ``verify_claim.py`` checks it with Python and ssh-keygen alone; the number is counted by the same function here.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from parallelhassnes import names, places
from parallelhassnes.admin.audit import verify_claim
from parallelhassnes.admin.audit.make_checkpoint import checkpoint
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.formatting import counted
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.trial_data import facts as trial_facts
from parallelhassnes.store import atomic, attempts, batches
from parallelhassnes.store.evidence import checkpoints, ledger, merkle
from parallelhassnes.store.evidence.checkpoints import SIGNATURE
from parallelhassnes.store.layout import Layout


class Proof(BaseModel):
    """What was proven, and where the proof lies."""

    ok: bool = True
    path: str
    claim: dict[str, Any]
    checkpoint_sha256: str
    """To be published where ``--signers`` is not used."""
    signed: bool
    line: str


def prove(ctx: Context, batch_id: str, text: str, out: Path, verifier: Path | None = None) -> Proof:
    """Write the proof of a claim about a batch; makes a checkpoint where none names its ledger as it is.

    Raises:
        UserError: the claim is none, the batch was begun by an earlier version, or a file of it is not what was sealed.
    """
    what, _, agent_text = text.partition(" of ")
    if what not in verify_claim.CLAIMS or not agent_text:
        raise UserError(f"--claim {text!r}: is not a claim", fix='write "pass rate of AGENT" or "mean reward of AGENT"')
    batch_dir = ctx.layout.batch(batch_id)
    path = _checkpoint(ctx, batch_id)
    head = checkpoints.read(path).batches[batch_id]
    texts = _texts(batch_dir)[: head.lines]
    lines: list[dict[str, Any]] = verify_claim.chain(texts, head.model_dump())
    if lines[0].get("audit", 1) < ledger.RULES:
        raise UserError(
            f"{batch_id} was begun by an earlier version: its ledger does not say whose trials it has",
            fix="rerun it with this one",
        )
    agent = _agent(lines, agent_text, batch_id)
    ended = verify_claim.ends(lines, agent)
    parts = {line["run_id"]: _part(batch_dir, line) for line in ended if line["status"] == "succeeded"}
    reports = {run_id: json.loads(part["report"]) for run_id, part in parts.items()}
    left_out = _left_out(batch_dir, ended, reports)
    claim = verify_claim.count(lines, reports, what, agent, left_out)
    document: dict[str, Any] = {
        "schema_version": 1,
        "claim": {"batch_id": batch_id, **claim},
        "checkpoint": path.read_text("utf-8"),
        "signature": _signature(path),
        "ledger": texts,
        "reports": parts,
    }
    out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    if verifier is not None:
        verifier.write_bytes(Path(verify_claim.__file__).read_bytes())
    digest, signed = checkpoints.digest(path), document["signature"] is not None
    number = f"{claim['passes']} of {claim['scored']} scored trials passed, {claim['planned']} planned"
    return Proof(
        path=str(out),
        claim=document["claim"],
        checkpoint_sha256=digest,
        signed=signed,
        line=f"{out}: {text} is {claim['value']} ({number}); checkpoint {path.stem}, "
        f"{'signed' if signed else 'not signed'}, sha256:{digest}",
    )


def _checkpoint(ctx: Context, batch_id: str) -> Path:
    """Return the newest checkpoint that names the batch's ledger as it is; a new one where there is no such checkpoint."""
    now = ledger.head(ctx.layout.batch(batch_id))
    path = _naming(ctx.layout, batch_id, now.head)
    if path is None:
        checkpoint(ctx)
        path = _naming(ctx.layout, batch_id, ledger.head(ctx.layout.batch(batch_id)).head)
    if path is None:  # it goes on meanwhile
        raise UserError(f"the ledger of {batch_id} grows while we look", fix="prove it once the batch has ended")
    return path


def _naming(layout: Layout, batch_id: str, head: str) -> Path | None:
    for number in reversed(checkpoints.numbers(layout)):
        path = checkpoints.place(layout, number)
        known = checkpoints.read(path).batches.get(batch_id)
        if known is not None:
            return path if known.head == head else None
    return None


def _texts(batch_dir: Path) -> list[str]:
    """Return the whole lines of the ledger."""
    text = (batch_dir / ledger.LEDGER).read_bytes().decode("utf-8", "surrogateescape")
    return text.split("\n")[:-1]


def _agent(lines: list[dict[str, Any]], text: str, batch_id: str) -> str:
    """Return the column that is meant: its whole name, or the agent's alone where only one has it."""
    known: set[str] = {name for line in lines for name in (line.get("trials") or {})}
    if text in known:
        return text
    fitting = [name for name in known if name.split(" · ")[0] == text]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"{text} is {counted(len(fitting), 'agent')} of {batch_id}", fix=f"name one: {', '.join(sorted(fitting))}"
        )
    fix = names.suggestion(text, sorted(known), "there are")
    raise UnknownId(f"{batch_id} has no trials of an agent {text}", fix=fix)


def _part(batch_dir: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Return the report of an attempt, with what leads from it to the root in the ledger's line."""
    folder = batch_dir / str(places.of_line(line))
    try:
        files = json.loads(atomic.read_bytes(folder / attempts.SEAL))["files"]
        report = atomic.read_bytes(folder / attempts.FINAL).decode()
        part = {"report": report, "facts": files[attempts.FINAL], "path": merkle.path(files, attempts.FINAL)}
        verify_claim.opened(part, line)
    except (OSError, ValueError, KeyError, TypeError, verify_claim.Fails) as error:
        raise UserError(
            f"{folder}: is not as it was sealed ({error})", fix="see parallelhassnes audit verify"
        ) from None
    return part


def _left_out(batch_dir: Path, ended: list[dict[str, Any]], reports: dict[str, Any]) -> dict[str, str]:
    """Return the attempts with a reward that do not count here, and why.

    Raises:
        UserError: a report alone, as of an earlier version, does not say whether its trial passed.
    """
    found = {}
    for line in ended:
        if (report := reports.get(line["run_id"])) is None:
            continue
        step = batches.read_job(batch_dir / line["job_id"]).step(line["step_id"])
        known = trial_facts.of_report(line["status"], report, step)
        alone = verify_claim.rewarded(report.get("trial") or {})
        if alone is not None and known.result == "infrastructure":
            found[line["attempt"]] = "its environment could not do what the task asks"
        elif alone is not None and known.result != "scored":
            found[line["attempt"]] = "its agent never spoke to its model"
        elif known.result == "scored" and alone != (known.reward, known.passed):
            raise UserError(
                f"{line['attempt']}: its report does not say what a pass is", fix="rerun it with this version"
            )
    return found


def _signature(path: Path) -> str | None:
    beside = path.with_name(path.name + SIGNATURE)
    return beside.read_text("ascii") if beside.exists() else None
