"""The graph of a batch: every reference names a step, and nothing waits for itself."""

from collections import defaultdict, deque
from collections.abc import Mapping

from parallelhassnes import places
from parallelhassnes.names import did_you_mean
from parallelhassnes.plan import JobSpec, StepSpec
from parallelhassnes.tables.expanders.expansion import Draft
from parallelhassnes.tables.parse.located_errors import Problems, pointer

MAX_CYCLES = 20
"""Cycles that are reported one by one."""


def check_graph(drafts: list[Draft], problems: Problems, *, partial: bool = False) -> None:
    """Report unknown references, steps that wait for themselves, and cycles, over all jobs at once.

    ``partial``: some steps could not be made and are not there to be named, so only what is sure is reported.
    """
    steps: dict[str, StepSpec] = {}
    places: dict[str, str] = {}
    for draft in drafts:
        for place, step in enumerate(draft.steps):
            ref = f"{draft.job_id}/{step.step_id}"
            steps[ref] = step
            if draft.at:
                places[ref] = draft.at + pointer("steps", draft.indices[place])
    waits: dict[str, list[str]] = {}
    for ref, step in steps.items():
        waits[ref] = []
        for index, wanted in enumerate(step.depends_on):
            at = places.get(ref, "") + pointer("depends_on", index)
            if wanted == ref:
                problems.add(at, f"step {ref} waits for itself", "remove the reference")
            elif wanted not in steps:
                if not partial:
                    _unknown(ref, wanted, at, steps, problems)
            else:
                waits[ref].append(wanted)
        if not partial and step.kind == "analysis":
            about = steps.get(step.depends_on[0])
            if about is not None and about.kind != "trial":
                problems.add(
                    places.get(ref, "") + "/depends_on",
                    f"{about.step_id} is no trial, but a {about.kind}",
                    "name a trial",
                )
        if not partial and step.kind == "verdict" and not _sees_trials(step, steps):
            problems.add(
                places.get(ref, ""),
                f"verdict {ref} has no trials to judge",
                "add trial steps to its job, or name them in depends_on",
            )
    _cycles(waits, places, problems)


def finish(drafts: list[Draft]) -> list[JobSpec]:
    """Return JobSpecs, with ``first_seq`` and ``dependents``; the graph must be valid."""
    dependents: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    drafts = _told_apart(drafts)
    for draft in drafts:
        for step in draft.steps:
            for wanted in step.depends_on:
                job_id, step_id = places.step_key(wanted)
                dependents[job_id][step_id].append(f"{draft.job_id}/{step.step_id}")
    jobs, seq = [], 0
    for draft in drafts:
        jobs.append(
            JobSpec(
                batch_id="",
                job_id=draft.job_id,
                labels=draft.labels,
                enough=draft.enough,
                first_seq=seq,
                steps=tuple(draft.steps),
                dependents={step: tuple(refs) for step, refs in dependents.get(draft.job_id, {}).items()},
            )
        )
        seq += len(draft.steps)
    return jobs


def _told_apart(drafts: list[Draft]) -> list[Draft]:
    """Return label the trials by the whole import path where several agents of the plan would have one name."""
    trials = [step for draft in drafts for step in draft.steps if step.kind == "trial"]
    paths: dict[str, set[str | None]] = defaultdict(set)
    for step in trials:
        name, path = _named(step)
        paths[name].add(path)
    if all(len(own) == 1 for own in paths.values()):
        return drafts
    labels: dict[str, dict[str, None]] = defaultdict(dict)  # new → the old ones that it is to replace
    for step in trials:
        labels[_whole(step, paths)][step.label] = None

    def relabelled(step: StepSpec) -> StepSpec:
        whole = _whole(step, paths) if step.kind == "trial" else step.label
        if step.kind != "trial" or not whole:
            return step
        number = 1 + list(labels[whole]).index(step.label)
        label = whole if number == 1 else f"{whole} #{number}"
        return step.model_copy(update={"label": label})

    return [draft._replace(steps=[relabelled(step) for step in draft.steps]) for draft in drafts]


def _named(step: StepSpec) -> tuple[str, str | None]:
    """Return the name of a trial's agent, and its import path."""
    agent = step.spec["config"]["agent"]
    path = agent.get("import_path")
    return agent.get("name") or str(path).rsplit(":", 1)[-1], path


def _whole(step: StepSpec, paths: dict[str, set[str | None]]) -> str:
    """Return the label by the whole import path; empty where it is to stay."""
    name, path = _named(step)
    if path is None or len(paths[name]) == 1:
        return ""
    model = step.spec["config"]["agent"].get("model_name")
    return f"{path} · {model}" if model else path


def _sees_trials(step: StepSpec, steps: Mapping[str, StepSpec]) -> bool:
    known = [steps[wanted] for wanted in step.depends_on if wanted in steps]
    # Unknown references were reported; a verdict that has only those gets no second message.
    return any(each.kind == "trial" for each in known) or len(known) < len(step.depends_on)


def _unknown(ref: str, wanted: str, at: str, steps: Mapping[str, StepSpec], problems: Problems) -> None:
    job_id, step_id = places.step_key(ref)
    own = [other.step_id for other in map(places.step_key, steps) if other.job_id == job_id]
    short = wanted.removeprefix(f"{job_id}/")
    far = did_you_mean(wanted, list(steps)[:1000] if "/" in short else (), "name a step, or job_id/step_id", repr)
    message = f"step {step_id} depends on {short!r}, which does not exist"
    problems.add(at, message, did_you_mean(short, own[:1000], far, repr))


def _cycles(waits: Mapping[str, list[str]], places: Mapping[str, str], problems: Problems) -> None:
    """Kahn's algorithm; what cannot be put in order lies on a cycle or behind one."""
    missing = {ref: len(wanted) for ref, wanted in waits.items()}
    followers: dict[str, list[str]] = defaultdict(list)
    for ref, wanted in waits.items():
        for other in wanted:
            followers[other].append(ref)
    ready = deque(ref for ref, count in missing.items() if not count)
    left = dict.fromkeys(waits)
    while ready:
        ref = ready.popleft()
        del left[ref]
        for follower in followers[ref]:
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)
    told = 0
    visited: set[str] = set()
    for start in left:
        # Every step that is left waits for another one that is left, so walking on must close a circle.
        path: dict[str, None] = {}
        ref = start
        while ref not in path and ref not in visited:
            path[ref] = None
            ref = next(other for other in waits[ref] if other in left)
        if ref in path and told < MAX_CYCLES:
            told += 1
            members = list(path)
            circle = members[members.index(ref) :]
            shown = circle if len(circle) <= 8 else [*circle[:7], f"… {len(circle) - 7} more"]
            problems.add(
                places.get(ref, "") + "/depends_on",
                f"steps wait for each other in a circle: {' → '.join([*shown, ref])}",
                "remove one of the references",
            )
        visited.update(path)
