"""The options of ``run``, and those that other commands share with it."""

from pathlib import Path
from typing import Annotated

import typer

Texts = list[str] | None

PathsArgument = Annotated[Texts, typer.Argument(metavar="PATH…", help="Task folders, or folders of tasks.")]
PathOption = Annotated[Texts, typer.Option("--path", "-p", help="As PATH; may be repeated.")]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", "-d", help="A dataset, as Harbor names it: name@version.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="A table, an Oddish sweep or a Harbor job config.")
]
AgentOption = Annotated[Texts, typer.Option("--agent", "-a", help="An agent; may be repeated. [default: oracle]")]
ModelOption = Annotated[
    Texts, typer.Option("--model", "-m", help="A model for each agent that takes one; may be repeated.")
]
TrialsOption = Annotated[
    int | None,
    typer.Option(
        "--n-trials", "-n", "-k", "--n-attempts", min=1, max=1_000_000, help="Trials per task and agent. [default: 1]"
    ),
]
ValidOption = Annotated[
    int | None, typer.Option("--n-valid", min=1, help="Scored trials per task and agent: unscored ones run again.")
]
EnvironmentOption = Annotated[
    str | None, typer.Option("--env", "-e", help="docker, sandbox or another Harbor environment.")
]
TaskOption = Annotated[Texts, typer.Option("--task-name", "-t", help="Only tasks that match; may be repeated.")]
ExcludeOption = Annotated[
    Texts, typer.Option("--exclude-task-name", "-x", help="No tasks that match; may be repeated.")
]
TasksOption = Annotated[int | None, typer.Option("--n-tasks", "-l", min=1, help="The first N tasks only.")]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option("--concurrency", "-j", "--n-concurrent", min=1, help="Live attempts at most (Harbor's -n)."),
]
ExperimentOption = Annotated[str | None, typer.Option("--experiment", "-E", help="Label of the batch.")]
PriorityOption = Annotated[int | None, typer.Option("--priority", "-P", help="Higher starts first.")]
SecretOption = Annotated[
    Texts, typer.Option("--secret", metavar="NAME", help="Environment variable to pass on; may be repeated.")
]
AgentEnvOption = Annotated[Texts, typer.Option("--ae", "--agent-env", metavar="NAME=VALUE", help="For the agent.")]
AgentKwargOption = Annotated[
    Texts, typer.Option("--ak", "--agent-kwarg", metavar="NAME=VALUE", help="For the agent; JSON or text.")
]
TimeoutMultiplierOption = Annotated[
    float | None, typer.Option("--timeout-multiplier", help="Factor on every timeout of the tasks.")
]
AnalyzeOption = Annotated[bool, typer.Option("--analyze", help="Analyse each trial by the rules (no model).")]
AnalyzeWithOption = Annotated[
    Texts,
    typer.Option(
        "--analyze-with", metavar="ENGINE[:MODEL]", help="Analyse each trial with this engine; may be repeated."
    ),
]
BaselineGateOption = Annotated[
    bool,
    typer.Option(
        "--baseline-gate", help="Run oracle and nop of a task first; the others only if these come out as they must."
    ),
]
PassOption = Annotated[
    str | None,
    typer.Option(
        "--pass",
        metavar="NAME>=X",
        help="What a pass is: a reward's name, what it must reach, or both. [default: reward>=1]",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no scoreboard.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a report at the end: .html, or .md for Markdown.")
]
