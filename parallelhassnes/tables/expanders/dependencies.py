"""What steps give to each other: fan-in, loops, and the steps that prompts speak of.

Done once all jobs are there. A fan-in becomes the list of the steps whose reports are given (``reports_of``); a loop
is written to both of its steps; and whatever a step is given by fan-in or names in its prompt it also waits for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes import places
from parallelhassnes.names import did_you_mean
from parallelhassnes.plan import Loop, StepSpec
from parallelhassnes.tables.expanders.expansion import Draft, Expansion
from parallelhassnes.tables.model import LoopPart, TableHead
from parallelhassnes.tables.parse.located_errors import pointer

if TYPE_CHECKING:
    from parallelhassnes.tables.expanders.templates import Looked

MAX_PROMPT_FILE = 16 << 20
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def loop_of(part: LoopPart, critic: str, at: str, context: Expansion) -> Loop:
    """Return the loop that a critic's step speaks of."""
    from parallelhassnes.tables.expanders.templates import expression_fault

    fault = expression_fault(part.until)
    if fault is not None:
        context.problems.add(at + "/loop/until", f"is no expression: {fault}", "write report.verdict == 'accept'")
    return Loop(solver=part.step_id, critic=critic, max_rounds=part.max_rounds, until=part.until)


def wire(drafts: list[Draft], head: TableHead, context: Expansion) -> list[Draft]:
    """Return the jobs with what their steps give to each other; everything wrong with that is reported."""
    if not any(_is_wired(step) for draft in drafts for step in draft.steps):
        return drafts
    return _Wiring(drafts, head, context).done()


def _is_wired(step: StepSpec) -> bool:
    return step.kind == "agent" or step.loop is not None


class _Wiring:
    def __init__(self, drafts: list[Draft], head: TableHead, context: Expansion) -> None:
        self.drafts, self.head, self.problems = drafts, head, context.problems
        self.jobs = {draft.job_id: draft for draft in drafts}
        self.partial = bool(context.problems)
        # Some steps could not be made, so that not to find one says nothing.
        self.loops: dict[str, Loop] = {}
        """``job_id/step_id`` of both steps of each loop."""

    def done(self) -> list[Draft]:
        for draft in self.drafts:
            for place, step in enumerate(draft.steps):
                if step.loop is not None:
                    self._loop(draft, step, _at(draft, place))
        made = []
        for draft in self.drafts:
            steps = [self._step(draft, step, _at(draft, place)) for place, step in enumerate(draft.steps)]
            made.append(draft._replace(steps=steps))
        return made

    def _loop(self, draft: Draft, critic: StepSpec, at: str) -> None:
        loop = critic.loop
        assert loop is not None  # noqa: S101 - it was asked for
        at += "/loop/step_id"
        solver = _named(draft, loop.solver)
        if loop.solver == loop.critic:
            self.problems.add(at, "is the step itself", "name the step that is judged")
        elif solver is None and self.partial:
            return
        elif solver is None:
            ids = [step.step_id for step in draft.steps]
            self.problems.unknown_value(at, f"step of job {draft.job_id}", loop.solver, ids)
        elif solver.kind not in ("agent", "command") or f"{draft.job_id}/{solver.step_id}" in self.loops:
            why = "is in another loop" if solver.kind in ("agent", "command") else f"is a {solver.kind}"
            self.problems.add(at, f"{loop.solver} {why}", "name an agent or command step in no other loop")
        else:
            for step_id in (loop.solver, loop.critic):
                self.loops[f"{draft.job_id}/{step_id}"] = loop

    def _step(self, draft: Draft, step: StepSpec, at: str) -> StepSpec:
        own = f"{draft.job_id}/{step.step_id}"
        waits = dict.fromkeys(step.depends_on)
        changed: dict[str, Any] = {}
        loop = self.loops.get(own)
        if loop is not None:
            changed["loop"] = loop
        if step.kind == "agent":
            spec = dict(step.spec)
            self._resume(draft, step, own, waits, at + "/resume_from/step_id")
            wanted = spec.pop("fan_in", None)
            if wanted is not None:
                spec["reports_of"] = self._fan_in(draft, wanted, at + "/fan_in")
                waits |= dict.fromkeys(spec["reports_of"])
            if spec.get("templates"):
                for place, text in _prompts(spec):
                    waits |= dict.fromkeys(self._named_in(draft, step, text, at + place))
            changed["spec"] = spec
        if loop is not None and step.step_id == loop.solver:
            waits.pop(f"{draft.job_id}/{loop.critic}", None)
        for wanted in [*waits]:  # what waits for a step in a loop waits for the end of the loop
            other = self.loops.get(wanted)
            if other is not None and other is not loop:
                job_id = places.step_key(wanted).job_id
                waits |= dict.fromkeys((f"{job_id}/{other.critic}", f"{job_id}/{other.solver}"))
        changed["depends_on"] = tuple(waits)
        return step.model_copy(update=changed)

    def _resume(self, draft: Draft, step: StepSpec, own: str, waits: dict[str, None], at: str) -> None:
        """Check whose conversation a step continues: another's of the same agent, or its own of the round before."""
        source = (step.spec.get("resume_from") or {}).get("step_id")
        if source is None:
            return
        ref = source if "/" in source else f"{draft.job_id}/{source}"
        job_id, step_id = places.step_key(ref)
        other = _named(self.jobs[job_id], step_id) if job_id in self.jobs else None
        if ref == own:
            waits.pop(ref, None)
            if ref not in self.loops:
                fix = "name another step; only one in a loop goes on from itself"
                self.problems.add(at, "is the step itself", fix)
        elif other is None:
            waits.pop(ref, None)
            if not self.partial:
                known = [f"{each.job_id}/{s.step_id}" for each in self.drafts for s in each.steps]
                known += [s.step_id for s in draft.steps]
                self.problems.unknown_value(at, "step to resume", source, known[-1000:])
        elif other.kind != "agent":
            self.problems.add(at, f"{source} is a {other.kind}", "name an agent step")
        elif other.spec.get("agent") != step.spec.get("agent"):
            names = [each.spec.get("agent", "codex") for each in (step, other)]
            line = f"{names[0]} cannot go on with a conversation of {names[1]}"
            self.problems.add(at, line, "name a step of the same agent")

    def _fan_in(self, draft: Draft, wanted: Mapping[str, Any], at: str) -> list[str]:
        labels, step_id = wanted["labels"], wanted["step_id"]
        fitting = [
            other
            for other in self.drafts
            if other is not draft and all(fnmatchcase(other.labels.get(k, "\0"), v) for k, v in labels.items())
        ]
        if not fitting and not self.partial:
            self._fits_nothing(draft, labels, at)
        found = []
        for other in fitting:
            step = other.steps[-1] if step_id is None and other.steps else _named(other, step_id)
            if step is not None:
                found.append(f"{other.job_id}/{step.step_id}")
        if fitting and not found and not self.partial:
            ids = {step.step_id for other in fitting for step in other.steps}
            self.problems.unknown_value(at + "/step_id", "step of those jobs", str(step_id), ids)
        return found

    def _fits_nothing(self, draft: Draft, labels: Mapping[str, str], at: str) -> None:
        others = [other for other in self.drafts if other is not draft]
        for name in labels:
            known = {key for other in others for key in other.labels}
            if name not in known:
                self.problems.unknown_value(at + "/labels" + pointer(name), "label of other jobs", name, known)
                return
        self.problems.add(at + "/labels", "fits no other job", "correct the labels")

    # --- templates ----------------------------------------------------------------------------------

    def _named_in(self, draft: Draft, step: StepSpec, text: str, at: str) -> list[str]:
        """Return the steps that a prompt speaks of, as ``job_id/step_id``."""
        from parallelhassnes.tables.expanders import templates

        if not templates.is_template(text):
            return []
        looked = templates.look(text)
        if looked.fault is not None:
            fix = "write {% raw %}…{% endraw %} around text with braces, or templates: false"
            self.problems.add(at, f"line {looked.fault.line} is no template: {looked.fault.message}", fix)
            return []
        for name in looked.unknown:
            self.problems.unknown_value(at, "name in a template:", name, templates.NAMES)
        found: list[str] = []
        for path in looked.paths:
            found += self._path(draft, step, path, looked, at)
        return found

    def _path(self, draft: Draft, step: StepSpec, path: Sequence[str], looked: "Looked", at: str) -> Iterator[str]:
        from parallelhassnes.tables.expanders import templates

        must = path not in looked.guarded
        match path:
            case ("step", name, *_) if name != "step_id":
                self._unknown(at, "step", name, ("step_id",))
            case ("batch", "labels", name, *_) if name not in self.head.labels:
                if must:
                    self._unknown(at, "batch.labels", name, self.head.labels)
            case ("batch", name, *_) if name not in templates.OF_BATCH:
                self._unknown(at, "batch", name, templates.OF_BATCH)
            case ("job", "labels", name, *_) if name not in draft.labels:
                if must:
                    self._unknown(at, "job.labels", name, draft.labels)
            case ("job", name, *_) if name not in templates.OF_JOB:
                self._unknown(at, "job", name, templates.OF_JOB)
            case ("steps", step_id, *rest):
                yield from self._of_step(draft, step_id, rest, "steps", at)
            case ("jobs", job_id, *_) if job_id not in self.jobs:
                if not self.partial:
                    self._unknown(at, "jobs", job_id, self.jobs)
            case ("jobs", job_id, "steps", step_id, *rest):
                yield from self._of_step(self.jobs[job_id], step_id, rest, f"jobs.{job_id}.steps", at)
            case ("jobs", _, name, *_) if name not in ("labels", "steps"):
                self._unknown(at, "jobs.…", name, ("labels", "steps"))
            case ("reports", *_) if "reports_of" not in step.spec and "fan_in" not in step.spec:
                self.problems.add(at, "speaks of reports, and the step has no fan_in", "add fan_in")

    def _of_step(self, draft: Draft, step_id: str, rest: Sequence[str], where: str, at: str) -> Iterator[str]:
        from parallelhassnes.tables.expanders import templates

        other = _named(draft, step_id)
        if other is None:
            if not self.partial:
                self._unknown(at, where, step_id, [each.step_id for each in draft.steps])
            return
        if rest and rest[0] not in templates.OF_STEP:
            self._unknown(at, f"{where}.{step_id}", rest[0], templates.OF_STEP)
        schema = other.spec.get("output_schema")
        if rest[:1] == ["report"] and len(rest) > 1 and isinstance(schema, dict):
            known = {*schema.get("properties", ()), "status", "summary"}
            if schema.get("additionalProperties") is False and rest[1] not in known:
                self._unknown(at, f"{where}.{step_id}.report", rest[1], known)
        yield f"{draft.job_id}/{step_id}"

    def _unknown(self, at: str, where: str, name: str, known: Sequence[str] | Any) -> None:
        def shown(guess: str) -> str:
            return repr(guess) if _PLAIN.fullmatch(guess) else f"{where}[{guess!r}]"

        fix = did_you_mean(name, known, f"known there: {', '.join(sorted(known)) or 'nothing'}", shown)
        self.problems.add(at, f"a template asks for the unknown {where}.{name}", fix)


def _prompts(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text of a step that is a template, and its key."""
    for name in ("prompt", "append_prompt"):
        if spec.get(name):
            yield pointer(name), spec[name]
    path = spec.get("prompt_ref")
    if path:
        file = Path(path)
        try:
            if file.stat().st_size <= MAX_PROMPT_FILE:
                yield "/prompt_ref", file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):  # reported where files are looked for, or at launch
            return


def _named(draft: Draft, step_id: str | None) -> StepSpec | None:
    return next((step for step in draft.steps if step.step_id == step_id), None)


def _at(draft: Draft, place: int) -> str:
    return draft.at + pointer("steps", draft.indices[place]) if draft.at else ""
