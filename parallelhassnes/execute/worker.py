"""The worker's side of the fork: its process group, files, environment and end."""

import os
import sys
import traceback
from collections.abc import Mapping

from parallelhassnes.execute import processes
from parallelhassnes.execute.launcher import reset_signals
from parallelhassnes.steps.step_types import Kind, StepAttempt
from parallelhassnes.store import privacy
from parallelhassnes.store.attempts import LOGS

CRASHED = 70
"""Exit code of a worker whose kind raised; its traceback is the end of ``stderr.log``."""


def start_worker(attempt: StepAttempt, kind: Kind, environment: Mapping[str, str], lock: int) -> int:
    """Fork the worker into a process group of its own; its pid.

    It keeps the step's lock: a live worker is a live attempt, whatever became of its supervisor.
    """
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        os.setpgid(0, 0)
        reset_signals()
        name = f"{attempt.batch_id}/{attempt.job_id}/{attempt.step.step_id}"
        processes.set_title(f"worker of {name} in {attempt.job_dir.parents[2]}")
        processes.die_with_parent(supervisor)
        os.set_inheritable(lock, True)
        for handle, name in enumerate(LOGS, 1):
            out = os.open(attempt.dir / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(out, handle)
            os.close(out)
        privacy.restore_mask()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(attempt.dir)
        code = kind.work(attempt)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the last frame of a process: its log is where this belongs
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
