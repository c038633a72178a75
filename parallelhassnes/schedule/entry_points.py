"""Where processes begin that may not be forked without an exec: ``python -m parallelhassnes.schedule.entry_points NAME …``.

Each loads what it needs and no more: a job of Slurm begins here once for each attempt, and what it loads is most of its cost.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # pydantic would look through every installed package for plugins
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from parallelhassnes.execute import launcher
from parallelhassnes.schedule.context import Options, open_context


def run_supervisor(arguments: list[str]) -> None:
    """``supervisor ASSIGNMENT LOCK``: run or end one attempt, whose locked descriptor is inherited."""
    from parallelhassnes.schedule import configuration
    from parallelhassnes.schedule.process.attempt_process import Assignment, run
    from parallelhassnes.schedule.tick import after_attempt
    from parallelhassnes.store import attempts

    assignment = Assignment.model_validate_json(arguments[0])
    os.set_inheritable(int(arguments[1]), False)
    ctx = open_context(Path(assignment.root), assignment.options)
    if not assignment.dead:  # it runs under what its record says, whatever was edited since
        started_under = attempts.read_meta(assignment.attempt_dir(ctx.layout)).config_sha256
        ctx = replace(ctx, config=configuration.version(ctx.layout, started_under) or ctx.config)
    run(ctx, assignment, int(arguments[1]), after_attempt)


def run_timer(arguments: list[str]) -> None:
    """``timer ROOT OPTIONS``: have a pass run whenever something is due."""
    from parallelhassnes.schedule.process import timer
    from parallelhassnes.schedule.tick import try_pass

    timer.wake(open_context(Path(arguments[0]), Options.model_validate_json(arguments[1])), try_pass)


def be_loop(arguments: list[str]) -> None:
    """``loop ROOT OPTIONS``: be the loop of this runner, on a root of several hosts."""
    from parallelhassnes.schedule.tick import run_loop

    run_loop(open_context(Path(arguments[0]), Options.model_validate_json(arguments[1])))


def send_checkpoints(arguments: list[str]) -> None:
    """``send_checkpoints ROOT [LOCK]``: hand to the audit hook what it has not got yet."""
    from parallelhassnes.schedule import checkpointing
    from parallelhassnes.schedule.process import senders

    checkpointing.send_unless_sent(open_context(senders.begin(arguments)))


def answer_probes(arguments: list[str]) -> None:
    """``answer ROOT SECONDS``: answer what other hosts of the root ask."""
    from parallelhassnes.schedule.joining.answer_probe import answer

    answer(open_context(Path(arguments[0])), float(arguments[1]))


def join_again(arguments: list[str]) -> None:
    """``join ROOT``: be one of the root's hosts again, after a start of this one."""
    from parallelhassnes.schedule.joining.ask_probe import join_alone

    join_alone(open_context(Path(arguments[0])))


def be_job(arguments: list[str]) -> None:
    """``job ROOT TICKET ATTEMPT``: be the job of Slurm that is this attempt."""
    from parallelhassnes.schedule.cluster.cluster_attempt import run as run_job

    run_job(Path(arguments[0]), arguments[1], arguments[2])


def see_to_jobs(arguments: list[str]) -> None:
    """``jobs ROOT OPTIONS``: ask Slurm for the jobs that are wanted, once."""
    from parallelhassnes.schedule.cluster.cluster_jobs import see_to

    see_to(open_context(Path(arguments[0]), Options.model_validate_json(arguments[1])))


def remove_sandbox(arguments: list[str]) -> None:
    """``remove_sandbox ROOT RUN_ID``: take down a trial's sandbox at its provider's, with the keys that batches get."""
    from parallelhassnes.steps.trial.preload import set_harbor_environment
    from parallelhassnes.steps.trial.remote import remove_here

    ctx = open_context(Path(arguments[0]))
    os.environ.update(ctx.secrets())
    set_harbor_environment(os.environ)
    remove_here(ctx.layout.runs, arguments[1])


if __name__ == "__main__":
    launcher.reset_signals()
    begins = {
        "supervisor": run_supervisor,
        "timer": run_timer,
        "loop": be_loop,
        "send_checkpoints": send_checkpoints,
        "answer": answer_probes,
        "join": join_again,
        "job": be_job,
        "jobs": see_to_jobs,
        "remove_sandbox": remove_sandbox,
    }
    begins[sys.argv[1]](sys.argv[2:])
