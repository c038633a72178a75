"""The Compose overlay that every Docker trial gets.

``stop_grace_period: 0s``: PID 1 of a task's container ignores SIGTERM, so that a stop would wait ten
seconds for nothing. The labels say whose container it is, to ``doctor --reap`` and to whoever reads
``docker ps``.
"""

import json
from pathlib import Path
from typing import Any

from parallelhassnes.steps.kinds import Attempt
from parallelhassnes.store.identity import store_id

LABEL = "parallelhassnes"


def labels(attempt: Attempt) -> dict[str, str]:
    """The labels of an attempt's main container."""
    return {
        f"{LABEL}.store": store_id(attempt.job_dir.parent.parent),
        f"{LABEL}.batch": attempt.batch_id,
        f"{LABEL}.job": attempt.job_id,
        f"{LABEL}.step": attempt.step.step_id,
        f"{LABEL}.run": attempt.run_id,
    }


def document(attempt: Attempt) -> dict[str, Any]:
    main = {"stop_grace_period": "0s", "labels": labels(attempt)}
    return {"services": {"main": main}}


def write(attempt: Attempt, directory: Path) -> Path:
    """Write the overlay into ``directory``; JSON is YAML. Returns its path."""
    path = directory / "compose-overlay.yaml"
    path.write_text(json.dumps(document(attempt)) + "\n", encoding="utf-8")
    return path
