"""A command line of Harbor's, as a Harbor job config: read by the parser of the Harbor that is installed.

Harbor publishes the function that makes a job of the options of ``harbor run``. Its signature is the command line, so here
the same parser is made of it, with options of ours beside Harbor's, and the function makes the job.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.tables.expanders import agent_keys

INSTEAD: dict[str, tuple[str, str]] = {
    "launch": ("--launch", "start it on Harbor's Hub by harbor run, or leave --launch out to run it here"),
    "upload": ("--upload", "run it, then parallelhassnes export BATCH --to view DIR and harbor upload"),
    "server": ("--server", "parallelhassnes api serves what runs here"),
    "watch": ("--watch", "leave it out: it waits unless --detach is given"),
    "diff_sources": ("--diff", "run it, then parallelhassnes compare with the other batch"),
    "jobs_dir": (
        "-o",
        "everything lies under runs/ of --root; parallelhassnes export BATCH --to view DIR makes Harbor's folder",
    ),
    "print_config": ("--print-config", "harbor run prints it; --dry-run says here what would run"),
    "export_traces": (
        "--export-traces",
        "run it, then parallelhassnes export BATCH --to view DIR and harbor traces export",
    ),
    "export_push": (
        "--export-push",
        "run it, then parallelhassnes export BATCH --to view DIR and harbor traces export",
    ),
    "use_static_ip": ("--use-static-ip", "it is of Harbor's Hub; leave it out"),
    "public": ("--public", "it is of an upload; leave it out"),
    "share_org": ("--share", "it is of an upload; leave it out"),
    "share_user": ("--share-user", "it is of an upload; leave it out"),
    "org": ("--org", "it is of Harbor's Hub; leave it out"),
    "credential_mode": ("--credential-mode", "it is of Harbor's Hub; leave it out"),
    "stored_secret": ("--stored-secret", "it is of Harbor's Hub; --secret NAME passes a variable of here on"),
    "one_off_secret": ("--one-off-secret", "it is of Harbor's Hub; --secret NAME passes a variable of here on"),
    "registry_credential": ("--registry-secret", "it is of Harbor's Hub; docker login is for here"),
    "no_secrets": ("--no-secrets", "it is of Harbor's Hub; nothing is passed on that is not named"),
}
"""Parameter of Harbor's function → its option, and what to do instead: what cannot hold here."""


class HarborLine(NamedTuple):
    """A command line, read."""

    document: dict[str, Any]
    """The Harbor job config that it amounts to."""
    own: dict[str, Any]
    """The values of our options, and of Harbor's ``quiet`` and ``dry_run``."""


def read(arguments: Sequence[str], own: Callable[..., Any], name: str) -> HarborLine:
    """Read the arguments of ``harbor run``.

    Args:
        own: a function whose parameters are our options.
        name: of the command, for messages.

    Raises:
        UserError: Harbor refuses the line, or it asks for what cannot be here.
    """
    from harbor.cli import jobs
    from pydantic import ValidationError

    given = _parse(arguments, own, jobs.build_job_config, name)
    ours = {key: given.pop(key) for key in inspect.signature(own).parameters}
    for parameter, (option, fix) in INSTEAD.items():
        if given.get(parameter):
            raise UserError(f"{option} cannot be done here", fix=fix)
    ours |= {key: given.get(key) for key in ("quiet", "dry_run")}
    plugins = _plugins(given.pop("job_plugin", None), given.pop("plugin_kwargs", None))
    given |= {
        name: None
        for name in ("job_plugin", "plugin_kwargs")
        if name in inspect.signature(jobs.build_job_config).parameters
    }
    given["dry_run"] = False
    try:
        config = jobs.build_job_config(**given)
    except SystemExit:
        raise UserError("harbor run refuses this line", fix="see above") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise UserError(f"harbor run refuses this line: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"harbor run refuses this line: {str(error).splitlines()[0]}") from None
    return HarborLine(_document(config) | ({"plugins": plugins} if plugins else {}), ours)


def _plugins(names: list[str] | None, kwargs: list[str] | None) -> list[dict[str, Any]]:
    """Return the job plugins of a line, which are no part of Harbor's job."""
    from harbor.cli.job_plugins import plugin_configs_from_cli

    try:
        return [each.model_dump(mode="json", exclude_defaults=True) for each in plugin_configs_from_cli(names, kwargs)]
    except ValueError as error:
        raise UserError(f"harbor run refuses this line: {str(error).splitlines()[0]}") from None


def _parse(arguments: Sequence[str], own: Callable[..., Any], theirs: Callable[..., Any], name: str) -> dict[str, Any]:
    import typer
    from typer.main import get_command

    def line(**given: Any) -> dict[str, Any]:
        return given

    mine, others = (inspect.signature(each, eval_str=True).parameters for each in (own, theirs))
    every = {**{key: others[key] for key in others if key not in mine}, **mine}
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in every.values()]
    line.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    line.__annotations__ = {each.name: each.annotation for each in parameters}
    line.__doc__ = own.__doc__
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(context_settings={"help_option_names": []})(line)
    given: dict[str, Any] = get_command(app).main(args=list(arguments), prog_name=name, standalone_mode=False)
    return given


def _document(config: Any) -> dict[str, Any]:
    """Tell what was said, as a table: secrets by name, as Harbor itself writes them into its own files."""
    options: dict[str, Any] = {"mode": "json", "exclude_unset": True, "exclude_none": True}
    made: dict[str, Any] = config.model_dump(**options, context={"redact_sensitive_env": False})
    made["n_concurrent_trials"] = config.n_concurrent_trials
    if "job_name" not in config.model_fields_set:
        made.pop("job_name", None)
    if not made.get("retry"):
        made.pop("retry", None)
    for filters in (made.get("retry") or {}).values():
        if isinstance(filters, list):
            filters.sort()
    sections = [(config.environment, made.get("environment")), (config.verifier, made.get("verifier"))]
    sections += zip(config.agents, made.get("agents") or (), strict=False)
    for model, section in sections:
        if section and model.env:
            section["env"] = {key: _by_name(key, value) for key, value in model.env.items()}
    used: dict[str, None] = {}
    for agent in made.get("agents") or ():
        used |= {each: None for each in agent_keys.read_by(agent) if os.environ.get(each)}
    if used:
        made["secrets"] = list(used)
    return made


def _by_name(name: str, value: str) -> str:
    """A value that this environment has under the same name is taken from there, and not written into the table."""
    return f"${{{name}}}" if _holds(os.environ, name, value) else value


def _holds(environ: Mapping[str, str], name: str, value: str) -> bool:
    from harbor.utils.env import is_sensitive_env_key

    return bool(value) and environ.get(name) == value and is_sensitive_env_key(name)
