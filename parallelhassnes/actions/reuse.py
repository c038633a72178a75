"""``--reuse``: trials of a new batch that another batch of the store has scored already, by the same content.

    the plan's trials, by what decides their outcome ──▶ scored attempts of the store with the same ──▶ ``carry`` of the submission, done at ingest

The same is: the task by its content hash, the agent with its arguments, model, settings and environment as Harbor's config has them, what a pass is, deadlines and
caps, and the step's environment variables. What is not known to be the same is not reused: an agent, an environment or a verifier of yours (its code may be another by
now), whatever is told by the path of a file (its text may be) or by a variable of this host that is no credential, a task without a hash, imported attempts and regrades, an attempt of another version of the agent than the newest that the store has seen, one whose caps an operator has ever changed, and one
whose files or seal are not what the ledger names. Each attempt is taken once, so repeats are as many different attempts; the newest first. The ledger of the
new batch names, in its lines ``carried``, where each comes from and the hash of its seal (``schedule.additions.carry_over``).
"""

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parallelhassnes import formatting, names
from parallelhassnes.execute.secret_forms import looks_secret
from parallelhassnes.plan import Plan, StepSpec, is_sandbox
from parallelhassnes.results import collect
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps import safe_read
from parallelhassnes.steps.trial import workspace
from parallelhassnes.steps.trial_data import rewards
from parallelhassnes.store import attempts, batches, members
from parallelhassnes.store.evidence import ledger, removals, seal
from parallelhassnes.views import batch_status

_MOST_NAMED = 5
_PATHS = re.compile(r"(^|_)(paths?|files?|dirs?|skills|mounts|load_trajectory|compose)$")
"""Names of settings that say where something is which may be another by now."""
_VARIABLE = re.compile(r"\$\{(\w+)")


class Reusable(NamedTuple):
    """A scored attempt of the store."""

    place: str
    """``batch_id/job_id/step_id/attempt``."""
    folder: Path
    version: str | None
    """Of its agent."""
    told: str | None
    """SHA-256 of its seal, by the ledger."""


def find(ctx: Context, plan: Plan) -> dict[str, str]:
    """Return ``job_id/step_id`` of the plan → the attempt that it need not make: ``batch_id/job_id/step_id/attempt``."""
    wanted: dict[str, list[tuple[str, StepSpec]]] = {}
    for job in plan.jobs:
        for step in job.steps:
            key = identity(step)
            if key is not None:
                wanted.setdefault(key, []).append((f"{job.job_id}/{step.step_id}", step))
    if not wanted:
        return {}
    found = _store(ctx, wanted)
    carry: dict[str, str] = {}
    for key, steps in wanted.items():
        there = iter(_trusted(found.get(key, [])))
        for place, step in steps:
            keeps = bool(step.spec.get("keep_workspace"))
            fit = next((each for each in there if not keeps or workspace.read(each.folder)[0]), None)
            if fit is None:
                break
            carry[place] = fit.place
    return carry


def said(carry: Mapping[str, str], plan: Plan) -> str:
    """Tell how many trials are reused, and from where, in a line."""
    trials = sum(step.kind == "trial" for job in plan.jobs for step in job.steps)
    if not carry:
        return f"nothing of the {formatting.counted(trials, 'trial')} is reused: no batch has scored the same"
    sources = Counter(place.partition("/")[0] for place in carry.values())
    where = ", ".join(f"{batch_id} ({count})" for batch_id, count in sources.most_common(_MOST_NAMED))
    return f"{len(carry)} of {formatting.counted(trials, 'trial')} reused, not run: from {where}{' …' if len(sources) > _MOST_NAMED else ''}"


def identity(step: StepSpec) -> str | None:
    """Return what decides the outcome of a trial, as one hash; None where that is not known, or it is no trial that could be reused."""
    spec, config = step.spec, dict(safe_read.mapping(step.spec.get("config")))
    checksum = spec.get("task_checksum")
    if step.kind != "trial" or not checksum or spec.get("regrade") or spec.get("source_key"):
        return None
    if spec.get("plugins"):  # they are to see each trial
        return None
    config.pop("task", None)
    environment = dict(safe_read.mapping(config.get("environment")))
    if is_sandbox(environment.get("import_path")):
        del environment["import_path"]
        environment["type"] = "sandbox"
    if _may_be_another([{**config, "environment": environment}, step.env]):
        return None
    decides = {
        "task": [spec.get("task_name"), checksum],
        "config": {**config, "environment": environment},
        "pass": rewards.said(rewards.rule_of(spec)),
        "env": step.env,
        "timeout_sec": step.timeout_sec,
        "caps": step.caps.model_dump(exclude_none=True) if step.caps else {},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _may_be_another(value: Any, name: str = "") -> bool:
    """Tell whether settings name something whose content they do not say: code, files of this host, or its variables."""
    if isinstance(value, Mapping):
        return any(_may_be_another(part, key) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return any(_may_be_another(part, name) for part in value) or bool(value and _PATHS.search(name))
    if not isinstance(value, str) or not value:
        return False
    if name == "import_path" or _PATHS.search(name) or (Path(value).is_absolute() and os.path.lexists(value)):
        return True
    return any(not looks_secret(variable) for variable in _VARIABLE.findall(value))


def _store(ctx: Context, wanted: Mapping[str, object]) -> dict[str, list[Reusable]]:
    """Return identity → the scored attempts of the store with it, newest batch first."""
    found: dict[str, list[Reusable]] = {}
    for batch_id in reversed(ctx.layout.batch_ids()):
        with members.apart(ctx.layout.batch(batch_id)):
            for key, each in _of_batch(ctx, batch_id, wanted):
                found.setdefault(key, []).append(each)
    return found


def _of_batch(ctx: Context, batch_id: str, wanted: Mapping[str, object]) -> Iterator[tuple[str, Reusable]]:
    batch_dir = ctx.layout.batch(batch_id)
    if batches.read_batch(batch_dir).imported is not None:
        return
    status, capped = batch_status.read_told(ctx.layout, batch_id), _capped_by_operators(batch_dir)
    seals, buried = ledger.seals(batch_dir), removals.of(batch_dir)
    gone: list[str] = []
    for job_id in status.jobs:
        with members.apart(batch_dir / job_id):
            job = batches.read_job(batch_dir / job_id)
            same = {step.step_id: key for step in job.steps if (key := identity(step)) in wanted and key is not None}
            trials = collect.of_job(status, job) if same else {}
            for step_id, key in same.items():
                facts = trials[step_id]
                if facts.result != "scored" or facts.attempt is None:
                    continue
                if capped & {batch_id, job_id, f"{job_id}/{step_id}"} or (facts.capped and not job.step(step_id).caps):
                    continue
                folder = batch_dir / job_id / facts.attempt
                if (stone := buried.get(f"{job_id}/{facts.attempt}")) is not None:
                    gone.append(stone.line)
                    continue
                told = seals.get(f"{job_id}/{facts.attempt}")
                yield key, Reusable(f"{batch_id}/{job_id}/{step_id}/{folder.name}", folder, facts.agent_version, told)
    if gone:
        members.say(f"{formatting.counted(len(gone), 'trial')} of {batch_id} that would be reused: {gone[0]}")


def _capped_by_operators(batch_dir: Path) -> set[str]:
    """Return what operators have set caps of, whether these still hold or not: the batch, ``job_id`` or ``job_id/step_id``."""
    return {str(event.get("target")) for _, event in ledger.read(batch_dir) if event.get("event") == "caps"}


def _trusted(found: list[Reusable]) -> Iterator[Reusable]:
    """Yield those of the newest version of the agent whose files are what their ledger and their seal say, each run once."""
    known: set[str] = set()
    for each in found:
        run_id = names.run_id_of(each.folder.name)
        if each.version == found[0].version and run_id not in known and _is_as_sealed(each):
            known.add(run_id)
            yield each


def _is_as_sealed(each: Reusable) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        meta = attempts.read_meta(each.folder)
        document: Mapping[str, Any] = safe_read.read_object(each.folder / attempts.SEAL) or {}
        files = safe_read.mapping(document.get("files"))
        return (
            not (meta.stand_in or meta.imported)
            and each.told is not None
            and seal.recorded(each.folder)["seal_sha256"] == each.told
            and seal.survey(each.folder, sync=False, like=files) == dict(files)
        )
    return False
