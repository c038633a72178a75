"""What ``parallelhassnes.toml`` says, with every default.

The file is the user's; nothing here writes it but ``init``. The configuration in force is snapshotted
into ``runs/_system/`` by the tick, and every attempt names the snapshot that it ran under.
"""

import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, override

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from parallelhassnes.errors import InvalidInput, Problem, UserError
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.states import CameTo

PASSED_IF_SET = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SHELL",
    "TERM",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "CODEX_HOME",
    "CLAUDE_CONFIG_DIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)
"""Variables that carry no secret and that programs expect; passed to every worker where they are set."""


type FailureClass = Literal[
    "rate_limit",
    "overloaded",
    "transient_provider",
    "auth",
    "quota",
    "unknown_model",
    "context_length",
    "refusal",
    "agent_timeout",
    "capped",
    "agent_error",
    "verifier",
    "infrastructure",
    "configuration",
    "task_definition",
    "canceled",
    "lost",
    "job_time_limit",
    "internal",
]
"""Every failure class; what each means is in ``steps/failures.py``."""

type Wait = Annotated[float, Field(ge=0, le=604_800, allow_inf_nan=False)]


class ClassRetry(BaseModel):
    """What is to differ from the table in docs/failures.md for one failure class; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    retry: bool | None = None
    """Whether a step is attempted again after such an end."""
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Attempts of a step that may end so before it is given up."""
    backoff_sec: Wait | None = None
    """Seconds before the first retry; doubled for each that follows."""
    max_backoff_sec: Wait | None = None
    """Seconds that a backoff grows to at most."""
    within_sec: Wait | None = None
    """Seconds from the first such end within which the last retry must start."""
    uses_attempt: bool | None = None
    """Whether such an attempt counts towards the step's ``max_attempts``."""
    top_up: bool | None = None
    """Whether a trial that must be scored (``n_valid``) gets an extra attempt for it."""


class RetryConfig(BaseModel):
    """How failed steps are attempted again, for whatever their tables leave out."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts of a step at most, the first included."""
    backoff_sec: float = Field(default=10.0, ge=0, le=86_400)
    """Time before the first retry after a failure of the infrastructure; doubled for each that follows."""
    classes: dict[FailureClass, ClassRetry] = {}
    """Failure class → what differs from docs/failures.md."""


class AdaptiveKey(BaseModel):
    """The bounds of one queue key."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    enabled: bool = True
    """Whether the limit of this key follows its provider."""
    floor: int | None = Field(default=None, ge=1, le=10_000)
    """Live attempts that this key is never limited below."""
    ceiling: int | None = Field(default=None, ge=1, le=10_000)
    """Live attempts that its limit grows to at most."""


class AdaptiveConfig(BaseModel):
    """How the limit of a queue key follows what its provider says."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    enabled: bool = True
    """Whether limits follow their providers."""
    floor: int = Field(default=1, ge=1, le=10_000)
    """Live attempts that a key is never limited below."""
    window_sec: float = Field(default=60.0, gt=0, le=86_400)
    """Decreases are at least so far apart: the failures of one provider window are one signal."""
    quiet_sec: float = Field(default=120.0, gt=0, le=86_400)
    """After so long without a signal the limit grows by one, and by one more after each further period."""
    decrease: float = Field(default=0.5, gt=0, lt=1)
    """What the limit is multiplied with at a signal."""
    probe_sec: float = Field(default=600.0, gt=0, le=86_400)
    """A key paused by its provider gets one attempt after so long; doubled after each that fails."""
    keys: dict[str, AdaptiveKey] = {}
    """Queue key → its own bounds."""


class Budget(BaseModel):
    """What may be spent; at least one of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Money that attempts may cost together."""
    tokens: int | None = Field(default=None, ge=0)
    """Input (from the cache, too) and output together."""


class Budgets(BaseModel):
    """What may be spent over all batches."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    keys: dict[str, Budget] = {}
    """Queue key → budget."""
    experiments: dict[str, Budget] = {}
    """Experiment → budget of all its batches together."""


type Auth = Literal["none", "user", "token"]
"""Who may use the HTTP interface: everybody on this host; processes of the user who runs it, if they belong to no
attempt, and holders of tokens; holders of tokens alone."""


class ApiConfig(BaseModel):
    """The HTTP interface: ``parallelhassnes api``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8765, ge=0, le=65_535)
    """0 for any that is free."""
    unix_socket: str | None = None
    """A socket in the file system to listen on, instead of a port; relative to the root."""
    auth: Auth | None = None
    """Who may use it besides holders of tokens; left out: ``user``, where the kernel can tell whose connection it is."""
    tick_sec: float = Field(default=10.0, ge=0.1, le=3600)
    """Time between two ticks of the server's own ticking process."""
    hosts: tuple[str, ...] = ()
    """Names under which browsers reach it besides this host's own, as that of a proxy in front of it."""
    proxies: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Addresses and networks of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path below which a proxy has the server, such as ``/runs``, whether it takes it off or leaves it on."""
    head_sec: float = Field(default=15.0, gt=0, le=3600)
    """Time that a client has for a request's first line and headers."""
    body_sec: float = Field(default=60.0, gt=0, le=3600)
    """Longest pause within a request's body."""
    max_body_mb: int = Field(default=64, ge=1, le=1024)
    """Size of a request's body at most, uploads not included."""
    max_upload_mb: int = Field(default=512, ge=1, le=100_000)
    """Size of an uploaded archive at most."""
    max_unpacked_mb: int = Field(default=4096, ge=1, le=1_000_000)
    """Size of what an uploaded archive unpacks to at most."""

    @field_validator("proxies")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        import ipaddress

        for text in value:
            ipaddress.ip_network(text, strict=False)
        return value


class Bounds(BaseModel):
    """What is kept of an attempt, and how long its end may take; what is past them is left out, and its seal says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    max_mb: int = Field(default=51_200, ge=1)
    """Data of all its files together; holes of sparse files do not count."""
    max_files: int = Field(default=1_000_000, ge=100)
    """Entries of all its folders together."""
    max_depth: int = Field(default=128, ge=8, le=400)
    """Folders within folders."""
    max_sec: float = Field(default=1800.0, gt=0, le=604_800)
    """Time for looking at all of it for secrets and for sealing it."""
    cancel_sec: float = Field(default=60.0, gt=0, le=604_800)
    """As ``max_sec``, from when the attempt is cancelled."""


class AuditConfig(BaseModel):
    """Checkpoints: who signs them, and where they are sent."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    key: str | None = None
    """File of an SSH key without a passphrase, or of the public half of one that an ssh-agent holds; relative to the root.
    Best that of a user that workers do not run as."""
    hook: tuple[str, ...] = ()
    """Command that takes each new checkpoint elsewhere; the file, and that of its signature, are added at its end."""
    hook_timeout_sec: float = Field(default=120.0, gt=0, le=86_400)
    """Time that the hook has before it is ended."""
    send_to: str | None = None
    """Where each new checkpoint is written, too, and never again: ``s3://BUCKET/FOLDER``, ``gs://…``, ``az://…`` or a folder, relative to the
    root. Best a bucket that locks what it has. Credentials stand in the environment or in ``env_file``, never here."""

    @field_validator("send_to")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        return value if value is None else check_archive_url(value)


type NotifyEvent = Literal["batch_ended", "gate_waits", "key_paused", "budget_reached", "nothing_ticks"]
"""What people can be told of."""


class NotifyConfig(BaseModel):
    """Whom to tell of what happens, by Apprise: mail, chats, web hooks."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    to: tuple[str, ...] = ()
    """Names of variables, set in ``env_file`` or in the environment of whatever ticks, each with the URL of a service of
    Apprise (``json://host/path``). A URL itself is refused here: it may hold a secret."""
    events: tuple[NotifyEvent, ...] = ("batch_ended", "gate_waits", "key_paused", "budget_reached", "nothing_ticks")
    """What to tell of."""
    timeout_sec: float = Field(default=30.0, gt=0, le=600)
    """Time that a service has for one message."""

    @field_validator("to")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None for name in value):
            raise ValueError("name the variables that hold the URLs; no URL stands here")
        return value


class SlurmConfig(BaseModel):
    """Attempts of steps with ``resources``, each a job of Slurm of its own."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    jobs: int = Field(default=0, ge=0, le=100_000)
    """Such jobs at once at most, those that are pending among them; 0 refuses steps with ``resources``."""
    options: tuple[str, ...] = ()
    """Further options of sbatch for each of them: ``["--account=x"]``."""


class RetentionRule(BaseModel):
    """Attempts that have what the rule names: for how long their files are kept, beside records and reports, which always are."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """By which `gc`, the ledger and an audit tell of it."""
    after_days: float | None = Field(default=None, ge=0, le=36_525, allow_inf_nan=False)
    """Days after an attempt's end that its files are removed; left out, with ``keep``: never."""
    keep: bool = False
    """The files are kept, whatever rules below say."""
    experiments: tuple[str, ...] = ()
    """Labels of batches, with ``*`` and ``?``; none: any."""
    labels: dict[str, str] = {}
    """What the ``labels`` of a batch's table must say, all of it, with ``*`` and ``?``; none: any."""
    outcomes: tuple[CameTo, ...] = ()
    """What the attempt came to; none: anything."""
    min_mb: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Size of what would be removed of the attempt, below which the rule does not speak of it."""
    archived: bool = False
    """The rule speaks only of attempts that ``archive`` has; each is read there and proved before its files go."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.keep == (self.after_days is not None):
            raise ValueError(f"the rule {self.name} needs after_days, or keep = true, and not both")
        if self.keep and self.archived:
            raise ValueError(f"the rule {self.name} removes nothing; write archived = true into one with after_days")
        return self

    @override
    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def says(self) -> str:
        """The rule in words."""
        parts = ["never" if self.after_days is None else f"after {self.after_days:g} days"]
        parts += [", ".join(self.outcomes)] if self.outcomes else []
        parts += [f"of {', '.join(self.experiments)}"] if self.experiments else []
        parts += (
            [f"labeled {', '.join(f'{name}={value}' for name, value in self.labels.items())}"] if self.labels else []
        )
        parts += [f"from {self.min_mb:g} MB"] if self.min_mb else []
        parts += ["archived"] if self.archived else []
        return "; ".join(parts)


class RetentionConfig(BaseModel):
    """What `gc` removes and packs, when somebody or cron runs it. Nothing is removed by itself."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    pack_after_days: float | None = Field(default=None, ge=0, le=36_525, allow_inf_nan=False)
    """Days after its end that a batch is packed; left out: never."""
    rules: tuple[RetentionRule, ...] = ()
    """Of the rules that fit an attempt the first decides; one that none fits is kept."""

    @field_validator("rules")
    @classmethod
    def _are_reached(cls, value: tuple[RetentionRule, ...]) -> tuple[RetentionRule, ...]:
        for at, rule in enumerate(value):
            for before in value[:at]:
                if before.name == rule.name:
                    raise ValueError(f"two rules are called {rule.name}")
                if not (before.experiments or before.labels or before.outcomes or before.min_mb or before.archived):
                    raise ValueError(f"the rule {rule.name} is never reached: {before.name} above it fits everything")
        return value


class Config(BaseModel):
    """The settings of one root. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    runner_id: str = Field(default="local", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")
    """Name of this host under ``runners/``."""
    concurrency: int = Field(default=max(8, 2 * (os.cpu_count() or 1)), ge=1, le=10_000)
    """Live attempts on this host at most, over all batches and queue keys; by default twice its CPUs, 8 at least."""
    limits: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = {}
    """Queue key → live attempts at most."""
    aliases: dict[str, str] = {}
    """Model name or queue key → the queue key to use instead."""
    env_file: str | None = None
    """File of ``NAME=value`` lines, as python-dotenv reads them, that secrets are taken from at launch; relative to the root."""
    secrets: tuple[str, ...] = ()
    """Names of environment variables passed to every step where they are set."""
    feedback_markers: tuple[str, ...] = ("PROMPT_AMBIGUITY", "MISSING_INPUT", "PROMPT_DELTA")
    """Words that begin a line of an agent's final text which ``feedback`` gathers."""
    environment: str = "docker"
    """Harbor environment of a trial that names none."""
    retry: RetryConfig = RetryConfig()
    adaptive: AdaptiveConfig = AdaptiveConfig()
    start_rate: dict[str, Annotated[float, Field(gt=0, le=1000)]] = {"docker": 4.0}
    """Environment of a trial → trials started per second at most, over all batches; none where it is not named."""
    heartbeat_sec: float = Field(default=5.0, gt=0, le=300)
    """Time between two heartbeats of a supervisor."""
    grace_sec: float = Field(default=20.0, gt=0, le=3600)
    """Time that a worker has to end cleanly before it is killed."""
    stuck_after_sec: float = Field(default=1800.0, ge=0, le=604_800)
    """An attempt of which nothing has moved (phase, logs, CPU time) for so long is shown as stuck; 0 for never."""
    on_stuck: Literal["note", "retry"] = "note"
    """``retry`` also stops a stuck attempt, as a failure of the infrastructure, which is retried."""
    private: bool = True
    """Keep other users of this host out of ``runs/``."""
    min_free_disk_mb: int = Field(default=1024, ge=0)
    """Free space below which nothing starts; 0 for no floor."""
    min_free_files: int = Field(default=10_000, ge=0)
    """Files (inodes) that may still be made, below which nothing starts; 0 for no floor."""
    min_free_memory_mb: int = Field(default=256, ge=0)
    """Available memory below which nothing starts; 0 for no floor."""
    max_steps: int = Field(default=1_000_000, ge=1)
    """Steps that one table may unfold to, with what is added to its batch later."""
    max_log_mb: int = Field(default=64, ge=1)
    """Size of each log of an attempt beyond which its middle is cut out."""
    bounds: Bounds = Bounds()
    budgets: Budgets = Budgets()
    api: ApiConfig = ApiConfig()
    audit: AuditConfig = AuditConfig()
    slurm: SlurmConfig = SlurmConfig()
    notify: NotifyConfig = NotifyConfig()
    retention: RetentionConfig = RetentionConfig()
    archive: str | None = None
    """Where ``archive`` keeps batches: ``s3://BUCKET/FOLDER``, ``gs://…``, ``az://…`` or a folder, relative to the root. Credentials stand in the
    environment or in ``env_file``, never here."""
    archive_while_running: bool = False
    """Send each attempt there after its end, by a process beside the passes, and the batch when it is over."""
    archive_mb_per_sec: float = Field(default=0.0, ge=0, le=100_000)
    """What that process sends per second at most; 0 for all that goes."""
    archive_timeout_sec: float = Field(default=60.0, ge=1, le=3_600)
    """Time that a server of buckets may leave a request without an answer before it is given up. What is sent meanwhile, 8 MB at most, counts:
    longer for a slow line."""
    durable: bool = True
    """Wait for the disk (fsync) before the queue says that something is there. Off only for throw-away runs."""

    @field_validator("archive")
    @classmethod
    def _is_an_archive(cls, value: str | None) -> str | None:
        return value if value is None else check_archive_url(value)

    @model_validator(mode="after")
    def _has_an_archive(self) -> Self:
        if self.archive_while_running and self.archive is None:
            raise ValueError("archive_while_running needs archive, the URL to send to")
        asks = next((rule.name for rule in self.retention.rules if rule.archived), None)
        if asks is not None and self.archive is None:
            raise ValueError(f"the rule {asks} asks for what is archived, and archive is not set")
        return self

    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


ARCHIVE_VARIABLES = {
    "s3": "AWS_",
    "s3a": "AWS_",
    "gs": "GOOGLE_",
    "az": "AZURE_",
    "azure": "AZURE_",
    "abfs": "AZURE_",
    "abfss": "AZURE_",
}
"""Scheme of an archive's address → what the names of its provider's variables begin with."""


def check_archive_url(url: str) -> str:
    """Return the address of an archive; a path is that of a folder.

    Raises:
        ValueError: it names no such place, or may hold what is to be in the environment; says which, and not what it is.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        if not url.strip():
            raise ValueError("names no folder")
        return url
    if scheme not in ARCHIVE_VARIABLES and scheme != "file":
        raise ValueError(
            "is no address of an archive; give s3://, gs:// or az:// with bucket and folder, or the path of a folder"
        )
    where, _, _ = rest.partition("/")
    if scheme != "file" and (
        re.search(r"[?#]", rest) or re.search(r"[:@]", where if "abfs" not in scheme else where.replace("@", "", 1))
    ):
        raise ValueError(
            "may hold a credential; give bucket and folder alone, and set the credential in the environment"
        )
    if not rest.strip("/"):
        raise ValueError("names no bucket or folder")
    return url


def load_config(root: Path) -> Config:
    """Read the root's configuration; a missing file means the defaults.

    Raises:
        InvalidInput: the file does not parse, or has values that cannot be used; every one is listed.
    """
    path = root / CONFIG_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return parse_config(data, path)


def parse_config(data: bytes, path: Path) -> Config:
    """Tell what the bytes of a configuration say.

    Args:
        path: named in what is wrong with them.

    Raises:
        InvalidInput: they do not parse, or have values that cannot be used; every one is listed.
    """
    try:
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput([Problem(str(path), "", f"is not valid TOML: {error}")]) from None
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(
            [
                Problem(
                    str(path),
                    ".".join(str(part) for part in item["loc"]),
                    item["msg"].lower().removeprefix("value error, "),
                )
                for item in error.errors()
            ]
        ) from None
