"""Which variables the attempts of a batch are given, and whose credential that makes.

    <root>/runners/.credential.key   32 random bytes, made at the first need; outside of ``runs/``, which people share
    control.json  "variables"        what a batch that ``run`` made found in the environment: name → mark of the value
    meta.json     "credential"       the mark of all secrets that an attempt was given, and their names

A *mark* is an HMAC under that key, so it tells two values apart and says nothing of either; without the key all marks are
other ones, which only means that nothing is known to be refused, and that a batch waits until it is given its values again.

A value comes from what was lent (``lent``), from ``env_file``, or from the environment of the process that runs the pass, in
this order. The first two are the same for every process. An environment is its owner's: that of a tick (or a server) is for
every batch; that of a ``run``, and of all processes that come of it, for its own batch (``Options.environment_of``); and a batch that
``run`` made takes the values that ``run`` had, from whichever process has the same, or waits. So it makes no difference which
process happens to run a pass.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from parallelhassnes.config import PASSED_IF_SET
from parallelhassnes.env_file import BadEnvFile
from parallelhassnes.execute.secret_forms import is_key, is_public, looks_secret, why_no_key
from parallelhassnes.plan import StepSpec
from parallelhassnes.schedule import ephemeral_secrets
from parallelhassnes.schedule.context import Context
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.records import Credential

_TEMPLATE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_KEY_BYTES = 32


class Given(NamedTuple):
    """What the steps of a batch can be given."""

    values: dict[str, str]
    """Every variable that a template of theirs can take."""
    named: tuple[str, ...]
    """Those that each step is given where they are set: the configuration's and the table's."""
    missing: tuple[str, ...]
    """Those without which nothing starts."""
    bound: tuple[str, ...] = ()
    """Those among the missing that ``run`` had another value of than this process, or that this process has none of."""
    wrong: tuple[str, ...] = ()
    """Why those among the missing that have a value have none that can be used, a line each."""


def given(ctx: Context, batch_id: str) -> Given:
    """Tell what this process can give to the steps of a batch.

    Raises:
        BadEnvFile: the ``env_file`` cannot be read, and the batch takes something from outside.
    """
    batch_dir = ctx.layout.batch(batch_id)
    wanted = batches.read_batch(batch_dir).secrets
    bound = batches.read_control(batch_dir).variables
    named = tuple(dict.fromkeys((*ctx.config.secrets, *wanted)))
    try:
        filed = ctx.filed()
    except BadEnvFile:
        if named or bound:
            raise
        filed = {}
    fixed = {**filed, **ephemeral_secrets.known()}
    values = {**_of_environment(ctx, batch_id, wanted, bound, fixed), **fixed}
    needed = dict.fromkeys((*wanted, *(bound or ())))
    wrong = {
        name: f"{name} can be no key: {why}"
        for name in wanted
        if is_key(name) and (why := why_no_key(values.get(name, "")))
    }
    missing = tuple(name for name in needed if not values.get(name) or name in wrong)
    elsewhere = tuple(name for name in missing if name in (bound or ()) and name not in wrong)
    return Given(values, named, missing, elsewhere, tuple(wrong.values()))


def _of_environment(
    ctx: Context, batch_id: str, wanted: Iterable[str], bound: Mapping[str, str] | None, fixed: Mapping[str, str]
) -> dict[str, str]:
    """Tell what of this process's environment is the batch's."""
    own, here = ctx.options.environment_of, dict(os.environ)
    found = {name: here[name] for name in PASSED_IF_SET if name in here}
    if own is None or batch_id in own:
        names = here.keys() if bound is None else set(wanted) - bound.keys()
        found |= {name: here[name] for name in names if name in here}
    for name, mark in (bound or {}).items():
        value = here.get(name)
        if name not in fixed and value and mark_of(ctx.layout, {name: value}) == mark:
            found[name] = value
    return found


def why_missing(ctx: Context, batch_id: str, known: Given) -> str | None:
    """Tell why a batch waits, in one line with what to do; None where nothing is missing."""
    if (gone := ephemeral_secrets.missing(known.missing, batch_id)) is not None:
        return gone
    if known.wrong:
        return f"{known.wrong[0]}; write it anew {f'in {ctx.config.env_file}' if ctx.config.env_file else 'where it is set'}"
    if known.bound:
        place = f"into {ctx.config.env_file}" if ctx.config.env_file else "into an env_file"
        return (
            f"secret {', '.join(known.missing)} is not at hand as `run` had it; put it {place}, or set it and "
            f"`parallelhassnes resume {batch_id}`"
        )
    if not known.missing:
        return None
    return f"secret {', '.join(known.missing)} is not set in {ctx.config.env_file or 'the environment'}"


def of_environment(ctx: Context, steps: Iterable[StepSpec], wanted: Iterable[str]) -> dict[str, str] | None:
    """Return the marks of what this process's environment holds for a batch: what ``Control.variables`` keeps.

    Args:
        steps: those of the batch, whose ``env`` may take more than is named.
        wanted: the table's secrets.

    Returns:
        Variable → mark of its value; None for a batch that takes nothing from outside.
    """
    names = {*ctx.config.secrets, *wanted}
    for step in steps:
        if step.env:
            names |= {found[1] for text in step.env.values() for found in _TEMPLATE.finditer(text)}
    names.difference_update(PASSED_IF_SET)
    if not names:
        return None
    try:
        filed = ctx.filed()
    except BadEnvFile:  # said where the values are needed
        filed = {}
    names.difference_update(filed, ephemeral_secrets.known())
    return {name: mark_of(ctx.layout, {name: os.environ[name]}) for name in sorted(names) if os.environ.get(name)}


def bind_again(ctx: Context, batch_id: str) -> bool:
    """Have a batch that ``run`` made take what this process's environment holds now; whether that is anything else.

    The caller holds ``tick.lock``. A server's environment is nobody's word about a batch.
    """
    batch_dir = ctx.layout.batch(batch_id)
    control = batches.read_control(batch_dir)
    if control.variables is None or not ctx.starts_attempts:
        return False
    wanted = {*batches.read_batch(batch_dir).secrets, *control.variables}
    variables = {**control.variables, **(of_environment(ctx, (), wanted) or {})}
    if variables == control.variables:
        return False
    batches.write_control(ctx.layout, batch_id, control.model_copy(update={"variables": variables}))
    ledger.append(batch_dir, "bound", by=ledger.person(), variables=sorted(variables))
    return True


def of_step(ctx: Context, known: Given, step: StepSpec) -> Credential:
    """Tell whose keys an attempt of a step is given."""
    values = {name: known.values[name] for name in known.named if known.values.get(name)}
    config = mapping(step.spec.get("config")) if step.kind == "trial" else {}
    for env in (step.env, mapping(mapping(config.get("agent")).get("env"))):
        for name, text in env.items():
            if isinstance(text, str) and ("${" in text or looks_secret(name)):
                values[name] = resolve(text, known.values)
    values = {name: value for name, value in values.items() if name not in PASSED_IF_SET and value}
    if not values:
        return Credential()
    variables = tuple(sorted(name for name in values if not is_public(name)))
    return Credential(mark=mark_of(ctx.layout, values), variables=variables)


def resolve(text: str, known: Mapping[str, str]) -> str:
    """Put values in the place of ``${NAME}`` and ``${NAME:-default}``, as Harbor does; unset without default is empty."""
    return _TEMPLATE.sub(lambda found: known.get(found[1]) or found[2] or "", text)


def mark_of(layout: Layout, values: Mapping[str, str]) -> str:
    """Return the mark of these variables; 32 hexadecimal digits."""
    said = atomic.dumps(sorted(values.items())).encode("utf-8", "surrogateescape")
    return hmac.new(_key(layout), said, hashlib.sha256).hexdigest()[:32]


def _key(layout: Layout) -> bytes:
    """Return the store's key; one that was cut short is as good as lost, and made anew."""
    path = layout.credential_key
    while True:
        try:
            found = atomic.read_bytes(path)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            atomic.claim(path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
            continue
        if len(found) == _KEY_BYTES:
            return found
        path.unlink(missing_ok=True)


class Credentials:
    """What the batches of one pass can be given, each found out once."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._given: dict[str, Given] = {}

    def given(self, batch_id: str) -> Given:
        """As the function; see there what it raises."""
        if batch_id not in self._given:
            self._given[batch_id] = given(self._ctx, batch_id)
        return self._given[batch_id]

    def of(self, batch_id: str, step: StepSpec) -> Credential:
        """Tell whose keys an attempt of the step is given."""
        return of_step(self._ctx, self.given(batch_id), step)
