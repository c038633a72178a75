"""The failure table: one case for each rule, what providers not in the table say, and what must not be taken for a refusal."""

import builtins
import json
import re
from pathlib import Path

import harbor
import pytest

from parallelhassnes.steps import failure_evidence as evidence
from parallelhassnes.steps import failures, final_report
from parallelhassnes.steps.failures import RULES

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
PROGRAM = "NonZeroAgentExitCodeError"


def told(stdout="", stderr="None"):
    """Harbor's message about an agent's program."""
    return f"Command failed (exit 1): codex exec -- hi\nstdout: {stdout}\nstderr: {stderr}"


def failed(message):
    return told(json.dumps({"type": "turn.failed", "error": {"message": message}}))


OF_RULE = {
    "canceled": ("CancelledError", "", "agent"),
    "missing extra": (
        "MissingExtraError",
        "The 'daytona' extra is required.\n  pip install 'harbor[daytona]'",
        "create",
    ),
    "job plugin": ("PluginError", "the job plugin notes does not start: no room", "create"),
    "missing extra, told": ("ImportError", "install it: pip install 'litellm[proxy]'", "create"),
    "missing module": ("ModuleNotFoundError", "No module named 'boto3'", "agent"),
    "missing key": (
        "AuthenticationError",
        "The api_key client option must be set either by passing api_key or by setting OPENAI_API_KEY",
        "agent",
    ),
    "missing key, told": ("ValueError", "GEMINI_API_KEY is not set", "agent"),
    "key that cannot be sent": (
        "InternalServerError",
        r"litellm.InternalServerError: AnthropicException - 'ascii' codec can't encode character '\xe9' in position 3: ordinal not in range(128)",
        "agent",
    ),
    "missing credentials": ("NoCredentialsError", "nobody knows you", "agent"),
    "missing model": (
        "BadRequestError",
        "litellm.BadRequestError: LLM Provider NOT provided. You passed model=x",
        "agent",
    ),
    "missing model, told": ("ValueError", "Model name is required", "agent"),
    "unsupported parameter": (
        "BadRequestError",
        "Error code: 400 - {'error': {'code': 'unsupported_parameter', 'message': 'temperature'}}",
        "agent",
    ),
    "unsupported parameter, type": ("UnsupportedParamsError", "openai does not know temperature", "agent"),
    "schema": (PROGRAM, failed("Invalid schema for response_format"), "agent"),
    "account's setting": ("NotFoundError", "No endpoints found matching your data policy", "agent"),
    "credit code": (
        "RateLimitError",
        "Error code: 429 - {'error': {'code': 'insufficient_quota', 'message': 'x'}}",
        "agent",
    ),
    "credit": ("BadRequestError", "AnthropicException - Your credit balance is too low", "agent"),
    "payment required": ("APIError", "status 402", "agent"),
    "Codex 5xx": (
        PROGRAM,
        failed("We’re currently experiencing high demand, which may cause temporary errors."),
        "agent",
    ),
    "window": (
        "RateLimitError",
        "Rate limit reached for gpt-5.2 on tokens per min (TPM): see your billing page",
        "agent",
    ),
    "allowance": (PROGRAM, failed("You've hit your usage limit. Try again in 3 hours."), "agent"),
    "retry in": ("RateLimitError", "Quota exceeded, see your plan and billing. Please retry in 3 s", "agent"),
    "rate code": ("RateLimitError", '{"error": {"message": "check quota", "status": "RESOURCE_EXHAUSTED"}}', "agent"),
    "context code": ("BadRequestError", '{"error": {"code": "context_length_exceeded", "message": "no"}}', "agent"),
    "context": ("BadRequestError", "Input is too long for requested model.", "agent"),
    "context status": ("APIError", "Error code: 413 - no", "agent"),
    "context type": ("ContextLengthExceededError", "", "agent"),
    "refusal code": ("BadRequestError", '{"error": {"code": "content_filter", "message": "no"}}', "agent"),
    "refusal": ("BadRequestError", "Output blocked by content filtering policy", "agent"),
    "refusal type": ("ContentPolicyViolationError", "no", "agent"),
    "model code": ("BadRequestError", '{"error": {"code": "model_decommissioned", "message": "no"}}', "agent"),
    "model": ("NotFoundError", "The model `x` does not exist or you do not have access to it.", "agent"),
    "overload code": ("InternalServerError", '{"error": {"type": "overloaded_error", "message": "no"}}', "agent"),
    "overload": (PROGRAM, failed("Selected model is at capacity. Please try a different model."), "agent"),
    "quota": (
        "RateLimitError",
        "You exceeded your current quota, please check your plan and billing details.",
        "agent",
    ),
    "key code": ("BadRequestError", '{"error": {"code": "invalid_api_key", "message": "no"}}', "agent"),
    "key": ("BadRequestError", "API key not valid. Please pass a valid API key.", "agent"),
    "401": (PROGRAM, failed("unexpected status 401 Unauthorized: no"), "agent"),
    "403": (PROGRAM, failed("unexpected status 403 Forbidden: no"), "agent"),
    "404": (PROGRAM, failed("unexpected status 404 Not Found: no"), "agent"),
    "410": (PROGRAM, failed("unexpected status 410 Gone: no"), "agent"),
    "429": (PROGRAM, failed("exceeded retry limit, last status: 429 Too Many Requests"), "agent"),
    "503": (PROGRAM, failed("unexpected status 503: no"), "agent"),
    "529": ("APIError", "Server error '529 ' for url", "agent"),
    "5xx": ("APIError", "<html>502 Bad Gateway</html>\nstatus: 502", "agent"),
    "408": ("APIError", "Error code: 408 - no", "agent"),
    "425": ("APIError", "Error code: 425 - no", "agent"),
    "499": ("APIError", "Error code: 499 - no", "agent"),
    "key, weak": (PROGRAM, failed("Unauthorized"), "agent"),
    "rate, weak": (PROGRAM, failed("slow down"), "agent"),
    "overload, weak": (PROGRAM, failed("Service unavailable"), "agent"),
    "provider, weak": (PROGRAM, failed("stream disconnected before completion: error sending request"), "agent"),
    "setup of the agent": (PROGRAM, told("npm error: 429 rate limit"), "environment_setup"),
    "rate type": ("ApiRateLimitError", "", "agent"),
    "overload type": ("ServiceUnavailableError", "", "agent"),
    "key type": ("AgentAuthenticationError", "", "agent"),
    "quota type": ("ApiUsageLimitError", "", "agent"),
    "model type": ("ModelNotFoundError", "", "agent"),
    "provider type": ("litellm.exceptions.InternalServerError", "boom", "agent"),
    "refused, setting": (
        "APIError",
        "Error code: 400 - {'error': {'message': 'temperature: may be 1 at most'}}",
        "agent",
    ),
    "refused, 400": ("APIError", "Error code: 400 - {'error': {'message': 'no'}}", "agent"),
    "refused, 422": ("APIError", "Error code: 422 - {'error': {'message': 'no'}}", "agent"),
    "refused, 4xx": ("BadRequestError", "Error code: 400 - {'error': {'message': 'no'}}", "verifier"),
    "refused, setting, type": ("UnprocessableEntityError", "no such parameter", "agent"),
    "refused, type": ("UnprocessableEntityError", "no", "agent"),
    "refused, elsewhere": ("UnprocessableEntityError", "no", "verifier"),
    "cap reached": ("AgentCappedError", "max_tokens 9 is reached: 12 so far", "agent"),
    "agent's deadline": ("AgentTimeoutError", "", "agent"),
    "agent's exit code": (PROGRAM, told("Segmentation fault"), "agent"),
    "verifier": ("RewardFileNotFoundError", "", "verifier"),
    "reward not read": (
        "RewardUnreadableError",
        "verifier/reward.json cannot be read (Input/output error)",
        "verifier",
    ),
    "environment type": ("GKEPodNotFoundError", "", "agent"),
    "disk or memory": ("OSError", "[Errno 28] No space left on device", "create"),
    "Docker": ("RuntimeError", "Docker compose command failed for environment x.", "environment_setup"),
    "no Docker": ("FileNotFoundError", "[Errno 2] No such file or directory: 'docker'", "environment_setup"),
    "command deadline": ("RuntimeError", "Command timed out after 3 seconds", "agent"),
    "machine type": ("MemoryError", "", "agent"),
    "unable": (
        "RuntimeError",
        "Task requires 1 GPU(s) but sandbox environment does not support GPU allocation.",
        "create",
    ),
    "links": ("OSError", "[Errno 40] Too many levels of symbolic links: '/t/environment/x'", "create"),
    "regrade": ("RegradeError", "artifact coverage cannot be verified", "environment_setup"),
    "build": ("SandboxBuildFailedError", "", "environment_setup"),
    "definition, create": ("FileNotFoundError", "[Errno 2] No such file or directory: '/t/Dockerfile'", "create"),
    "definition, setup": ("ValueError", "no support for skills", "environment_setup"),
    "Harbor: environment": ("PodEvictedError", "", "agent", "retry, no grade"),
    "Harbor: provider": ("ApiQuirkError", "", "agent", "retry, no reward"),
    "Harbor: definition": ("PolicyError", "", "agent", "final, no grade"),
    "phase create": ("SomethingElse", "", "create"),
    "phase setup": ("SomethingElse", "", "environment_setup"),
    "phase agent": ("SomethingElse", "a rate limit of 5 was found in the file", "agent"),
    "phase verifier": ("SomethingElse", "", "verifier"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_case_for_each_rule(rule):
    name, message, phase, *harbor_says = OF_RULE[rule.name]
    found = evidence.verdict_of(name, message, phase, harbor="".join(harbor_says))
    assert found[:3] == (rule.name and rule.failure_class, rule.name, rule.guess)


SAID = [
    # Whoever asked, this is what was answered: (said, status, class).
    (
        "An error occurred (ThrottlingException) when calling the InvokeModel operation: Too many tokens, please wait before trying again.",
        None,
        "rate_limit",
    ),
    (
        "An error occurred (ThrottlingException) when calling the Converse operation: Too many tokens per day",
        None,
        "rate_limit",
    ),
    ("An error occurred (ServiceQuotaExceededException) when calling: limit 4 requests per minute", None, "rate_limit"),
    (
        "An error occurred (AccessDeniedException) when calling the InvokeModel operation: You don't have access to the model with the specified model ID.",
        None,
        "auth",
    ),
    (
        "An error occurred (ExpiredTokenException) when calling the Converse operation: The security token included in the request is expired",
        None,
        "auth",
    ),
    (
        "An error occurred (UnrecognizedClientException): The security token included in the request is invalid.",
        None,
        "auth",
    ),
    (
        "An error occurred (ValidationException) when calling: The provided model identifier is invalid.",
        None,
        "unknown_model",
    ),
    (
        "An error occurred (ValidationException) when calling: Input is too long for requested model.",
        None,
        "context_length",
    ),
    ("An error occurred (ModelNotReadyException) when calling the InvokeModel operation", None, "overloaded"),
    (
        '{"error": {"code": 403, "message": "Permission denied on resource project x.", "status": "PERMISSION_DENIED"}}',
        403,
        "auth",
    ),
    (
        '{"error": {"code": 401, "message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED"}}',
        401,
        "auth",
    ),
    (
        '{"error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}',
        503,
        "overloaded",
    ),
    (
        '{"error": {"code": 500, "message": "An internal error has occurred.", "status": "INTERNAL"}}',
        500,
        "transient_provider",
    ),
    (
        '{"error": {"code": 429, "message": "Your prepayment credits are depleted. Please go to AI Studio.", "status": "RESOURCE_EXHAUSTED"}}',
        429,
        "quota",
    ),
    (
        '{"error": {"code": 429, "message": "Your project has exceeded its monthly spending cap.", "status": "RESOURCE_EXHAUSTED"}}',
        429,
        "quota",
    ),
    (
        '{"error": {"code": 429, "message": "You exceeded your current quota", "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}',
        429,
        "rate_limit",
    ),
    (
        '{"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}',
        404,
        "unknown_model",
    ),
    (
        '{"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current pricing tier. Please retry after 6 seconds."}}',
        429,
        "rate_limit",
    ),
    (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        400,
        "refusal",
    ),
    (
        '{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}',
        402,
        "quota",
    ),
    ("Your team has either used all available credits or reached its monthly spending limit.", 403, "quota"),
    ("Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.", 400, "auth"),
    (
        '{"error":{"message":"Rate limit reached for model `llama` in organization `org` on tokens per day (TPD): Limit 100000, Used 99336, Requested 4000. Please try again in 48m3s. Need more tokens? Upgrade at https://console.groq.com/settings/billing","type":"tokens","code":"rate_limit_exceeded"}}',
        429,
        "rate_limit",
    ),
    ("The model `mixtral-8x7b` has been decommissioned and is no longer supported.", 400, "unknown_model"),
    (
        '{"object":"error","message":"Service tier capacity exceeded for this model.","type":"service_tier_capacity_exceeded","code":"3505"}',
        429,
        "overloaded",
    ),
    ('{"message":"Requests rate limit exceeded"}', 429, "rate_limit"),
    ('{"message":"invalid api token"}', 401, "auth"),
    ('{"message":"You are using a Trial key, which is limited to 10 API calls / minute."}', 429, "rate_limit"),
    (
        '{"error":{"message":"Credit limit exceeded, please navigate to api.together.xyz/settings/billing"}}',
        402,
        "quota",
    ),
    (
        '{"error":{"message":"Unable to access model x. Please visit to see supported models. The model does not exist","code":"model_not_available"}}',
        404,
        "unknown_model",
    ),
    (
        "Account x is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.",
        412,
        "quota",
    ),
    (
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        429,
        "rate_limit",
    ),
    ("Provider returned error", 429, "rate_limit"),
    ("500 requests per minute are allowed and the limit is reached", None, "rate_limit"),
    ("502 Bad Gateway", None, "transient_provider"),
    ("Your chosen model requires moderation and your input was flagged", 403, "refusal"),
    ("No auth credentials found", 401, "configuration"),
    (
        "You didn't provide an API key. You need to provide your API key in an Authorization header",
        401,
        "configuration",
    ),
    ("x-api-key header is required", 401, "configuration"),
    ("Missing or invalid API key", 401, "auth"),
    ("OAuth token has expired. Please obtain a new token.", 401, "auth"),
    ("", 402, "quota"),
    ("", 401, "auth"),
    ("", 403, "auth"),
    ("", 404, "unknown_model"),
    ("", 429, "rate_limit"),
    ("", 500, "transient_provider"),
    ("", 502, "transient_provider"),
    ("", 503, "overloaded"),
    ("", 504, "transient_provider"),
    ("", 529, "overloaded"),
    ("<html><head><title>503 Service Temporarily Unavailable</title></head></html>", 503, "overloaded"),
    ("<html><head><title>504 Gateway Time-out</title></head></html>", 504, "transient_provider"),
    ("error code: 524", None, "transient_provider"),
    ("Request timed out.", None, "transient_provider"),
    ("Overloaded, please retry in 5 seconds: rate limited", 503, "overloaded"),
    ("You've reached your specified API usage limits. You will regain access on 2026-12-01.", 400, "quota"),
    ("Your organization has been disabled: unpaid invoice", 403, "quota"),
    (
        "Your newly created team doesn't have any credits yet. You can purchase credits on https://console.x.ai.",
        403,
        "quota",
    ),
    ("The account does not have enough prepaid credits", 403, "quota"),
    ("Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO", 403, "refusal"),
    (
        '{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}',
        400,
        "refusal",
    ),
    ("The response was blocked. finish_reason: RECITATION", 400, "refusal"),
    ("This model's maximum prompt length is 131072 but the request contains 140000 tokens.", 400, "context_length"),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens",
        422,
        "context_length",
    ),
    ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", 400, "context_length"),
    (
        "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens.",
        400,
        "context_length",
    ),
    (
        '{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}',
        400,
        "auth",
    ),
    (
        "No endpoints found matching your data policy (Free model training). Configure: https://openrouter.ai/settings/privacy",
        404,
        "configuration",
    ),
    ("No endpoints found that support tool use", 404, "unknown_model"),
    (
        "Rate limit exceeded: limit_rpm/deepseek/deepseek-chat. High demand for deepseek on OpenRouter",
        429,
        "rate_limit",
    ),
    ("Input validation error: `inputs` must have less than 8192 tokens. Given: 9000", 422, "context_length"),
    ("Output blocked by safety guidelines", 400, "refusal"),
    ("User location is not supported for the API use.", 400, "auth"),
    # The agent's own doing, and what was set for it.
    ("Function calling is not enabled for models/gemma-3", 400, "configuration"),
    ("messages.1.content: must not be empty", 400, "agent_error"),
    ("tool call validation failed: attempted to call tool 'x' which was not in request.tools", 400, "agent_error"),
    (
        '{"error":{"message":"Failed to call a function. Please adjust your prompt.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"x"}}',
        400,
        "agent_error",
    ),
    (
        "messages.4: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1",
        400,
        "agent_error",
    ),
    (
        "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
        400,
        "agent_error",
    ),
    ("messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`", 400, "agent_error"),
    (
        "Please ensure that function call turn comes immediately after a user turn. Received Model Group=x",
        400,
        "agent_error",
    ),
    ("Client error '400 Bad Request' for url 'https://x.example/v1beta/models/y:generateContent'", None, "agent_error"),
    ("temperature: range: 0..1", 400, "configuration"),
    ("This model does not support tool use", 400, "configuration"),
    ("registry.ollama.ai/library/gemma does not support tools for this model", 400, "configuration"),
    ("Unsupported Media Type", 415, "configuration"),
]


@pytest.mark.parametrize(("said", "status", "expected"), SAID)
def test_what_providers_say(said, status, expected):
    found = failures.classify(evidence.of_provider(said, status))
    assert found.failure_class == expected, found
    for name in ("APIError", "BadRequestError", "RateLimitError"):  # whatever a library makes of it
        made = evidence.of_exception(
            name, f"litellm.{name}: XException - {said} (status {status})" if status else said, "agent"
        )
        if said and not found.guessed:
            assert failures.classify(made).failure_class == expected, (name, made)


CLAUDE = {
    "type": "result",
    "subtype": "success",
    "is_error": True,
    "api_error_status": 400,
    "result": "Credit balance is too low",
}
PROSE = {
    "type": "assistant",
    "message": {"content": [{"type": "text", "text": "API Error: 429 rate limit reached; insufficient_quota"}]},
}
ITEM = {"type": "item.completed", "item": {"type": "agent_message", "text": "unexpected status 401 Unauthorized"}}


def lines(*events):
    return "\n".join(json.dumps(event) for event in events)


@pytest.mark.parametrize(
    ("type_name", "message", "expected"),
    [
        (PROGRAM, told(lines(PROSE, CLAUDE)), "quota"),
        ("UnknownApiError", told(lines(PROSE, CLAUDE)), "quota"),
        (PROGRAM, told(lines(PROSE)), "agent_error"),
        (PROGRAM, told(lines(PROSE, {"type": "result", "is_error": False, "result": "401 rate limit"})), "agent_error"),
        (PROGRAM, told(lines(ITEM, {"type": "turn.completed"})), "agent_error"),
        ("ApiRateLimitError", told(lines(PROSE, ITEM)), "agent_error"),
        (PROGRAM, told(lines(ITEM) + "\npanicked at main.rs"), "agent_error"),
        (PROGRAM, told("I will now handle the rate limit of the server and its quota."), "agent_error"),
        (
            PROGRAM,
            told(
                "working\nlitellm.exceptions.RateLimitError: litellm.RateLimitError: insufficient_quota: You exceeded your current quota"
            ),
            "quota",
        ),
        (PROGRAM, told("None", "Error: 503 overloaded"), "overloaded"),
        (PROGRAM, told("✖ [API Error: 402 Payment Required]"), "quota"),
        (
            PROGRAM,
            told(lines({"type": "error", "error": {"name": "APIError", "data": {"message": "no", "statusCode": 529}}})),
            "overloaded",
        ),
        (
            PROGRAM,
            told(lines({"error": {"type": "ApiError", "message": "quota metric per minute exceeded", "code": 429}})),
            "rate_limit",
        ),
        (
            PROGRAM,
            told(
                lines(
                    {"type": "error", "message": "Reconnecting... 5/5 (unexpected status 401)"},
                    {"type": "turn.failed", "error": {"message": "unexpected status 402 Payment Required: no"}},
                )
            ),
            "quota",
        ),
        (
            PROGRAM,
            told(
                '{"type":"result","subtype":"success","is_error":true,"api_error_status":529,"dur ... [900 chars truncated] ... "uuid":"x"}'
            ),
            "overloaded",
        ),
        (PROGRAM, told(lines({"type": "result", "subtype": "error_max_turns", "is_error": True})), "agent_error"),
        (
            PROGRAM,
            told(lines({**CLAUDE, "is_error": False}, {"type": "turn.failed", "error": {"message": ""}})),
            "agent_error",
        ),
    ],
)
def test_only_a_programs_last_error_counts_and_no_prose(type_name, message, expected):
    assert evidence.verdict_of(type_name, message, "agent").failure_class == expected


def test_where_the_message_is_cut_the_agents_log_tells(tmp_path):
    message = told("… [9000 chars truncated] … 0}")
    assert evidence.verdict_of(PROGRAM, message, "agent", logs=[tmp_path]).failure_class == "agent_error"
    (tmp_path / "claude-code.txt").write_text(lines(PROSE, CLAUDE) + "\n")
    found = evidence.verdict_of(PROGRAM, message, "agent", logs=[tmp_path])
    assert (found.failure_class, found.said) == ("quota", "Credit balance is too low")


def test_what_lies_in_an_agents_folder_is_hostile(tmp_path):
    import os

    logs, secret = tmp_path / "agent", tmp_path / "secret"
    logs.mkdir()
    secret.write_text(lines(CLAUDE))
    (logs / "claude-code.txt").symlink_to(secret)
    os.mkfifo(logs / "codex.txt")
    (logs / "a.txt").write_bytes(b"\xff" * 10 + b'\n{"type":' + b"[" * 100_000)
    (logs / "b.txt").mkdir()
    (tmp_path / "link").symlink_to(logs)
    for folder in (logs, tmp_path / "link", tmp_path / "none"):
        found = evidence.verdict_of(PROGRAM, told("x"), "agent", logs=[folder])
        assert (found.failure_class, found.rule) == ("agent_error", "agent's exit code")


def test_a_traceback_tells_what_a_librarys_exception_was_made_from():
    trace = (
        "Traceback (most recent call last):\n  File x\n"
        "openai.BadRequestError: Error code: 402 - {'error': {'message': 'no'}}\n\n"
        "The above exception was the direct cause of the following exception:\n\nTraceback:\n  y\n"
    )
    assert evidence.verdict_of("APIError", "no", "agent", trace).failure_class == "quota"
    assert evidence.verdict_of("AgentLoopError", "gave up", "agent", trace).failure_class == "quota"
    # A result of the agent's own stays one.
    assert evidence.verdict_of("AgentTimeoutError", "", "agent", trace).failure_class == "agent_timeout"


def test_what_an_engine_says_of_a_pull_is_no_provider():
    message = "Docker compose command failed for environment x: toomanyrequests: You have reached your pull rate limit"
    assert evidence.verdict_of("RuntimeError", message, "environment_setup").failure_class == "infrastructure"


def test_the_table_names_only_known_classes():
    known = set(failures.CLASSES)
    assert {rule.failure_class for rule in RULES} <= known
    assert known >= failures.INFRASTRUCTURE_CLASSES | failures.NEVER_SCORED
    assert set(failures.TIMEOUT_CLASSES.values()) <= known
    assert {rule.name for rule in RULES} == set(OF_RULE)
    assert len(RULES) == len(OF_RULE)


def test_the_page_shows_the_rules():
    section = PAGE.read_text().split("<!-- rules -->")[1].split("<!-- end -->")[0]
    shown = re.findall(r"^\| ([^|]+?) \| `(\w+)`(, guessed)? \|", section, re.MULTILINE)
    assert [(name, cls, bool(guess)) for name, cls, guess in shown] == [
        (rule.name, rule.failure_class, rule.guess) for rule in RULES
    ]


def test_the_schema_lists_the_same_classes():
    declared = final_report.schema()["properties"]["failure"]["properties"]["class"]["enum"]
    assert tuple(declared) == failures.CLASSES


def test_the_types_exist():
    """A renamed exception would silently fall through to the rules by phase."""
    packages = Path(harbor.__file__).parent, Path(harbor.__file__).parent.parent / "litellm"
    source = "\n".join(
        p.read_text(errors="replace") for p in (*packages[0].rglob("*.py"), packages[1] / "exceptions.py")
    )
    others = {  # of libraries that are not installed everywhere, of a newer Harbor, and our own
        "CancelledError",
        "UnsupportedTaskError",
        "TooManyRequestsError",
        "ResourceExhausted",
        "ThrottlingException",
        "OverloadedError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "DefaultCredentialsError",
        "OpenAIError",
        "PluginError",
        "UserError",
        "APITimeoutError",
        "RemoteProtocolError",
        "ReadTimeout",
        "ConnectTimeout",
        "ReadError",
        "ConnectError",
        "UnsupportedModelParametersError",
        "ValidationError",
        "TOMLDecodeError",
        "MidStreamFallbackError",
        "RewardUnreadableError",
        "AgentCappedError",
        "WorkspaceError",
    }
    named = {name for rule in RULES for name in rule.types.split()} - others
    assert {n for n in named if f"class {n}" not in source and not hasattr(builtins, n)} == set()
    assert named >= evidence.PROGRAM_TYPES
