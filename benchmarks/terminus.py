"""Trials of terminus-2 on a scripted model: the agent runs in the trial's own process, so cores matter."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.results import OURS, Row, compare
from benchmarks.setting import CHECKOUT, HARBOR, SANDBOX, Setting
from benchmarks.trials import job_config, run


def eight(setting: Setting) -> Row:
    """8 trials at once."""
    return _row(setting, "terminus-8", 2 if setting.quick else 8, {"wall": 0.9})


def thirty_two(setting: Setting) -> Row:
    """32 trials at once: more than one process of Harbor can keep up with."""
    return _row(setting, "terminus-32", 4 if setting.quick else 32, {"wall": 0.9})


def _row(setting: Setting, name: str, count: int, goals: dict[str, float]) -> Row:
    row = Row(name=name, work=f"{count} trials of terminus-2 on a scripted model, all at once")
    if shutil.which("tmux") is None:
        row.skipped = "no program tmux, which the agent needs"
        return row
    with scripted_model() as port:
        job = job_config(count, count, SANDBOX, [_agent(port)])
        sides = run(
            setting,
            row,
            {HARBOR: job, OURS: job},
            count,
            3,
            config='secrets = ["OPENAI_API_KEY"]\n',
            OPENAI_API_KEY="none",
        )
    row.figures = compare(sides[OURS], sides[HARBOR], goals)
    return row


@contextmanager
def scripted_model() -> Iterator[int]:
    """A model server in a process of its own, outside of what is measured; its port."""
    command = [sys.executable, "-m", "benchmarks.scripted_model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def _agent(port: int) -> dict[str, Any]:
    return {
        "name": "terminus-2",
        "model_name": "openai/scripted",
        "kwargs": {
            "api_base": f"http://127.0.0.1:{port}/v1",
            "record_terminal_session": False,
            "enable_summarize": False,
            "max_turns": 6,
            "model_info": {
                "max_input_tokens": 10_000,
                "max_output_tokens": 1_000,
                "input_cost_per_token": 1e-6,
                "output_cost_per_token": 1e-6,
            },
        },
    }
