"""Which keys an agent of Harbor's looks for, by Harbor's own tables: ``MODEL_CONNECTION`` of its class, and ``PROVIDERS``."""

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.key_names import normalise_queue_key

ON_THE_HOST = frozenset({"terminus-2", "computer-1", "dspy-rlm"})
"""Agents that call a model from this host, whatever their class says of other keys: litellm looks for the key of the model's provider."""
NEED_A_MODEL = frozenset({"terminus-2", "computer-1"})
"""Agents that cannot be made without a model; what others do without one is theirs to say."""
_WITHOUT_KEYS = frozenset(
    {
        "amazon-bedrock",
        "sagemaker",
        "vertex_ai",
        "ollama",
        "ollama_chat",
        "infinity",
        "github-copilot",
        "hosted_vllm",
        "vllm",
        "lm_studio",
        "llamafile",
        "xinference",
        "custom_openai",
    }
)
"""Providers that work with a login of the host, or that people run themselves without any key."""
_OTHER_WAYS = (
    "OAUTH",
    "AUTH_JSON",
    "AUTH_TOKEN",
    "BEDROCK",
    "VERTEX",
    "CREDENTIAL",
    "AWS_PROFILE",
    "BASE_URL",
    "API_BASE",
)
"""In names of variables by which agents are told to use a subscription, a cloud's login or another endpoint."""
_ENDPOINTS = ("api_base", "base_url", "api_key", "endpoint", "llm_kwargs", "auth", "proxy")
"""In names of arguments that name another endpoint or a key."""


class AgentKeys(NamedTuple):
    """What an agent looks for."""

    names: tuple[str, ...]
    """Variables of which one is enough, the usual one first."""
    certain: bool
    """It cannot work without one of them, as far as its arguments tell."""


def provider_keys(provider: str) -> tuple[str, ...]:
    """Return the variables that clients of a provider read, the usual one first; none where Harbor knows no such provider."""
    known = _providers()
    names = _names(next((known[name] for name in _spellings(provider) if name in known), None))
    return tuple(sorted(names, key=lambda name: name != _USUAL.get(provider)))


def _spellings(provider: str) -> list[str]:
    """Return the names of a provider, as its model is written and as Harbor's table may have it."""
    return [provider, *(name for pair in _ALIASES.items() if provider in pair for name in pair)]


def _providers() -> Mapping[str, Any]:
    """Return Harbor's table of providers, which moved in 0.25."""
    for name in ("harbor.agents.agent_auth_resolution", "harbor.agents.model_connection"):
        if find_spec(name) is not None:
            found: Mapping[str, Any] = import_module(name).PROVIDERS
            return found
    return {}


def _names(access: Any) -> tuple[str, ...]:
    """Return the variables of a provider's or an agent's key; the field was renamed in Harbor 0.25."""
    fields = ("api_key_candidate_names", "api_key_envs")
    return tuple(name for field in fields for name in getattr(access, field, ()))


_USUAL = {"google": "GEMINI_API_KEY", "gemini": "GEMINI_API_KEY"}
_ALIASES = {"gemini": "google", "together_ai": "together", "bedrock": "amazon-bedrock", "openai_responses": "openai"}


def looked_for(agent: Mapping[str, Any]) -> AgentKeys | None:
    """Return the keys that a trial's agent looks for; None for one that needs none, or of which Harbor does not say."""
    name, model = agent.get("name"), agent.get("model_name")
    if agent.get("import_path") or not isinstance(name, str) or name in ("oracle", "nop"):
        return None
    known = () if name in ON_THE_HOST else _connection(name)
    if known is None:
        return None
    default, own = known or (None, ())
    provider = default or (_provider(model) if isinstance(model, str) else "")
    provider = _ALIASES.get(provider, provider)
    names = tuple(dict.fromkeys((*own, *provider_keys(provider))))
    if not names or provider in _WITHOUT_KEYS:
        return None
    env, kwargs = agent.get("env") or {}, agent.get("kwargs") or {}
    elsewhere = any(sign in key.upper() for key in env for sign in _OTHER_WAYS)
    elsewhere = elsewhere or any(sign in key.lower() for key in kwargs for sign in _ENDPOINTS)
    return AgentKeys(names, certain=not elsewhere)


def read_by(agent: Mapping[str, Any]) -> tuple[str, ...]:
    """Return all variables of this host that Harbor's own tables name for an agent: keys, endpoints, and what goes with them."""
    name, model = agent.get("name"), agent.get("model_name")
    if agent.get("import_path") or not isinstance(name, str):
        return ()
    connection = _connection(name)
    provider = (connection[0] if connection else None) or (_provider(model) if isinstance(model, str) else "")
    known = _providers()
    access = next((known[each] for each in _spellings(provider) if each in known), None)
    fields = ("base_url_candidate_names", "base_url_envs", "extra_env_names", "extra_envs")
    more = [each for field in fields for each in getattr(access, field, ())]
    return tuple(dict.fromkeys((*(connection[1] if connection else ()), *_names(access), *more)))


def points_elsewhere(variable: str) -> bool:
    """Tell whether a variable by that name is another way to a model than the provider's key."""
    return any(sign in variable.upper() for sign in _OTHER_WAYS)


def _provider(model: str) -> str:
    try:
        return normalise_queue_key(model).partition("/")[0]
    except UserError:
        return ""


@lru_cache(maxsize=64)
def _connection(name: str) -> tuple[str | None, tuple[str, ...]] | None:
    """Default provider and own variables of an agent's class; None where it does not say."""
    from harbor.agents.factory import AgentFactory
    from harbor.models.agent.name import AgentName

    try:
        found = getattr(AgentFactory.get_agent_class(AgentName(name)), "MODEL_CONNECTION", None)
    except (ImportError, ValueError):  # a missing extra is told by the trial
        return None
    return None if found is None else (found.default_provider, _names(getattr(found, "agent_provider_access", found)))
