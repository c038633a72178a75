"""The failure classes, and the one table of rules that gives a class to whatever ended an attempt.

Trials, agent steps, analyses and a verdict's prose ask here. ``steps/failure_evidence.py`` finds what there is to go by: what a
provider (or a CLI's last error event) *said*, its HTTP status, its own codes, and the exception around it. ``RULES`` is
the documentation: rules are tried from top to bottom and the first that fits decides. Codes and plain words of a provider
stand before statuses, statuses before weaker words, types after those, and a phase decides last, as a guess.
"""

import re
from typing import Literal, NamedTuple, get_args

from parallelhassnes.config import FailureClass

type Phase = Literal["create", "environment_setup", "agent", "verifier"]
"""Where a trial stood: ``create`` is before Harbor has a trial at all, ``environment_setup`` includes
the setup of the agent."""

CLASSES: tuple[str, ...] = get_args(FailureClass.__value__)
"""Every failure class there is. ``task_definition`` is whatever is wrong with what was asked for (task,
table, program name); ``configuration`` is what is missing around it (a key, a model's name, a pip extra);
``capped`` is an agent that was ended because it had used what a table or an operator lets it use; ``internal`` is our own fault; ``lost`` is an attempt whose end nobody saw; ``job_time_limit`` one whose cluster's job was out of time."""

PROVIDER_CLASSES = frozenset({"rate_limit", "overloaded", "transient_provider", "auth", "quota", "unknown_model"})
"""The classes in which a provider did not serve the agent."""

NEVER_SCORED = PROVIDER_CLASSES | {"configuration"}
"""The classes of exceptions beside which a score is not the agent's.

Harbor runs the tests also after an agent's program ended so, and the 0 that they give would be held against it. The
rule does not look at the score, because one that let a 1 count and a 0 be repeated would flatter the agent."""

AGENTS_RESULTS = frozenset({"context_length", "refusal"})
"""The classes of what a provider refused because of the tested agent: a score beside them counts, whatever Harbor makes
of the type that it came with."""

INFRASTRUCTURE_CLASSES = frozenset({"infrastructure", "configuration", "lost", "job_time_limit", "internal"})
"""The classes that say nothing about the task, the agent or its model."""


UNABLE = r"environment does not support|is not supported by \S+ environment"
"""What Harbor says of a task that asks for more than its environment can do: GPUs, a network policy …"""


class Evidence(NamedTuple):
    """What there is to go by."""

    type: str = ""
    """The last part of the exception's name."""
    message: str = ""
    """Of the exception, whole."""
    phase: Phase | None = None
    said: str = ""
    """What a provider said, or a CLI in its error event; empty where none of them spoke."""
    status: int | None = None
    """The provider's HTTP status."""
    codes: frozenset[str] = frozenset()
    """The provider's own codes and types of errors, in lower case."""
    harbor: str = ""
    """What Harbor's own table says of the type, from 0.25 on: ``retry, no grade``, ``final, no grade``, ``retry, no reward``,
    ``final, no reward``; empty where it says nothing."""


class FailureVerdict(NamedTuple):
    """What an attempt ended by."""

    failure_class: str
    rule: str
    """The name of the rule that decided."""
    guessed: bool = False
    """By the phase or by a status that says little: nobody named the cause."""
    said: str = ""
    """What a provider or a CLI said, where one of them spoke."""


class FailureRule(NamedTuple):
    """One row: it fits if every column that is given fits."""

    name: str
    failure_class: str
    codes: str = ""
    """A regular expression that matches one of the provider's codes as a whole."""
    words: str = ""
    """A regular expression searched for in what was said, case ignored."""
    also: str = ""
    """Another one, besides ``words``."""
    unless: str = ""
    """One that must not be found in the same text."""
    status: tuple[int, int] | None = None
    """The first and the last HTTP status."""
    not_status: tuple[int, int] | None = None
    """Statuses with which it does not fit."""
    types: str = ""
    """Names of exception types, separated by spaces."""
    message: str = ""
    """A regular expression searched for in the exception's whole message, also where nobody spoke."""
    phases: str = ""
    """Where the trial must have stood, the phases separated by spaces."""
    harbor: tuple[str, ...] = ()
    """What Harbor's own table must say."""
    guess: bool = False
    """Whether the class is one that nobody named."""


_LIMITS = r"limit|quota|exhaust|throttl|too many|exceed|rate"
_KEYS = r"api[_ -]?keys?|credentials?|auth(?:entication)?[_ ]token|access[_ ]token"
_NO_KEY = (
    rf"(?:missing|no|without)(?: an?y?| the| your| \w+)? (?:{_KEYS}|auth credentials)\b(?! (?:permission|access))|"
    rf"(?:{_KEYS})(?: client option)?\b[^.\n]{{0,60}}?\b(?:must be set|(?:is|are|was) (?:required|not set|missing|not configured|not provided))|"
    r"environment variables? [^\n]{0,80}?(?:not set|must be set|is required|are required)|"
    r"[A-Z_]{3,}_(?:API_KEY|TOKEN|ACCESS_KEY_ID)\b[^.\n]{0,40}?(?:not set|must be set|is required|not found|missing|unset)|"
    r"unable to locate credentials|default credentials were not found|didn.t provide an api key|missing bearer|"
    r"missing authorization header|x-api-key header is required|allow unregistered callers"
)
_WRONG_KEY = r"invalid|incorrect|wrong|expired|revoked|not valid|malformed"
_NO_MODEL = (
    r"model(?:[_ ]name)? (?:is required|is not set|must be (?:set|given|specified|provided))|"
    r"no model(?: name)? (?:was |is )?(?:given|specified|provided|set|selected|configured)|"
    r"llm provider not provided|must (?:be in the format|provide a model|specify a model)|missing (?:required )?model"
)
_BALANCE = (
    r"credit balance|insufficient[_ ](?:funds|balance|credits?)|payment required|unpaid invoice|arrear|"
    r"(?:no|out of|not enough|requires? more|run out of|depleted) (?:\w+ )?credits?|(?:n.t|not) have (?:any|enough|sufficient) (?:\w+ )?(?:credits?|balance|funds)|credits? (?:are |is |have been |has been )?(?:depleted|exhausted|used up)|"
    r"can only afford|billing (?:hard )?limit|spend(?:ing)?[ _-](?:limit|cap)|budget (?:has been |was )?exceeded|exceeded (?:\w+ )?budget|"
    r"key limit exceeded|credit limit|upgrade to paid|balance is (?:too low|not enough|insufficient)|"
    r"account (?:is )?(?:not active|suspended|deactivated)[^\n]{0,60}(?:billing|payment)|recharge|top up your"
)
_WINDOW = (
    r"\bper[ _-]?(?:second|sec|minute|min|hour|day)\b|(?<![a-z])[rt]p[smhd](?![a-z])|per(?:second|minute|hour|day)|"
    r"/ ?(?:min|minute|sec|second|hour|day)\b"
)
_MODEL_UNABLE = r"not enabled for (?:this |the )?models?\b|(?<!/)\bmodels?\b[^.\n]{0,80}\bsupport|\bsupport\w*\b[^.\n]{0,60}(?<!/)\bmodels?\b"
_AGENTS_OWN = (
    r"\bmessages\b|\btool[ _](?:use|call|result|response|output)|\bfunction[ _]?(?:call|response)|\bcall_id\b|\broles?\b|"
    r"\bassistant\b|\bturns?\b|\binput\[\d|\bcontents?[.\[]"
)
_ASKED = (
    r"api[ _-]?keys?\b|\bcredentials?\b|\bcredits?\b|\baccounts?\b|\borgani[sz]ation|\bsubscription|\bregion\b|\bendpoint\b|"
    r"\bdeployment\b|api[ _-]version|\bheaders?\b|(?<!/)\bmodels?\b(?![ _](?:group|output))|\bparameters?\b|\boptions?\b|\bsettings?\b|"
    r"\btemperature\b|\btop_[pk]\b|\bmax_(?:\w+_)?tokens\b|\breasoning|\bthinking\b|\bresponse_format\b|\btool_choice\b|"
    r"\bservice_tier\b|extra (?:inputs|fields)|unrecognized request|unknown (?:name|field)"
)
_SETTING = rf"{_MODEL_UNABLE}|\A(?![\s\S]*(?:{_AGENTS_OWN}))[\s\S]*?(?:{_ASKED})"
"""A key, credit, a model or a parameter, in a text that does not speak of the agent's own messages and calls."""
_RETRY_IN = r"(?:re)?try(?:ing)?(?: your request)?(?: again)? (?:in|after) \W?\d|retry[-_ ]?(?:after|delay)\W{1,6}\d"
CODEX_5XX = r"\AWe.re currently experiencing high demand, which may cause temporary errors\.\Z"
"""What Codex says for a 500, which is no overload."""

RULES: tuple[FailureRule, ...] = (
    FailureRule("canceled", "canceled", types="CancelledError KeyboardInterrupt"),
    FailureRule("cap reached", "capped", types="AgentCappedError"),
    # What is missing around the trial: nobody was asked, or nobody could be.
    FailureRule("missing extra", "configuration", types="MissingExtraError DspyImportError"),
    FailureRule("job plugin", "configuration", types="PluginError"),
    FailureRule(
        "missing extra, told",
        "configuration",
        types="ImportError ModuleNotFoundError",
        message=r"pip install|\[\w+\]['\"]? extra",
    ),
    FailureRule("missing module", "configuration", types="ModuleNotFoundError", phases="environment_setup agent"),
    FailureRule("missing key", "configuration", words=_NO_KEY, unless=_WRONG_KEY),
    FailureRule(
        "missing key, told",
        "configuration",
        message=_NO_KEY,
        unless=_WRONG_KEY,
        types="ValueError KeyError RuntimeError EnvironmentError OSError InternalServerError AuthenticationError NoCredentialsError PartialCredentialsError DefaultCredentialsError OpenAIError UserError Exception",
    ),
    FailureRule(
        "key that cannot be sent",
        "configuration",
        message=r"codec can't encode character|forbidden control character detected in headers|(?:illegal|invalid) header value",
        types="InternalServerError APIConnectionError APIError OpenAIError",
    ),
    FailureRule(
        "missing credentials",
        "configuration",
        types="NoCredentialsError PartialCredentialsError DefaultCredentialsError",
    ),
    FailureRule("missing model", "configuration", words=_NO_MODEL),
    FailureRule("missing model, told", "configuration", types="ValueError RuntimeError UserError", message=_NO_MODEL),
    FailureRule(
        "unsupported parameter",
        "configuration",
        codes=r"unsupported_(?:parameter|value)|unknown_parameter",
        unless=r"context|too long",
    ),
    FailureRule(
        "unsupported parameter, type", "configuration", types="UnsupportedParamsError UnsupportedModelParametersError"
    ),
    FailureRule("schema", "task_definition", words=r"invalid schema|invalid_json_schema"),
    FailureRule(
        "account's setting",
        "configuration",
        words=r"no endpoints? [^\n]{0,80}?(?:data policy|privacy)|no allowed providers|all providers have been ignored",
    ),
    # What a provider said, by its own codes and by words that leave no doubt.
    FailureRule(
        "credit code",
        "quota",
        codes=r"insufficient_(?:quota|funds|balance|credits?)|billing_\w+|budget_exceeded|credit\w*_(?:exhausted|exceeded)|payment_required|arrearage",
        unless=_WINDOW,
    ),
    FailureRule("credit", "quota", words=_BALANCE),
    FailureRule("payment required", "quota", status=(402, 402)),
    FailureRule("Codex 5xx", "transient_provider", words=CODEX_5XX),
    FailureRule("window", "rate_limit", words=_WINDOW, also=_LIMITS, not_status=(500, 599)),
    FailureRule("allowance", "quota", words=r"(?:usage|hit your|monthly|weekly) limit|limit reached \W ?resets"),
    FailureRule("retry in", "rate_limit", words=_RETRY_IN, also=_LIMITS, not_status=(500, 599)),
    FailureRule(
        "rate code",
        "rate_limit",
        codes=r"(?:.*\.)?(?:rate_?limit\w*|too_?many_?requests\w*|throttl\w*(?:\.\w+)?|resource_exhausted|limit_(?:requests|tokens)|requestlimitexceeded|quotaexceeded)",
    ),
    FailureRule(
        "context code",
        "context_length",
        codes=r"context_length\w*|context_window\w*|string_above_max_length|request_too_large|input_too_long|prompt_too_long",
    ),
    FailureRule(
        "context",
        "context_length",
        words=r"context[_ -]?(?:window|length|limit|size)|maximum context|(?:prompt|input|messages?) (?:is |are )?too (?:long|large)|request too large|token count\b[^.\n]{0,60} exceeds|exceeds the (?:maximum|max|model.s)[^.\n]{0,30} (?:tokens?|length)|reduce the length|output token maximum|max(?:imum)? (?:prompt|input|sequence) length|range of input length should be|inputs?\W{1,3}must have less than \d+ tokens|tokens?\W{1,3}\+ \W?max_(?:\w+_)?tokens\W{1,3}must be|(?:max_(?:\w+_)?tokens|output limit)\b[^.\n]{0,40} reached",
    ),
    FailureRule("context status", "context_length", status=(413, 413)),
    FailureRule(
        "context type",
        "context_length",
        types="ContextWindowExceededError ContextLengthExceededError OutputTokenExceededError OutputLengthExceededError",
    ),
    FailureRule(
        "refusal code",
        "refusal",
        codes=r"content_filter\w*|content_?policy\w*|responsibleaipolicyviolation|cyber_policy|invalid_prompt|prohibited_content|safety|blocked|moderation\w*|data_?inspection_?failed",
    ),
    FailureRule(
        "refusal",
        "refusal",
        words=r"content[_ ](?:policy|filter\w*|management policy)|usage policy|\bflagged\b|safety (?:system|measure|policy|polic|filter|reason|guard)|violat\w+ [^.\n]{0,40}(?:usage|content|safety|use) (?:polic|guideline)|safety_check|content exists risk|response was blocked|finish_?reason\W{1,5}(?:safety|recitation|blocklist|spii|content_filter)|prompt (?:was )?blocked|blocked by (?:(?:our )?safety|the provider|content)|prohibited[_ ]content|cyber_policy|invalid_prompt|guardrail",
    ),
    FailureRule("refusal type", "refusal", types="AgentSafetyRefusalError ContentPolicyViolationError"),
    FailureRule(
        "model code",
        "unknown_model",
        codes=r"model_?not_?(?:found|available|exist\w*|supported)|invalid_model\w*|unknown_model|deployment_?not_?found|model_decommissioned|model_deprecated|resourcenotfoundexception",
    ),
    FailureRule(
        "model",
        "unknown_model",
        words=r"model\b.{0,120}?(?:does(?: not|n.t) exist|not exist|not found|not supported|may not exist|is not available|not a valid model|decommissioned|deprecated|retired|no longer (?:available|supported))|model_not_found|no endpoints found|not a valid model|invalid model|unknown model|model identifier is invalid|cannot use this model|no such model",
        unless=r"temporar|try again later",
    ),
    FailureRule(
        "overload code",
        "overloaded",
        codes=r"overloaded\w*|\w*overloaded|unavailable|serviceunavailable\w*|slow_down|model_?not_?ready\w*|engine_overloaded\w*|capacity\w*",
    ),
    FailureRule(
        "overload",
        "overloaded",
        words=r"overloaded|at capacity|high demand|no capacity|capacity (?:is )?(?:exceeded|constrained)",
        not_status=(401, 404),
    ),
    FailureRule("quota", "quota", words=r"quota|billing", not_status=(500, 599)),
    FailureRule(
        "key code",
        "auth",
        codes=r"invalid_api_key|api_key_invalid|authentication\w*|permission_(?:error|denied)|unauthori[sz]ed|unauthenticated|accessdenied\w*|access_denied|unrecognizedclient\w*|expiredtoken\w*|invalidsignature\w*|signaturedoesnotmatch|forbidden|invalidauthenticat\w*|unsupported_country\w*",
    ),
    FailureRule(
        "key",
        "auth",
        words=r"(?:invalid|incorrect|wrong|expired|revoked) (?:\w+ )?(?:api|x-api|access|auth\w*|bearer|security)[ _-]?(?:key|token|credentials?)\b|(?:invalid|incorrect) (?:key|credentials)\b|api key (?:not valid|expired|is invalid|not found)|not logged in|please run /login|failed to authenticate|authentication (?:failed|error)|token expired|(?:location|country)[^.\n]{0,30} (?:is )?not supported|(?:organi[sz]ation|account|workspace|team) (?:has been|is|was) (?:disabled|suspended|deactivated|banned)|security token [^\n]{0,30} invalid",
    ),
    # The status alone.
    FailureRule("401", "auth", status=(401, 401)),
    FailureRule("403", "auth", status=(403, 403)),
    FailureRule("404", "unknown_model", status=(404, 404)),
    FailureRule("410", "unknown_model", status=(410, 410)),
    FailureRule("429", "rate_limit", status=(429, 429)),
    FailureRule("503", "overloaded", status=(503, 503)),
    FailureRule("529", "overloaded", status=(529, 529)),
    FailureRule("5xx", "transient_provider", status=(500, 599)),
    FailureRule("408", "transient_provider", status=(408, 409)),
    FailureRule("425", "transient_provider", status=(425, 425)),
    FailureRule("499", "transient_provider", status=(499, 499)),
    # Weaker words, where there is no status.
    FailureRule(
        "key, weak",
        "auth",
        words=r"unauthori[sz]ed|forbidden|authenticat|api key|permission denied|access denied",
        not_status=(400, 499),
    ),
    FailureRule(
        "rate, weak",
        "rate_limit",
        words=r"too many (?:requests|tokens)|rate[ _-]?limit|throttl|slow down",
        not_status=(400, 428),
    ),
    FailureRule(
        "overload, weak",
        "overloaded",
        words=r"service unavailable|server is busy|temporarily unavailable",
        not_status=(400, 428),
    ),
    FailureRule(
        "provider, weak",
        "transient_provider",
        words=r"stream (?:disconnected|closed|error|ended)|connection|timed? ?out|reset by peer|network|temporar|internal (?:server )?error|server error|bad gateway|gateway time|provider returned error|malformed response|empty (?:or )?(?:invalid |malformed )?response|mid-response|unexpected eof|socket hang up|fetch failed",
        not_status=(400, 428),
    ),
    # The type, where what was said says nothing.
    FailureRule(
        "setup of the agent",
        "infrastructure",
        phases="environment_setup",
        types="NonZeroAgentExitCodeError NetworkConnectionError AgentAuthenticationError",
    ),
    FailureRule(
        "rate type",
        "rate_limit",
        types="ApiRateLimitError RateLimitError TooManyRequestsError ResourceExhausted ThrottlingException",
    ),
    FailureRule("overload type", "overloaded", types="ApiOverloadedError ServiceUnavailableError OverloadedError"),
    FailureRule("key type", "auth", types="AgentAuthenticationError AuthenticationError PermissionDeniedError"),
    FailureRule("quota type", "quota", types="ApiUsageLimitError BudgetExceededError"),
    FailureRule(
        "model type", "unknown_model", types="ModelNotFoundError NotFoundError ApiProviderResourceNotFoundError"
    ),
    # A malformed conversation is the agent's own doing; of a request that no agent made, or another status, it cannot be.
    FailureRule("refused, setting", "configuration", words=_SETTING, status=(400, 499), guess=True),
    FailureRule("refused, 400", "agent_error", status=(400, 400), phases="agent", guess=True),
    FailureRule("refused, 422", "agent_error", status=(422, 422), phases="agent", guess=True),
    FailureRule("refused, 4xx", "configuration", status=(400, 499), guess=True),
    FailureRule(
        "provider type",
        "transient_provider",
        types="ApiInternalServerError ApiConnectionClosedError ApiResponseStalledError UnknownApiError ApiError NetworkConnectionError ApiConnectionError InternalServerError APIConnectionError APITimeoutError APIError BadGatewayError APIResponseValidationError Timeout RemoteProtocolError ReadTimeout ConnectTimeout ReadError ConnectError MidStreamFallbackError",
    ),
    FailureRule(
        "refused, setting, type",
        "configuration",
        types="BadRequestError UnprocessableEntityError",
        words=_SETTING,
        guess=True,
    ),
    FailureRule(
        "refused, type", "agent_error", types="BadRequestError UnprocessableEntityError", phases="agent", guess=True
    ),
    FailureRule("refused, elsewhere", "configuration", types="BadRequestError UnprocessableEntityError", guess=True),
    FailureRule("agent's deadline", "agent_timeout", types="AgentTimeoutError"),
    FailureRule("agent's exit code", "agent_error", types="NonZeroAgentExitCodeError"),
    FailureRule(
        "verifier",
        "verifier",
        types="VerifierTimeoutError RewardFileNotFoundError RewardFileEmptyError VerifierOutputParseError",
    ),
    FailureRule("reward not read", "internal", types="RewardUnreadableError"),
    FailureRule(
        "environment type",
        "infrastructure",
        types="EnvironmentStartTimeoutError AgentSetupTimeoutError HealthcheckError AddTestsDirError DownloadVerifierDirError GKEPodNotFoundError GKEExecStreamClosedError MemoryLimitExceededError SandboxLikelyOutOfMemoryError SSHAccessError RuntimeRequestError VercelScopeError WorkspaceError",
    ),
    # The machine, whatever the phase.
    FailureRule(
        "disk or memory",
        "infrastructure",
        message=r"no space left on device|cannot allocate memory|too many open files|disk quota exceeded",
    ),
    FailureRule(
        "Docker",
        "infrastructure",
        message=r"docker compose command failed|docker daemon|cannot connect to the docker|docker is not installed|no such image",
    ),
    FailureRule(
        "no Docker",
        "infrastructure",
        types="FileNotFoundError",
        message=r"'?docker'?$|no such file or directory: 'docker'",
    ),
    FailureRule("command deadline", "infrastructure", types="RuntimeError", message="command timed out after"),
    FailureRule(
        "machine type",
        "infrastructure",
        types="MemoryError ConnectionError ConnectionResetError ConnectionRefusedError BrokenPipeError",
    ),
    # What was asked for, and would fail again in the same way.
    FailureRule(
        "unable", "task_definition", types="RuntimeError ValueError ServiceOperationsUnsupportedError", message=UNABLE
    ),
    FailureRule("links", "task_definition", types="OSError", message="too many levels of symbolic links"),
    FailureRule("regrade", "task_definition", types="RegradeError"),
    FailureRule(
        "build",
        "task_definition",
        types="SandboxBuildFailedError UnsupportedTaskError ServiceOperationsUnsupportedError",
    ),
    FailureRule(
        "definition, create",
        "task_definition",
        phases="create",
        types="ValidationError ValueError FileNotFoundError NotADirectoryError IsADirectoryError KeyError TypeError ImportError ModuleNotFoundError AttributeError TOMLDecodeError NotImplementedError",
    ),
    FailureRule(
        "definition, setup",
        "task_definition",
        types="ValueError FileNotFoundError TOMLDecodeError",
        phases="environment_setup",
    ),
    # Harbor's own word on a type that is not above.
    FailureRule("Harbor: environment", "infrastructure", harbor=("retry, no grade",)),
    FailureRule("Harbor: provider", "transient_provider", harbor=("retry, no reward",), phases="agent"),
    FailureRule(
        "Harbor: definition",
        "configuration",
        harbor=("final, no grade", "final, no reward"),
        phases="create environment_setup agent",
    ),
    # By phase, where the type says nothing: a guess, and told as one.
    FailureRule("phase create", "internal", phases="create", guess=True),
    FailureRule("phase setup", "infrastructure", phases="environment_setup", guess=True),
    FailureRule("phase agent", "agent_error", phases="agent", guess=True),
    FailureRule("phase verifier", "verifier", phases="verifier", guess=True),
)

TIMEOUT_CLASSES: dict[Phase, str] = {
    "create": "infrastructure",
    "environment_setup": "infrastructure",
    "agent": "agent_timeout",
    "verifier": "verifier",
}
"""The class of an attempt that the supervisor's deadline ended, by the phase it was in."""


def classify(found: Evidence) -> FailureVerdict:
    """Return the class of what there is to go by; ``internal``, guessed, where no rule fits, which only happens without a phase."""
    for rule in RULES:
        if _fits(rule, found):
            return FailureVerdict(rule.failure_class, rule.name, rule.guess, found.said)
    return FailureVerdict("agent_error" if found.said else "internal", "none", True, found.said)


def _fits(rule: FailureRule, found: Evidence) -> bool:
    if rule.types and found.type not in rule.types.split():
        return False
    if rule.phases and found.phase not in rule.phases.split():
        return False
    if rule.harbor and found.harbor not in rule.harbor:
        return False
    status = found.status
    if rule.status and not (status and rule.status[0] <= status <= rule.status[1]):
        return False
    if rule.not_status and status and rule.not_status[0] <= status <= rule.not_status[1]:
        return False
    if rule.codes and not any(re.fullmatch(rule.codes, code) for code in found.codes):
        return False
    texts = ((rule.words, found.said), (rule.also, found.said), (rule.message, found.message))
    if not all(_has(pattern, text) for pattern, text in texts):
        return False
    return not (rule.unless and _has(rule.unless, found.message if rule.message else found.said))


def _has(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
