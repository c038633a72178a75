"""Make the labelled trials anew: ``PYTHONPATH=.:tests:tests/support python tests/data/analyses/make.py`` (some minutes; needs bubblewrap, tmux).

Every trial is a real one in the sandbox, of the tasks under ``examples/``, by oracle, nop, terminus-2 on a scripted model
server, or an agent whose runs end as a script says. Kept of each are the report, Harbor's result, exception, trajectory and the
verifier's files; prompts that only repeat Harbor's own template are cut to their ends, and places of this machine are
written as @ROOT@ and @CHECKOUT@. What each is and why was said by hand, in ``SCENARIOS`` and so in ``labels.json``.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models import refuse, say, serving
from stores import CHECKOUT, program, started

HERE = Path(__file__).parent
TASKS, QUALITY = CHECKOUT / "examples" / "tasks", CHECKOUT / "examples" / "quality"
KEPT = (
    "final.json",
    "final.txt",
    "worker_error.json",
    "trial/result.json",
    "trial/exception.txt",
    "trial/agent/trajectory.json",
    "trial/verifier/*",
    "trial/steps/*/agent/trajectory.json",
    "trial/steps/*/verifier/*",
    "trial/steps/*/exception.txt",
)
MOST_TEXT = 1000
Label = tuple[str, str, str]


def do(*commands: str, done: bool = False, wait: float = 0.3) -> dict[str, Any]:
    """A turn of the model: these commands, typed."""
    typed = [{"keystrokes": f"{command}\n", "duration": wait} for command in commands]
    answer = {"analysis": "I look at it.", "plan": "I go on.", "commands": typed}
    return say(json.dumps({**answer, "task_complete": done}), tokens=[200, 40])


DONE = do(done=True)

PASS_OF_ORACLE: Label = ("good_success", "reference", "the task's own solution passed")
ORACLE_FAILS: Label = ("bad_failure", "broken_reference", "the task's own solution does not pass")
NOP_FAILS: Label = ("good_failure", "no_action", "nothing was done, and the tests say so")
NOP_PASSES: Label = ("bad_success", "pre_solved", "nothing was done, and the tests pass")
PROVIDER = ("harness_error", "provider")
SOLVED: Label = ("good_success", "solved", "it did what was asked")

SOLUTIONS = {
    "hello": [do("echo 'Hello, world!' > /app/hello.txt"), DONE],
    "leap-years": [do("printf '%s\\n' 1892 1896 1904 1908 1912 > /app/leap_years.txt"), DONE],
    "config-repair": [
        do("cat /app/service.conf"),
        do(
            "sed -i 's/^port = .*/port = 9090/; s/^workers = .*/workers = 2/; s/^log_level = .*/log_level = INFO/'"
            " /app/service.conf; printf '%s\\n' port workers log_level > /app/changed.txt"
        ),
        DONE,
    ],
    "offline-report": [
        do("ls /app/data; head -3 /app/data/*"),
        do("printf 'shop,total,currency\\nnorth,225,EUR\\nsouth,290,EUR\\nwest,15,EUR\\n' > /app/report.csv"),
        DONE,
    ],
}


class Scenario:
    """One job: a task, agents, what their model says; and what each trial is, by step or by step and reward."""

    def __init__(
        self,
        name: str,
        task: Path,
        labels: dict[str, Label],
        turns: list[dict[str, Any]] | None = None,
        baselines: int = 0,
        n: int = 1,
        agent: dict[str, Any] | None = None,
        words: str = "",
    ) -> None:
        self.name, self.task, self.labels, self.turns = name, task, labels, turns
        self.baselines, self.n, self.agent, self.words = baselines, n, agent or {}, words

    def table(self, url: str, root: Path) -> dict[str, Any]:
        agents: list[dict[str, Any]] = []
        if self.baselines:
            agents += [{"name": "oracle", "n_trials": self.baselines}, {"name": "nop"}]
        if self.turns is not None:
            kwargs = {
                "api_base": f"{url}/v1",
                "record_terminal_session": False,
                "enable_summarize": False,
                "max_turns": 8,
                "model_info": {
                    "max_input_tokens": 30000,
                    "max_output_tokens": 2000,
                    "input_cost_per_token": 1e-6,
                    "output_cost_per_token": 1e-6,
                },
                **self.agent.get("kwargs", {}),
            }
            more = {key: value for key, value in self.agent.items() if key != "kwargs"}
            agents.append(
                {"name": "terminus-2", "model_name": "openai/scripted", "kwargs": kwargs, "n_trials": self.n, **more}
            )
        if self.words:
            (root / "script").mkdir()
            (root / "script" / "words").write_text(self.words)
            agents.append(
                {
                    "import_path": "scripted_agent:ScriptedAgent",
                    "kwargs": {"script": str(root / "script")},
                    "n_trials": len(self.words.split()),
                }
            )
        if "name" in self.agent and self.turns is None:
            agents.append(self.agent)
        return {
            "spec_version": "2.0",
            "secrets": ["OPENAI_API_KEY"],
            "retry": {"max_attempts": 1},
            "sweep": {"path": str(self.task), "agents": agents, "environment": "sandbox"},
        }


T = "terminus-2"
BASE = {"oracle": PASS_OF_ORACLE, "nop": NOP_FAILS}
SCENARIOS = [
    *(
        Scenario(f"solved-{name}", TASKS / name, {**BASE, T: SOLVED}, turns, baselines=1)
        for name, turns in SOLUTIONS.items()
    ),
    Scenario(
        "wrong-rule",
        TASKS / "leap-years",
        {**BASE, T: ("good_failure", "implementation_bug", "it took 1900 for a leap year")},
        [do("printf '%s\\n' 1892 1896 1900 1904 1908 1912 > /app/leap_years.txt"), DONE],
        baselines=1,
    ),
    Scenario(
        "wrong-text",
        TASKS / "hello",
        {T: ("good_failure", "implementation_bug", "it wrote another text than it was told")},
        [do("echo 'hello world' > /app/hello.txt"), DONE],
    ),
    Scenario(
        "wrong-place",
        TASKS / "hello",
        {T: ("good_failure", "implementation_bug", "it wrote the file below /tmp, not where it was told")},
        [do("echo 'Hello, world!' > /tmp/hello.txt"), DONE],
    ),
    Scenario(
        "half-done",
        TASKS / "config-repair",
        {T: ("good_failure", "incomplete", "one of three settings corrected, no list of changes")},
        [do("sed -i 's/^port = .*/port = 9090/' /app/service.conf"), DONE],
    ),
    Scenario(
        "two-of-four",
        TASKS / "greet-script",
        {T: ("good_failure", "incomplete", "it greets by name only; the other two cases are missing")},
        [do("printf '#!/bin/sh\\necho \"Hello, $1!\"\\n' > /app/greet.sh; chmod +x /app/greet.sh"), DONE],
    ),
    Scenario(
        "gave-up",
        TASKS / "offline-report",
        {T: ("good_failure", "gave_up", "it looked at the data, said that it could not be done, and stopped")},
        [
            do("ls /app/data"),
            say(
                json.dumps(
                    {
                        "analysis": "I cannot do this without a spreadsheet program. I give up.",
                        "plan": "Stop.",
                        "commands": [],
                        "task_complete": True,
                    }
                ),
                tokens=[200, 40],
            ),
        ],
    ),
    Scenario(
        "said-done-at-once",
        TASKS / "hello",
        {T: ("good_failure", "no_action", "it said that it was done and did nothing")},
        [DONE],
        n=2,
    ),
    Scenario(
        "garbage",
        TASKS / "hello",
        {T: ("good_failure", "no_action", "the model never answered in the agent's format, so nothing was done")},
        [say("As a language model I would rather talk about the weather.")],
        n=2,
        agent={"kwargs": {"max_turns": 4}},
    ),
    Scenario("garbage-then-right", TASKS / "hello", {T: SOLVED}, [say("Let me think."), *SOLUTIONS["hello"]]),
    Scenario(
        "out-of-turns",
        TASKS / "leap-years",
        {T: ("good_failure", "timeout", "it looked around until its turns were used up")},
        [do("ls -la /app")],
        agent={"kwargs": {"max_turns": 3}},
        n=2,
    ),
    Scenario(
        "out-of-time",
        TASKS / "hello",
        {T: ("good_failure", "timeout", "it waited for a program that takes longer than its time")},
        [do("sleep 100", wait=60)],
        agent={"override_timeout_sec": 6.0},
        n=2,
    ),
    Scenario(
        "rate-limited",
        TASKS / "hello",
        {T: (*PROVIDER, "the provider answered 429 to everything")},
        [refuse(429, "Rate limit reached")],
        agent={"timeout_minutes": 3},
    ),
    Scenario(
        "wrong-key",
        TASKS / "hello",
        {T: (*PROVIDER, "the provider answered 401")},
        [refuse(401, "Incorrect API key provided")],
    ),
    Scenario(
        "no-such-model",
        TASKS / "hello",
        {T: (*PROVIDER, "the provider answered 404: no such model")},
        [refuse(404, "The model `scripted` does not exist", code="model_not_found")],
    ),
    Scenario(
        "provider-broken",
        TASKS / "hello",
        {T: (*PROVIDER, "the provider answered 500 to everything")},
        [refuse(500, "boom")],
        agent={"timeout_minutes": 3},
    ),
    Scenario(
        "refused-midway",
        TASKS / "leap-years",
        {T: (*PROVIDER, "the key was withdrawn after the first command")},
        [do("ls /app"), refuse(401, "Incorrect API key provided")],
    ),
    Scenario(
        "context",
        TASKS / "hello",
        {T: ("good_failure", "lost_context", "the provider refused a prompt that had grown too long")},
        [
            do("ls /app"),
            refuse(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        ],
    ),
    Scenario(
        "ended-by-script",
        TASKS / "hello",
        {
            "ScriptedAgent:ApiRateLimitError": (*PROVIDER, "429 of the agent's provider"),
            "ScriptedAgent:ApiOverloadedError": (*PROVIDER, "529 of the agent's provider"),
            "ScriptedAgent:AgentAuthenticationError": (*PROVIDER, "401 of the agent's provider"),
            "ScriptedAgent:ApiUsageLimitError": (*PROVIDER, "the provider's usage limit"),
            "ScriptedAgent:ApiResponseStalledError": (*PROVIDER, "the provider's answer stalled"),
            "ScriptedAgent:RuntimeError": ("good_failure", "agent_crash", "the agent's own program raised"),
            "ScriptedAgent:None": (
                "good_failure",
                "no_action",
                "the agent returned without doing anything, and has no trajectory",
            ),
        },
        words="rate_limit overloaded auth quota timeout crash zero",
    ),
    Scenario(
        "no-network",
        TASKS / "hello",
        {"cline-cli": ("harness_error", "network", "the agent's installation needs the network, and there is none")},
        agent={"name": "cline-cli"},
    ),
    Scenario(
        "flaky",
        TASKS / "flaky-tests",
        {
            "oracle:1": PASS_OF_ORACLE,
            "nop": NOP_FAILS,
            "oracle:0": ("bad_failure", "nondeterministic_tests", "the same solution passes other times"),
            "terminus-2:1": SOLVED,
            "terminus-2:0": (
                "bad_failure",
                "nondeterministic_tests",
                "right work, and the tests say so themselves: flaked",
            ),
        },
        [do("echo 86400 > /app/seconds.txt"), DONE],
        baselines=4,
        n=4,
    ),
    Scenario(
        "broken-oracle",
        TASKS / "broken-oracle",
        {"oracle": ORACLE_FAILS, "nop": NOP_FAILS, T: SOLVED},
        [do("printf '%s\\n' 2 3 5 7 11 > /app/primes.txt"), DONE],
        baselines=2,
    ),
    Scenario("multi-step", TASKS / "changelog-steps", BASE, baselines=1),
    Scenario(
        "pre-solved",
        QUALITY / "pre-solved",
        {
            "oracle": PASS_OF_ORACLE,
            "nop": NOP_PASSES,
            T: ("bad_success", "pre_solved", "it only looked, and the answer had been there before"),
        },
        [do("cat /app/colours.txt"), DONE],
        baselines=1,
    ),
    Scenario(
        "pre-solved-idle",
        QUALITY / "pre-solved",
        {T: ("bad_success", "pre_solved", "it did nothing, and passed")},
        [DONE],
    ),
    Scenario(
        "too-permissive",
        QUALITY / "too-permissive",
        {**BASE, T: ("bad_success", "too_permissive", "an empty file passed for a program")},
        [do("touch /app/fib.sh"), DONE],
        baselines=1,
    ),
    Scenario(
        "unnamed-file",
        QUALITY / "unnamed-file",
        {**BASE, T: ("bad_failure", "underspecified", "right number, in a file whose name nobody had said")},
        [do("echo 604800 > /app/seconds.txt"), DONE],
        baselines=1,
        n=2,
    ),
    Scenario(
        "leaky",
        QUALITY / "leaky-solution",
        {**BASE, T: ("bad_success", "leaked_solution", "it read /solution and ran it")},
        [do("ls /app /solution"), do("cat /solution/solve.sh"), do("sh /solution/solve.sh"), DONE],
        baselines=1,
    ),
    Scenario(
        "leaky-honest", QUALITY / "leaky-solution", {T: SOLVED}, [do("echo 14 18 30 > /app/combination.txt"), DONE]
    ),
    Scenario(
        "peeked-in-vain",
        TASKS / "hello",
        {T: ("good_success", "solved", "it looked for the tests, found none, and did the work")},
        [do("cat /tests/test.sh"), *SOLUTIONS["hello"]],
    ),
    Scenario(
        "tampered",
        QUALITY / "trusting-tests",
        {**BASE, T: ("bad_success", "tampered", "it wrote the reward itself")},
        [do("echo 1 > /logs/verifier/reward.txt"), DONE],
        baselines=1,
    ),
    Scenario(
        "silent-tests",
        QUALITY / "silent-tests",
        {
            "oracle": PASS_OF_ORACLE,
            "nop": ("bad_failure", "brittle_tests", "the tests write no reward where the work is missing"),
            T: ("bad_failure", "brittle_tests", "the tests write no reward where the work is wrong"),
        },
        [do("echo almost > /app/status.txt"), DONE],
        baselines=1,
    ),
    Scenario(
        "hanging-tests",
        QUALITY / "hanging-tests",
        {
            "oracle": ("bad_failure", "brittle_tests", "the tests wait for a service that nobody starts"),
            "nop": ("bad_failure", "brittle_tests", "the tests wait for a service that nobody starts"),
        },
        baselines=1,
    ),
    Scenario(
        "cannot-build",
        QUALITY / "cannot-build",
        {
            "oracle": ("bad_failure", "environment", "the Dockerfile copies a file that is not there"),
            "nop": ("bad_failure", "environment", "the Dockerfile copies a file that is not there"),
        },
        baselines=1,
    ),
    Scenario(
        "hard",
        QUALITY / "hard-but-fine",
        {**BASE, T: ("good_failure", "wrong_approach", "it guessed instead of counting")},
        [do("echo 5000 > /app/answer.txt"), DONE],
        baselines=1,
    ),
]


def run(scenario: Scenario, root: Path) -> None:
    """Run the scenario's job to its end; two of them are ended from outside."""
    env = {"OPENAI_API_KEY": "none", "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}"}
    turns = scenario.turns or [say("nothing")]
    # By the words of terminus-2's first prompt, so that the turns follow each other whatever the terminal shows.
    with serving(root / "model", *turns, when={"solving command-line tasks": turns}) as model:
        table = root / "table.json"
        table.write_text(json.dumps(scenario.table(model.url, root)))
        program(root, "init")
        program(root, "run", "-c", str(table), "-q", "--fail-on", "never", env=env)


def run_stopped(root: Path, how: str) -> None:
    """A trial that is canceled, or whose every process is killed."""
    program(root, "init")
    line = ("run", str(TASKS / "slow"), "-a", "oracle", "-e", "sandbox", "-q", "--ae", "SLOW_SEC=60")
    running = started(root, *line)
    state: dict[str, Any] = {}
    while state.get("phase") != "agent":
        time.sleep(0.1)
        for path in root.glob("runs/*/*/steps/oracle.1/attempts/*/state.json"):
            state = json.loads(path.read_text())
    if how == "canceled":
        program(root, "cancel", "latest", "--reason", "not wanted any more")
        running.wait()
        return
    running.kill()
    running.wait()
    for pid in (state["pid"], state["worker_pid"]):
        os.kill(pid, signal.SIGKILL)
    program(root, "close", "latest")
    program(root, "tick")
    program(root, "tick")


def keep(root: Path, name: str, labels: dict[str, Label]) -> list[dict[str, Any]]:
    """Copy what is kept of a scenario's trials; their labels."""
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    said = []
    (job_dir,) = {path.parent for path in root.glob("runs/*/*/job.json")}
    job = json.loads(_plain((job_dir / "job.json").read_text(), root))
    job["steps"] = [step for step in job["steps"] if step["kind"] == "trial"]
    job.pop("dependents", None)
    for step in job["steps"]:
        attempts = sorted((job_dir / "steps" / step["step_id"] / "attempts").iterdir())
        attempt = attempts[0] if name == "lost" else attempts[-1]
        for pattern in KEPT:
            for path in attempt.glob(pattern):
                place = target / "steps" / step["step_id"] / "attempts" / attempt.name / path.relative_to(attempt)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(_small(path, root))
        state = json.loads((attempt / "state.json").read_text())
        state_file = target / "steps" / step["step_id"] / "attempts" / attempt.name / "state.json"
        state_file.write_text(json.dumps({"status": state["status"]}) + "\n")
        said.append(_label(name, step["step_id"], attempt, labels))
    (target / "job.json").write_text(json.dumps(job, indent=1) + "\n")
    return said


def _label(name: str, step_id: str, attempt: Path, labels: dict[str, Label]) -> dict[str, Any]:
    report = json.loads((attempt / "final.json").read_text())
    reward = (report.get("trial") or {}).get("reward")
    agent = step_id.split(".", maxsplit=1)[0]
    ended = ((report.get("trial") or {}).get("exception") or {}).get("type")
    keys = [f"{agent}:{ended}", f"{agent}:{int(reward or 0)}", agent]
    outcome, subtype, why = next(labels[key] for key in keys if key in labels)
    scored = reward is not None and report["status"] == "succeeded"
    return {
        "trial": f"{name}/{step_id}",
        "reward": reward if scored else None,
        "outcome": outcome,
        "subtype": subtype,
        "why": why,
    }


def _small(path: Path, root: Path) -> str:
    text = path.read_text(errors="replace")
    if path.suffix == ".json":
        document = json.loads(text)
        indent = 2 if text.startswith("{\n") else None
        separators = None if indent else (",", ":")
        text = json.dumps(_cut(document), indent=indent, separators=separators, ensure_ascii=False) + "\n"
    elif len(text) > 4 * MOST_TEXT:
        text = f"{text[:MOST_TEXT]}\n[… cut …]\n{text[-MOST_TEXT:]}"
    return _plain(text, root)


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    if isinstance(value, str) and len(value) > MOST_TEXT:
        half = MOST_TEXT // 2
        return f"{value[:half]}\n[… cut …]\n{value[-half:]}"
    return value


def _plain(text: str, root: Path) -> str:
    for place, name in (
        (root, "@ROOT@"),
        (CHECKOUT, "@CHECKOUT@"),
        (Path(sys.prefix), "@PYTHON@"),
        (Path(sys.base_prefix), "@PYTHON@"),
    ):
        text = text.replace(str(place), name)
    return text


def main(only: list[str]) -> None:
    file = HERE / "labels.json"
    known = json.loads(file.read_text()) if file.exists() else []
    for scenario in SCENARIOS:
        if only and scenario.name not in only:
            continue
        with tempfile.TemporaryDirectory(prefix="labelled-") as folder:
            began = time.monotonic()
            try:
                run(scenario, Path(folder))
                made = keep(Path(folder), scenario.name, scenario.labels)
            except (AssertionError, StopIteration, subprocess.SubprocessError) as error:
                print(f"{scenario.name}: {error}", flush=True)
                continue
            known = [each for each in known if not each["trial"].startswith(f"{scenario.name}/")] + made
            file.write_text(json.dumps(known, indent=1) + "\n")
            print(f"{scenario.name}: {len(made)} in {time.monotonic() - began:.0f} s", flush=True)
    for how, why in (("canceled", "somebody canceled it"), ("lost", "its processes were killed")):
        if only and how not in only:
            continue
        with tempfile.TemporaryDirectory(prefix="labelled-") as folder:
            run_stopped(Path(folder), how)
            subtype = "canceled" if how == "canceled" else "host"
            made = keep(Path(folder), how, {"oracle": ("harness_error", subtype, why)})
            known = [each for each in known if not each["trial"].startswith(f"{how}/")] + made
            file.write_text(json.dumps(known, indent=1) + "\n")
            print(f"{how}: {len(made)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
