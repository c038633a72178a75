"""The launch table: the one model of our own shape, which the published JSON Schema is made from.

``Table`` is the whole; ``TableHead`` and ``JobHead`` are the parts above ``jobs`` and ``steps``, so that
a large table can be validated piece by piece. Sections in Harbor's types (``task``, ``agent``,
``environment``, ``verifier``, ``artifacts``) are free here and checked by Harbor's own models.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from parallelhassnes.config import ClassRetry, FailureClass
from parallelhassnes.states import RetriedStatus

PRIORITY_WORDS = {"low": 0, "high": 100}


class Part(BaseModel):
    """Base of every part: unknown keys are errors, and no value is taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


def _open(description: str, **more: Any) -> Any:
    """Return a field that may be left out."""
    return Field(default=None, description=description, **more)


type Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
type Multiplier = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
type Count = Annotated[int, Field(ge=1, le=1_000_000)]
type Name = Annotated[str, Field(min_length=1, max_length=1000)]
type Env = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]
type HarborObject = dict[str, Any]


class RetryPart(Part):
    """How often a step is attempted; docs/failures.md has the table that this changes."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = _open("Attempts in all, the first one included.")
    backoff_sec: Annotated[float, Field(ge=0, le=86_400)] | None = _open(
        "Seconds before the first retry after a failure of the infrastructure; doubled for each after it."
    )
    classes: dict[FailureClass, ClassRetry] | None = _open("Failure class → what differs from docs/failures.md.")
    retry_on_statuses: Annotated[list[RetriedStatus], Field(min_length=1)] | None = _open(
        "Instead of by class: after which ends there is another attempt, `backoff_sec` later each time."
    )
    mode: Literal["begin_anew", "resume_last_attempt"] | None = _open(
        "kind `agent`: whether a retry goes on with the conversation of the attempt before it."
    )


class BudgetPart(Part):
    """What a batch may spend; beyond it nothing more of it starts."""

    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = _open("US dollars, as trials report them.")
    tokens: Annotated[int, Field(ge=0)] | None = _open("Input (from the cache, too) and output tokens together.")


class PassPart(Part):
    """When a trial has passed."""

    reward: Name | None = _open("Name of the main reward; default: the one called `reward`, or the only one.")
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = _open(
        "What the main reward must reach, within a relative 1e-9; default: 1."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.reward is None and self.at_least is None:
            raise ValueError("says nothing: give reward, at_least or both")
        return self


class EnoughPart(Part):
    """When the remaining trials of an agent on a task are not needed any more; either rule suffices."""

    successes: Count | None = _open("So many trials have passed.")
    half_width: Annotated[float, Field(gt=0, lt=1)] | None = _open(
        "Half of the 95 % Wilson interval of the pass rate is at most this."
    )


type Engine = Literal["rules", "codex", "claude", "api", "harbor"]


class AnalysisPart(Part):
    """How each trial is analysed once it has ended."""

    engine: Engine = Field(default="rules", description="Who looks at the trial.")
    model: Name | None = _open("The engine's model.")
    only_unknown: bool = Field(default=False, description="Ask the model only where the rules prove nothing.")
    max_input_tokens: Annotated[int, Field(ge=1000, le=1_000_000)] | None = _open(
        "Tokens of the trial that the model is shown; default: 30,000."
    )
    base_url: Name | None = _open("Engine `api`: the endpoint, up to and with `/v1`.")
    key_name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = _open(
        "Engine `api`: the variable that holds the key; `OPENAI_API_KEY`."
    )
    agent: Name | None = _open("Engine `harbor`: Harbor's name of the agent; `claude-code`.")
    environment: Literal["docker", "sandbox"] | None = _open("Engine `harbor`: where its trial runs; `docker`.")
    queue_key: Name | None = _open("What limits apply to; default: `analysis:<engine>`.")
    limit: Count | None = _open("Live analyses on that key at most.")
    timeout_sec: Seconds | None = _open("Seconds until an analysis is ended by force; default: 1800.")
    env: Env = Field(default_factory=dict, description="Environment variables of the analysis; no secrets.")


class VerdictPart(Part):
    """Who writes prose about each verdict; it decides nothing."""

    engine: Literal["codex", "claude", "api"] = Field(description="Who writes.")
    model: Name | None = _open("The engine's model.")
    base_url: Name | None = _open("Engine `api`: the endpoint, up to and with `/v1`.")
    key_name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = _open(
        "Engine `api`: the variable that holds the key; `OPENAI_API_KEY`."
    )
    queue_key: Name | None = _open("What limits apply to; default: `verdict:<engine>`.")
    timeout_sec: Seconds | None = _open("Seconds that the engine may take; default: 300.")


def _form(value: Any) -> str:
    """Tell how an engine was written, so that what is wrong with it is said of that form alone."""
    match value:
        case list():
            return "list"
        case dict() | AnalysisPart():
            return "dict"
        case _:
            return "str"


type AnalysisOne = Annotated[Annotated[Engine, Tag("str")] | Annotated[AnalysisPart, Tag("dict")], Discriminator(_form)]
type AnalysisAsked = Annotated[
    Annotated[Engine, Tag("str")] | Annotated[AnalysisPart, Tag("dict")] | Annotated[list[AnalysisOne], Tag("list")],
    Discriminator(_form),
]


class LoopPart(Part):
    """On a critic: it and the step that it judges take turns until its report says enough."""

    step_id: Name = Field(description="The step that is judged, of the same job.")
    max_rounds: Annotated[int, Field(ge=1, le=100)] = Field(
        description="Runs of that step at most; if none is enough, the critic needs attention."
    )
    until: Name = Field(
        description="Jinja expression over the critic's `report` (and `round`), as `report.verdict == 'accept'`."
    )


class FanInPart(Part):
    """The reports of which steps an agent is given; it waits for them."""

    labels: dict[str, str] = Field(
        description="Label → glob: jobs whose labels fit, without its own; `{}` for all others."
    )
    step_id: Name | None = _open("Which step of each job; default: its last one.")


class KeepField(Part):
    """Whether a trial's work is kept."""

    keep_workspace: bool | None = _open(
        "Keep what an agent leaves in its working directory, so that `regrade` can judge it again."
    )


class CapFields(Part):
    """What the agent of one attempt may use; where it has, it is ended, and its work is verified all the same."""

    max_cost_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = _open("US dollars.")
    max_tokens: Annotated[int, Field(gt=0)] | None = _open("Input (from the cache, too) and output tokens together.")
    max_turns: Count | None = _open("Answers of its model.")
    max_wall_sec: Seconds | None = _open("Seconds that it may work.")


class AgentWork(Part):
    """What may be said about agent steps at the table, the job and the step; the nearest one counts."""

    working_directory: Name | None = _open("Where the agent works; relative to `working_root`.")
    execution_policy: dict[str, Any] | None = _open(
        "`sandbox`, `approval_policy`, `web_search_enabled`, `model_reasoning_effort`, `add_dirs` …"
    )
    timeouts: dict[str, Any] | None = _open("`step_timeout_seconds`: seconds that a step may take.")
    retries: RetryPart | None = _open("As `retry`, in earlier tables.")
    workspace_policy: dict[str, Any] | None = _open("`mode`: `shared` or `isolated`.")
    output_schema_ref: Name | None = _open(
        "File with the JSON Schema of the agent's report; default: `run_report.schema.json`, which is built in."
    )
    artifacts_expected: list[str | dict[str, Any]] | None = _open("What must be in the workspace at the end.")
    agent: Name | dict[str, Any] | None = _open(
        "Who does agent steps: `codex` (default), `claude`, or `{name, command, program}`."
    )
    model: Name | None = _open("The model of agent steps.")
    effort: Name | None = _open("Short for `execution_policy.model_reasoning_effort`.")
    repair: Annotated[int, Field(ge=0, le=5)] | None = _open(
        "How often an agent is asked again, in its conversation, for a report that is not valid."
    )
    templates: bool | None = _open(
        "Whether prompts are templates; default: true, in tables of the earlier project false."
    )


class PackPart(AgentWork):
    """Settings and texts that steps share by name."""

    prompt: str | None = _open("Text before the step's prompt.")
    prompt_ref: Name | None = _open("File with text before the step's prompt.")
    append_prompt: str | None = _open("Text after the step's prompt.")


class AgentPart(Part):
    """An agent that needs more than its name."""

    name: Name | None = _open("`codex`, `claude`, or a name of your own; default: `template`.")
    command: Annotated[list[str], Field(min_length=1)] | None = _open(
        "A program and its arguments, with `{prompt_file} {schema_file} {output_file} {workdir}` in them."
    )
    program: Name | None = _open("Path of the CLI of `codex` or `claude`; default: the one on PATH.")


class ArtifactPart(Part):
    """A file that an agent must leave in its workspace."""

    name: Name | None = _open("What `artifact ID NAME` calls it.")
    glob: Name | None = _open("Relative to the workspace; `**` crosses folders. One file must fit.")
    path: Name | None = _open("As `glob`.")
    non_empty: bool = Field(default=True, description="Each file that fits must have content.")
    json_schema: dict[str, Any] | None = _open("Each file that fits must be JSON that is valid against this.")
    schema_ref: Name | None = _open("File with that schema.")


class ResourcesPart(Part):
    """What each attempt asks a cluster for, as a job of its own; docs/cluster.md says what that needs."""

    cpus: Annotated[int, Field(ge=1, le=100_000)] | None = _open("CPUs; default: the cluster's.")
    memory_mb: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = _open("Memory in MB; default: the cluster's.")
    gpus: Annotated[int, Field(ge=1, le=10_000)] | None = _open("GPUs.")
    partition: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,+-]{0,255}$")] | None = _open(
        "Where; default: the cluster's."
    )
    time: Annotated[str, Field(pattern=r"^([0-9]{1,4}-[0-9]{1,2}|[0-9]{1,7})(:[0-9]{1,2}){0,2}$")] | None = _open(
        "Time limit as Slurm writes it, such as `30` (minutes), `4:00:00` or `2-12`; default: the step's own limit and its grace."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("says nothing: give cpus, memory_mb, gpus, partition or time")
        return self


class TrialSettings(Part):
    """Harbor's settings of a trial besides task and agent, in Harbor's own types."""

    environment: Name | HarborObject | None = _open(
        "`docker`, `sandbox`, another Harbor environment type, or Harbor's EnvironmentConfig."
    )
    verifier: HarborObject | None = _open("Harbor's VerifierConfig.")
    artifacts: list[str | HarborObject] | None = _open("Paths of the environment to keep after the trial.")
    timeout_multiplier: Multiplier | None = _open("Factor on every timeout of the task.")
    agent_timeout_multiplier: Multiplier | None = Field(default=None)
    verifier_timeout_multiplier: Multiplier | None = Field(default=None)
    agent_setup_timeout_multiplier: Multiplier | None = Field(default=None)
    environment_build_timeout_multiplier: Multiplier | None = Field(default=None)
    extra_instructions: list[str] | None = _open("Texts appended to the task's instruction.")
    extra_instruction_paths: list[Name] | None = _open("Files whose text is appended to the task's instruction.")
    user_agent: HarborObject | None = _open("Harbor's UserAgentConfig: a simulated user.")
    install_only: bool | None = _open("Only set the agent up; no run, no verification.")


class Step(AgentWork, TrialSettings, CapFields, KeepField):
    """One node of a job's graph."""

    step_id: Any = _open(
        "Name of the step in its job, `step1` … by position if left out: 1 to 128 of `A-Z a-z 0-9 . _ -`.",
        json_schema_extra={"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"},
    )
    kind: Literal["command", "trial", "verdict", "agent", "analysis"] | None = _open(
        "Left out: `command` with a command, `trial` with a task, `agent` with a prompt."
    )
    depends_on: list[str] = Field(
        default_factory=list, description="Steps that must have succeeded: `step_id`, or `job_id/step_id`."
    )
    timeout_sec: Seconds | None = _open("Seconds from start to the step's end by force.")
    resources: ResourcesPart | None = _open("Have each attempt be a job of a cluster with these resources.")
    after: Literal["success", "end"] | None = _open(
        "`end`: it starts once what it depends on has ended, however it did; default: `success`."
    )
    gate: Literal["human"] | None = _open("`human`: it starts only once somebody has approved it.")
    queue_key: Name | None = _open("What concurrency limits apply to; default: model, agent or kind.")
    env: Env = Field(default_factory=dict, description="Environment variables of the step; no secrets.")
    retry: RetryPart | None = Field(default=None)
    labels: dict[str, str] = Field(default_factory=dict)
    command: Annotated[list[str], Field(min_length=1)] | None = _open(
        "kind `command`: program and arguments; no shell in between."
    )
    task: HarborObject | None = _open("kind `trial`: `{path}`, or Harbor's TaskConfig.")
    pass_: PassPart | None = _open("kind `trial`: what a pass is; instead of the table's.", alias="pass")
    agent: Name | HarborObject | None = _open(
        "kind `trial`: a name or Harbor's AgentConfig. kind `agent`: `codex`, `claude` …"
    )
    engine: Engine | None = _open("kind `analysis`: who looks at the trial that it depends on.")
    prompt: Annotated[str, Field(min_length=1)] | None = _open("kind `agent`: what the agent is asked.")
    prompt_ref: Name | None = _open("kind `agent`: file with the prompt, relative to the working directory.")
    append_prompt: str | None = _open("kind `agent`: text after the prompt.")
    pack_id: Name | None = _open("kind `agent`: name of a pack in `packs`.")
    resume_from: dict[str, Any] | None = _open(
        "kind `agent`: `{step_id, selector: latest_successful | latest | run_id, run_id, thread_id}`."
    )
    fan_in: FanInPart | None = _open("kind `agent`: it is given the reports of many jobs.")
    loop: LoopPart | None = _open("It is a critic: `{step_id, max_rounds, until}`.")
    timeout_seconds: Seconds | None = _open("As `timeout_sec`, in earlier tables.")
    retry_policy: RetryPart | None = _open("As `retry`, in earlier tables.")


class JobHead(AgentWork):
    """A unit with its own verdict, without its steps."""

    job_id: Any = _open(
        "Name of the job in its batch, `job1` … by position if left out.",
        json_schema_extra={"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"},
    )
    labels: dict[str, str] = Field(default_factory=dict)
    pack_id: Name | None = _open("Default of the steps' `pack_id`.")
    enough: EnoughPart | None = _open("Skip the remaining trials of an agent once this holds.")


class Job(JobHead):
    """A unit with its own verdict."""

    steps: Annotated[list[Step], Field(min_length=1)]


class SweepAgent(CapFields):
    """An agent of a sweep: Harbor's AgentConfig, and how often it runs."""

    name: Name | None = _open("Harbor's name of the agent.")
    import_path: Name | None = _open("`module:Class` of an agent of yours.")
    model_name: str | None = _open("`provider/model`.")
    n_trials: Count = Field(default=1, description="Trials of each task.")
    n_valid: Count | None = _open("Scored trials of each task: as `n_trials`, and unscored ones are attempted again.")
    max_extra: Annotated[int, Field(ge=0, le=1_000_000)] | None = _open(
        "With `n_valid`: extra attempts in all; default: twice `n_valid`."
    )
    env: dict[str, str] | None = _open("Environment of the agent; secrets as `${NAME}`.")
    kwargs: dict[str, Any] | None = _open("Arguments of the agent's class.")
    timeout_minutes: Annotated[float, Field(gt=0, le=525_600)] | None = _open("Minutes that the agent may take.")
    environment: Name | HarborObject | None = _open("Overrides the sweep's.")
    queue_key: Name | None = _open("Overrides the key of the model or agent.")
    override_timeout_sec: Seconds | None = None
    override_setup_timeout_sec: Seconds | None = None
    max_timeout_sec: Seconds | None = None
    resume_trajectory: bool | None = None
    load_trajectory: Name | None = None
    extra_allowed_hosts: list[str] | None = None
    include_logs: list[str] | None = None
    exclude_logs: list[str] | None = None
    skills: list[str] | None = None
    mcp_servers: list[HarborObject] | None = None


class Sweep(CapFields, KeepField):
    """Tasks × agents × repeats; one job per task, with a trial per agent and repeat and one verdict."""

    path: Name | list[Name] | None = _open("A task folder, a folder of tasks, or several of them.")
    dataset: Name | None = _open("A dataset: `name@version` of the registry, or `org/name@ref`.")
    task_names: list[str] | None = _open("Globs: only these tasks.")
    exclude_task_names: list[str] | None = _open("Globs: not these.")
    n_tasks: Count | None = _open("At most so many tasks.")
    agents: Annotated[list[SweepAgent], Field(min_length=1)]
    environment: Name | HarborObject | None = _open("`docker`, `sandbox`, … or Harbor's EnvironmentConfig.")
    harbor: TrialSettings | None = _open("Settings in Harbor's types.")
    timeout_minutes: Annotated[float, Field(gt=0, le=525_600)] | None = _open("Minutes that each agent may take.")
    timeout_sec: Seconds | None = _open("Seconds until a trial is ended by force.")
    resources: ResourcesPart | None = _open("Have each trial be a job of a cluster with these resources.")
    analysis: AnalysisAsked | None = _open("Engines that analyse each trial; instead of the table's.")
    baseline_gate: bool | None = _open("Instead of the table's.")
    pass_: PassPart | None = _open("What a pass is; instead of the table's.", alias="pass")
    priority: Annotated[int, Field(ge=-1000, le=1000)] | Literal["low", "high"] | None = None
    experiment_id: Name | None = _open("As the table's `experiment`.")
    enough: EnoughPart | None = _open("Skip the remaining trials of an agent on a task once this holds.")
    disable_verification: bool | None = None
    override_cpus: Count | None = None
    override_memory_mb: Annotated[int, Field(ge=1)] | None = None
    override_storage_mb: Annotated[int, Field(ge=1)] | None = None
    override_gpus: Annotated[int, Field(ge=0)] | None = None
    force_build: bool | None = None
    run_analysis: bool | None = _open("Of Oddish's files: as `analysis: rules`.")
    user: str | None = _open("Of Oddish's files; becomes a label.")
    tags: dict[str, str] | None = _open("Of Oddish's files; labels.")


class PlanPart(Part):
    """What the batch is to show, said before it runs."""

    question: Annotated[str, Field(min_length=1, max_length=2000)]
    primary_metric: Annotated[str, Field(max_length=2000)] = ""
    exclusions: Annotated[str, Field(max_length=2000)] = ""
    stop_rule: Annotated[str, Field(max_length=2000)] = ""


class TableHead(AgentWork, CapFields, KeepField):
    """A launch table without its jobs."""

    schema_: str | None = _open("For editors; not read.", alias="$schema")
    spec_version: Annotated[str, Field(pattern=r"^2(\.\d+){0,2}$")] = "2.0"
    experiment: Annotated[str, Field(max_length=200)] | None = _open("A label that several batches may share.")
    batch_goal_summary: str | None = _open("What the batch is for.")
    plan: PlanPart | None = _open(
        "What is to be found out and how, said before anything runs: the first line of the batch's ledger."
    )
    labels: dict[str, str] = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = _open("Higher starts first.")
    concurrency: Count | None = _open("Live attempts of this batch at most.")
    limits: dict[str, Count] = Field(
        default_factory=dict, description="Queue key → live attempts of this batch at most."
    )
    budget: BudgetPart | None = _open("What the batch may spend, in USD, tokens or both.")
    secrets: list[str] = Field(
        default_factory=list, description="Names of environment variables that every step needs; never values."
    )
    retry: RetryPart | None = _open("Default of the steps' `retry`.")
    working_root: Name | None = _open("Folder that agent steps' working directories are relative to.")
    packs: dict[str, Any] | None = _open("Named settings for agent steps.")
    default_pack_id: Name | None = None
    analysis: AnalysisAsked | None = _open("Engines that analyse each trial, in jobs and sweep.")
    verdict: VerdictPart | None = _open("An engine that writes prose about each verdict.")
    baseline_gate: bool = Field(
        default=False,
        description="Run `oracle` and `nop` of a task first; its other trials start only if these come out as they must.",
    )
    pass_: PassPart | None = _open("What a pass is: `{reward: NAME, at_least: X}`.", alias="pass")
    sweep: Sweep | None = None


class Table(TableHead):
    """A launch table: explicit jobs, or a sweep that expands into jobs, or both."""

    jobs: list[Job] = Field(default_factory=list, description="Jobs written out.")
