"""The whole prompt of an attempt, as text, with what other attempts give it: names for its templates, and reports.

Which attempts these are was decided at launch and stands in ``meta.json`` (``inputs``), so an attempt is given the same
whenever its prompt is put together.
"""

import json
from pathlib import Path
from typing import Any

from parallelhassnes import places
from parallelhassnes.errors import UserError
from parallelhassnes.formatting import counted
from parallelhassnes.plan import AgentPlan, StepSpec
from parallelhassnes.steps import final_report
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import attempts, batches

MAX_PROMPT = 16 << 20
"""Characters of a prompt once it is rendered."""


def whole(attempt: StepAttempt, plan: AgentPlan) -> str:
    """Return the pack's text, ``prompt`` or the text of ``prompt_ref``, ``append_prompt``, and what the step is given besides.

    Raises:
        UserError: a file cannot be read, or a template cannot be filled in.
    """
    texts = [_text(plan.pack_prompt, plan.pack_prompt_ref), _text(plan.prompt, plan.prompt_ref), plan.append_prompt]
    given = rest(attempt, texts if plan.templates else [])
    if plan.templates:
        texts = fill(attempt, texts)
    parts = [text.rstrip("\n") for text in (*texts, *given)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str, path: str) -> str:
    if not path:
        return text
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UserError(f"prompt_ref {path} cannot be read: {why}") from None


def repair(problems: list[str], schema: dict[str, Any]) -> str:
    """Tell what is said to an agent whose report was not valid."""
    shown = "\n".join(f"- {line}" for line in problems[:50])
    return (
        "Your last message is not the report that was asked for:\n"
        f"{shown}\n\n"
        "Answer with the report alone: one JSON document, without any other text, that fits this JSON Schema:\n"
        f"{json.dumps(schema)}\n"
    )


def fill(attempt: StepAttempt, texts: list[str]) -> list[str]:
    """Return the texts of a prompt with their templates filled in, and what they do not speak of after them.

    Raises:
        UserError: a text is no template, or names something unknown.
    """
    from jinja2 import TemplateError

    from parallelhassnes.tables.expanders import templates

    context = names(attempt)
    made = []
    for text in texts:
        try:
            made.append(templates.render(text, context) if templates.is_template(text) else text)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UserError(
                f"the prompt's template cannot be filled in: {' '.join(str(error).split())}",
                fix="correct the prompt, or ask with `is defined`",
            ) from None
    if sum(map(len, made)) > MAX_PROMPT:
        raise UserError(f"the prompt is longer than {MAX_PROMPT} characters once it is filled in")
    return made


def rest(attempt: StepAttempt, texts: list[str]) -> list[str]:
    """Tell what a step is given and its texts do not speak of: the reports of a fan-in, a critic's report; as text.

    Args:
        texts: as they are in the table, before they are filled in.
    """
    from parallelhassnes.tables.expanders import templates

    given = []
    spoken = [path for text in texts if templates.is_template(text) for path in templates.look(text).paths]
    if attempt.step.spec.get("reports_of") and not any(path[0] == "reports" for path in spoken):
        found = names(attempt)["reports"]
        given.append(f"The reports of {counted(len(found), 'step')}, as JSON:\n{_json(found)}")
    critic = _critic(attempt)
    if critic is not None and not any(path[:2] == ("steps", critic) for path in spoken):
        report = names(attempt)["steps"].get(critic)
        if report is not None:
            given.append(f"Your work of the round before was judged. The judge's report, as JSON:\n{_json(report)}")
    return given


def names(attempt: StepAttempt) -> dict[str, Any]:
    """Return the names that templates may use, as ``tables.expanders.templates`` lists them."""
    job = batches.read_job(attempt.job_dir)
    batch_dir = attempt.job_dir.parent
    batch = batches.read_batch(batch_dir)
    inputs = attempts.read_meta(attempt.dir).inputs
    jobs: dict[str, dict[str, Any]] = {}
    for ref, name in inputs.items():
        job_id, step_id = places.step_key(ref)
        if job_id not in jobs:
            labels = batches.read_job(batch_dir / job_id).labels
            jobs[job_id] = {"labels": labels, "steps": {}}
        jobs[job_id]["steps"][step_id] = final_report.of(_folder(batch_dir, ref, name))
    reports = []
    for ref in attempt.step.spec.get("reports_of", ()):
        job_id, step_id = places.step_key(ref)
        if ref in inputs:
            own = jobs[job_id]
            about = {"job_id": job_id, "step_id": step_id, "labels": own["labels"]}
            reports.append({**about, **own["steps"][step_id]})
    return {
        "batch": {
            "batch_id": batch.batch_id,
            "experiment": batch.experiment,
            "goal": batch.goal,
            "labels": batch.labels,
        },
        "job": {"job_id": job.job_id, "labels": job.labels},
        "step": {"step_id": attempt.step.step_id},
        "steps": jobs.get(job.job_id, {}).get("steps", {}),
        "jobs": jobs,
        "reports": reports,
        "round": _round(attempt.job_dir, attempt.step, attempt.dir.name),
    }


def _folder(batch_dir: Path, ref: str, name: str) -> Path:
    return batch_dir / places.step_key(ref).attempt(name)


def _round(job_dir: Path, step: StepSpec, own: str) -> int:
    """Tell which round of its loop an attempt belongs to: one more than the critic has judged before it."""
    if step.loop is None:
        return 1
    step_dir = job_dir / "steps" / step.loop.critic
    judged = 0
    for name in attempts.names(step_dir):
        if name != own and attempts.is_sealed(step_dir / "attempts" / name):
            judged += attempts.read_state(step_dir / "attempts" / name).status == "succeeded"
    return judged + 1


def _critic(attempt: StepAttempt) -> str | None:
    """Return the critic of a solver; None of every other step."""
    loop = attempt.step.loop
    return loop.critic if loop is not None and loop.solver == attempt.step.step_id else None


def _json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1)
