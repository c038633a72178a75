"""The sides of the kinds that a supervisor and a tick use do not import Harbor or anything heavy."""

import json

from stores import python

PROGRAM = """
import json, sys
from pathlib import Path
from parallelhassnes.plan import StepSpec
from parallelhassnes.steps import final_report, registry
from parallelhassnes.steps.step_types import StepAttempt, WorkerEnd

for name in registry.names():
    kind = registry.kind(name)
    assert kind.name == name
    root = Path(sys.argv[1])
    spec = {"task_name": "t", "config": {"task": {"path": "/none"}, "environment": {"type": "x"}}}
    step = StepSpec(step_id="s", kind=name, queue_key="k", spec=spec)
    attempt = StepAttempt(root, root, "b", "j", "r1", 1, step)
    kind.deadline_sec(attempt), kind.phase(attempt), kind.sweep(attempt)
    final_report.build(attempt, kind.conclude(attempt, WorkerEnd(1, "exited")))
heavy = {"harbor", "litellm", "asyncio", "jsonschema", "multiprocessing", "yaml"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_nothing_heavy_is_imported(tmp_path):
    done = python(PROGRAM, str(tmp_path))
    assert json.loads(done.stdout) == []
