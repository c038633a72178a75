"""What is submitted: tables of a few shapes whose outcome depends on nothing but the table.

A command step does its work behind a kernel lock of its own and leaves a mark, so that work done twice, or twice at
once, is seen by those who do it. Tables of one shape differ in their label and in where the marks go.
"""

from pathlib import Path
from typing import Any

from stores import CHECKOUT, job, shell

from tests.faults.invariants import TWICE

TASKS = CHECKOUT / "examples" / "tasks"
UPLOADED = "hello"
"""The task that one shape takes from an upload."""

type Table = dict[str, Any]


def tables(label: str, marks: Path, uploaded: str) -> dict[str, Table]:
    """Shape → its table.

    Args:
        label: makes these tables others than those of any other label.
        marks: folder of the marks of the command steps.
        uploaded: path of the task ``UPLOADED``.
    """

    def work(step_id: str, script: str = "", **more: Any) -> dict[str, Any]:
        mark = f"{marks}/{label}.{step_id}"
        guard = f"exec 9> {mark}.lock; flock -n 9 || exit {TWICE}; echo x >> {mark}.ran; {script or ':'}"
        return shell(step_id, guard, **more)

    made: dict[str, Table] = {
        "repeats": _sweep(["hello", "leap-years"], {"oracle": 2, "nop": 1}, analysis="rules"),
        "fractions": _sweep(["config-repair", "changelog-steps"], {"oracle": 1, "nop": 2}),
        "faulty": _sweep(["broken-oracle", "greet-script"], {"oracle": 2, "nop": 1}, analysis="rules"),
        "offline": _sweep(["offline-report"], {"oracle": 3, "nop": 1}, analysis="rules"),
        "slow": _sweep(["slow"], {"oracle": 2}),
        "gated": _sweep(["leap-years"], {"oracle": 1, "nop": 1}, baseline_gate=True, analysis="rules"),
        "narrow": _sweep(["hello", "greet-script"], {"oracle": 3}, concurrency=1, limits={"agent:oracle": 1}),
        "uploaded": _sweep([uploaded], {"oracle": 2, "nop": 2}, analysis="rules"),
        "commands": _table(*[job(f"c{n}", work(f"c{n}", "sleep 0.2", queue_key="prep")) for n in range(5)]),
        "graph": _graph(work),
        "again": _again(work, marks / f"{label}.again.seen"),
    }
    for table in made.values():
        table["labels"] = {"n": label}
    # Two that were made for other programs.
    made["harbor job"] = {
        "job_name": f"nightly-{label}",
        "n_attempts": 2,
        "agents": [{"name": "oracle"}, {"name": "nop"}],
        "datasets": [{"path": str(TASKS / "hello")}, {"path": str(TASKS / "config-repair")}],
        "environment": {"type": "sandbox"},
    }
    made["oddish"] = {
        "agents": [{"name": "oracle", "n_trials": 2, "timeout_minutes": 5}, {"name": "nop", "n_trials": 1}],
        "path": str(TASKS),
        "task_names": ["h*", "leap-*"],
        "environment": "sandbox",
        "experiment_id": f"nightly-{label}",
        "run_analysis": True,
    }
    return made


def _table(*jobs: dict[str, Any], **more: Any) -> Table:
    return {"spec_version": "2.0", "jobs": list(jobs), **more}


def _sweep(tasks: list[str], agents: dict[str, int], **more: Any) -> Table:
    """A sweep over tasks (names of the examples, or paths) by agent → trials."""
    paths = [task if "/" in task else str(TASKS / task) for task in tasks]
    named = [{"name": name, "n_trials": n} for name, n in agents.items()]
    return {"spec_version": "2.0", **more, "sweep": {"path": paths, "agents": named, "environment": "sandbox"}}


def _graph(work: Any) -> Table:
    """Steps that wait for steps, of their job and of another; one fails, so what needs it never starts."""
    trial = {
        "kind": "trial",
        "agent": {"name": "oracle"},
        "environment": {"type": "sandbox"},
        "task": {"path": str(TASKS / "hello")},
    }
    return _table(
        job(
            "first",
            work("prepare", queue_key="prep"),
            {"step_id": "t1", "depends_on": ["prepare"], **trial},
            {"step_id": "t2", "depends_on": ["prepare"], **trial},
            {"step_id": "verdict", "kind": "verdict"},
            work("after", depends_on=["t1", "t2"]),
        ),
        job(
            "second",
            work("bad", "exit 3"),
            work("never", depends_on=["bad"]),
            work("whatever", depends_on=["bad"], after="end"),
            work("other", depends_on=["first/after"]),
        ),
        analysis="rules",
    )


def _again(work: Any, seen: Path) -> Table:
    """Steps that fail at first and succeed when they are attempted again."""
    retry = {"max_attempts": 3, "backoff_sec": 1, "classes": {"agent_error": {"retry": True}}}
    return _table(
        *[
            job(
                f"a{n}",
                work(f"a{n}", f"test -e {seen}{n} || {{ touch {seen}{n}; exit 1; }}"),
                shell(f"then{n}", "true", depends_on=[f"a{n}"]),
            )
            for n in range(3)
        ],
        retry=retry,
    )


NAMES = tuple(tables("", Path(), ""))
