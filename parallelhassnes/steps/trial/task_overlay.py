"""The Compose overlay that every Docker trial gets.

``stop_grace_period: 0s``: PID 1 of a task's container ignores SIGTERM, so that a stop would wait ten
seconds for nothing. The labels say whose container it is, to ``doctor --reap`` and to whoever reads
``docker ps``. Where the store provides the image, the service is not built again.
"""

import json
from pathlib import Path
from typing import Any

from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store.identity import store_id

LABEL = "parallelhassnes"
_NOT_BUILT = "\0not built"


def labels(attempt: StepAttempt) -> dict[str, str]:
    """The labels of an attempt's main container."""
    return {
        f"{LABEL}.store": store_id(attempt.job_dir.parent.parent),
        f"{LABEL}.batch": attempt.batch_id,
        f"{LABEL}.job": attempt.job_id,
        f"{LABEL}.step": attempt.step.step_id,
        f"{LABEL}.run": attempt.run_id,
    }


def text(attempt: StepAttempt, image: str | None) -> str:
    """The overlay; JSON is YAML, but for the tag that takes a key of an earlier file away."""
    main: dict[str, Any] = {"stop_grace_period": "0s", "labels": labels(attempt)}
    if image is not None:
        main |= {"image": image, "pull_policy": "never", "build": _NOT_BUILT}
    document = json.dumps({"services": {"main": main}}) + "\n"
    return document.replace(json.dumps(_NOT_BUILT), "!reset null")


def write(attempt: StepAttempt, directory: Path, image: str | None = None) -> Path:
    """Write the overlay into ``directory``; its path.

    Args:
        image: the tag to start from; None to have Compose build one for this trial.
    """
    path = directory / "compose-overlay.yaml"
    path.write_text(text(attempt, image), encoding="utf-8")
    return path
