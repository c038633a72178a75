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
        "--n-attempts",
        "-k",
        "--n-trials",
        min=1,
        max=1_000_000,
        help="Trials per task and agent, as Harbor's -k. [default: 1]",
    ),
]
ValidOption = Annotated[
    int | None, typer.Option("--n-valid", min=1, help="Scored trials per task and agent: unscored ones run again.")
]
EnvironmentOption = Annotated[
    str | None, typer.Option("--env", "-e", help="docker, sandbox or another Harbor environment.")
]
EnvironmentKwargOption = Annotated[
    Texts, typer.Option("--ek", "--environment-kwarg", metavar="NAME=VALUE", help="For the environment; JSON or text.")
]
VerifierEnvOption = Annotated[
    Texts, typer.Option("--ve", "--verifier-env", metavar="NAME=VALUE", help="For the verifier.")
]
EnvFileOption = Annotated[
    Path | None, typer.Option("--env-file", metavar="FILE", help="Variables to set here first, as lines NAME=VALUE.")
]
TaskOption = Annotated[
    Texts,
    typer.Option(
        "--task-name", "-t", "--include-task-name", "-i", help="Only tasks that match; may be repeated (Harbor's -i)."
    ),
]
ExcludeOption = Annotated[
    Texts, typer.Option("--exclude-task-name", "-x", help="No tasks that match; may be repeated.")
]
TasksOption = Annotated[int | None, typer.Option("--n-tasks", "-l", min=1, help="The first N tasks only.")]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option("--n-concurrent", "-n", "--concurrency", "-j", min=1, help="Live attempts at most, as Harbor's -n."),
]
ExperimentOption = Annotated[str | None, typer.Option("--experiment", "-E", "--job-name", help="Label of the batch.")]
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
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would run, and leave it at that.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Start, print the batch id and do not wait.")]
PassOption = Annotated[
    str | None,
    typer.Option(
        "--pass",
        metavar="NAME>=X",
        help="What a pass is: a reward's name, what it must reach, or both. [default: reward>=1]",
    ),
]
MaxCostOption = Annotated[
    float | None,
    typer.Option(
        "--max-cost-usd", metavar="USD", help="End an agent that has cost so much; it is scored all the same."
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", help="Likewise: input and output tokens together.")
]
MaxTurnsOption = Annotated[int | None, typer.Option("--max-turns", metavar="N", help="Likewise: answers of its model.")]
MaxWallOption = Annotated[
    float | None, typer.Option("--max-wall-sec", metavar="SEC", help="Likewise: seconds that it works.")
]
KeepOption = Annotated[
    bool, typer.Option("--keep-workspace", help="Keep what an agent leaves in its working directory, for regrade.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no scoreboard.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a report at the end: .html, or .md for Markdown.")
]
