"""Entry point of a spawned supervisor: ``python -m parallelhassnes.schedule.spawned ASSIGNMENT LOCK``."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from parallelhassnes.execute.launcher import reset_signals
from parallelhassnes.schedule import configuration
from parallelhassnes.schedule.attempt_process import Assignment, run
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.tick import after_attempt
from parallelhassnes.store import attempts


def main(arguments: list[str]) -> None:
    assignment = Assignment.model_validate_json(arguments[0])
    reset_signals()
    os.set_inheritable(int(arguments[1]), False)
    ctx = open_context(Path(assignment.root), assignment.options)
    if not assignment.dead:  # it runs under what its record says, whatever was edited since
        started_under = attempts.read_meta(assignment.attempt_dir(ctx.layout)).config_sha256
        ctx = replace(ctx, config=configuration.version(ctx.layout, started_under) or ctx.config)
    run(ctx, assignment, int(arguments[1]), after_attempt)


if __name__ == "__main__":
    main(sys.argv[1:])
