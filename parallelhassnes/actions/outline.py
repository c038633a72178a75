"""What a plan amounts to, in a line: ``72 trials = 9 tasks × 4 agents × 2; keys needed: OPENAI_API_KEY; at most 8 at once``."""

import json
from collections import Counter
from collections.abc import Iterator

from parallelhassnes import formatting
from parallelhassnes.plan import Plan, StepSpec
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.tables.expanders import agent_keys


def of(ctx: Context, plan: Plan) -> str:
    """Count the trials of a plan, and say what they need and how many run at once."""
    steps = [step for job in plan.jobs for step in job.steps]
    trials = [step for step in steps if step.kind == "trial"]
    others = Counter(step.kind for step in steps if step.kind != "trial")
    parts = [_trials(trials)] if trials else []
    parts += [_counted(count, kind) for kind, count in sorted(others.items()) if kind != "verdict" or not trials]
    keys = list(dict.fromkeys((*plan.secrets, *_keys(trials, {*plan.secrets, *ctx.config.secrets}))))
    at_once = min(filter(None, (plan.concurrency, ctx.concurrency)))
    said = [", ".join(parts)]
    said += [f"keys needed: {', '.join(keys)}"] if keys else []
    return "; ".join([*said, f"at most {at_once} at once"])


def _trials(trials: list[StepSpec]) -> str:
    cells = Counter((_task(step), step.label) for step in trials)
    tasks, agents = ({cell[n] for cell in cells} for n in (0, 1))
    counts = {*cells.values()}
    said = f"{_counted(len(trials), 'trial')} {{}} {_counted(len(tasks), 'task')} {{}} {_counted(len(agents), 'agent')}"
    if len(cells) == len(tasks) * len(agents) and len(counts) == 1:
        (each,) = counts
        return said.format("=", "×") + (f" × {each}" if each > 1 else "")
    return said.format("of", "and")


def _task(step: StepSpec) -> str:
    return json.dumps(mapping(step.spec.get("config")).get("task"), sort_keys=True, default=str)


def _keys(trials: list[StepSpec], named: set[str]) -> Iterator[str]:
    """Return the keys that agents look for, one of those that would do where none of them is named."""
    agents = {id(agent): agent for step in trials if (agent := mapping(mapping(step.spec.get("config")).get("agent")))}
    for agent in agents.values():
        found = agent_keys.looked_for(agent)
        if found is not None and found.certain and not named.intersection(found.names):
            yield found.names[0]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else formatting.plural(noun)}"
