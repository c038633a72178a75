"""``pause`` and ``resume``, ``close`` and ``reopen``, ``drain`` and ``undrain``, ``limit``, ``priority``.

    runs/<batch_id>/control.json           paused, closed, priority of a batch
    runs/_system/limits/<key>.json         a queue key paused by an operator, or with a limit of theirs
    runners/<runner_id>/drain              this host starts nothing more

Each is a file that every pass obeys from then on; saying a thing twice changes nothing and is logged once. What
is said of a batch stands in its ledger, what is said of a key or a runner in ``_system/ledger.jsonl``. What may
start because of it starts at once: a pass follows.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parallelhassnes import formatting, key_names, names
from parallelhassnes.actions.attribution import ActionResult, said
from parallelhassnes.errors import UnknownId, UserError
from parallelhassnes.refs import resolve
from parallelhassnes.schedule import quarantine
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import credentials
from parallelhassnes.schedule.process import notifying
from parallelhassnes.schedule.tick import pass_and_wake
from parallelhassnes.store import atomic, batches, decider, index, members
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.queue import notices, queue_keys, tickets
from parallelhassnes.store.queue.queue_keys import KeyState, OperatorLimit
from parallelhassnes.store.records import Control, dump

_RECENT_BATCHES = 200


class Held(ActionResult):
    """What came of an operator's word."""

    ok: bool = True
    target: str
    """The batch, ``key KEY`` or ``runner RUNNER``."""
    changed: bool
    """False where it was so before."""
    line: str
    """What is so now."""
    started: int = 0
    """Attempts that could start because of it."""

    def lines(self) -> list[str]:
        line = self.line if self.changed else f"{self.line} (as before)"
        return [line, f"{formatting.counted(self.started, 'attempt')} started"] if self.started else [line]


# --- a batch ------------------------------------------------------------------------------------------


def close(ctx: Context, batch: str, reason: str = "") -> Held:
    """Start nothing more of a batch; what runs ends. ``reopen`` undoes it."""
    batch_id = _batch(ctx, batch)
    change = {"closed": said(reason)}
    changed = _control(ctx, batch_id, "closed", reason, change, when=lambda c: c.closed is None)
    return Held(target=batch_id, changed=changed, line=f"{batch_id} is closed: what runs ends, nothing starts")


def reopen(ctx: Context, batch: str, reason: str = "") -> Held:
    """Let a closed batch go on."""
    batch_id = _batch(ctx, batch)
    changed = _control(ctx, batch_id, "reopened", reason, {"closed": None}, when=lambda c: c.closed is not None)
    line = f"{batch_id} is open"
    return Held(target=batch_id, changed=changed, line=line, started=len(pass_and_wake(ctx)))


def priority(ctx: Context, batch: str, number: int, reason: str = "") -> Held:
    """Start a batch's steps before those of batches with a lower number.

    Raises:
        UserError: the number is not from -1000 to 1000.
    """
    if not -1000 <= number <= 1000:
        raise UserError(f"priority {number} is out of range", fix="give -1000 to 1000")
    batch_id = _batch(ctx, batch)
    changed = _control(
        ctx, batch_id, "priority", reason, {"priority": number}, when=lambda c: c.priority != number, priority=number
    )
    return Held(target=batch_id, changed=changed, line=f"{batch_id} has priority {number}")


def _control(
    ctx: Context, batch_id: str, event: str, reason: str, change: dict[str, Any], *, when: Any, **facts: Any
) -> bool:
    """Replace the batch's ``control.json`` where ``when`` says that it changes anything, and log it."""
    batch_dir = ctx.layout.batch(batch_id)
    with decider.deciding(ctx.layout):
        control: Control = batches.read_control(batch_dir)
        if not when(control):
            return False
        batches.write_control(ctx.layout, batch_id, control.model_copy(update=change))
        # What the last pass noted may be no longer so; the next one notes it again.
        if quarantine.reason_of(ctx, batch_id) is None:
            (ctx.layout.blocked / f"{batch_id}.json").unlink(missing_ok=True)
        word = said(reason)
        ledger.append(batch_dir, event, by=word.by, reason=word.reason or None, **facts)
    return True


def pause_apart(batch_dir: Path, reason: str) -> None:
    """Pause a batch that has no name in the store yet, so that no pass ever sees it otherwise."""
    control, word = batches.read_control(batch_dir), said(reason)
    if control.paused is None:
        ledger.replace_json(batch_dir, batches.CONTROL, dump(control.model_copy(update={"paused": word})))
        ledger.append(batch_dir, "paused", by=word.by, reason=word.reason or None)


def _batch(ctx: Context, text: str) -> str:
    found = resolve(ctx.layout, text)
    if found.job_id is not None:
        raise UserError(f"{text} is a {found.what}, not a batch", fix=f"name {found.batch_id}")
    return found.batch_id


# --- a batch or a queue key ---------------------------------------------------------------------------


def pause(ctx: Context, target: str, reason: str = "") -> Held:
    """Start nothing of a batch, or on a queue key, until ``resume``; what runs goes on."""
    key = known_key(ctx, target)
    word = said(reason)
    if key is None:
        batch_id = _batch_or_key(ctx, target)
        changed = _control(ctx, batch_id, "paused", reason, {"paused": word}, when=lambda c: c.paused is None)
        return Held(target=batch_id, changed=changed, line=f"{batch_id} is paused; resume lets it go on")
    changed = _key(
        ctx,
        key,
        "key_paused",
        reason,
        lambda state: state.paused is None,
        lambda state: state.model_copy(update={"paused": word}).changed(f"paused {word}", word.at),
    )
    if changed:
        line = f"{key} is paused {word}; `parallelhassnes resume {key}` lets it go on"
        notices.note(ctx.layout, ctx.config.notify, "key_paused", key, word.at, line=line)
        notifying.keep(ctx)
    return Held(target=f"key {key}", changed=changed, line=f"{key} is paused; resume lets it go on")


def resume(ctx: Context, target: str, reason: str = "") -> Held:
    """Let a paused batch or queue key go on, whether an operator or its provider paused it.

    What ``run`` made and waits for takes the values that the caller's environment holds from now on.
    """
    key = known_key(ctx, target)
    if key is None:
        batch_id = name = _batch_or_key(ctx, target)
        changed = _control(ctx, batch_id, "resumed", reason, {"paused": None}, when=lambda c: c.paused is not None)
        changed = _bind_again(ctx, [batch_id]) or changed
    else:
        name, word = f"key {key}", said(reason)
        changed = _key(
            ctx,
            key,
            "key_resumed",
            reason,
            lambda state: bool(state.holds),
            lambda state: state.model_copy(update={"paused": None, "breakers": {}}).changed(f"resumed {word}", word.at),
        )
        folder = key_names.key_dir(key)
        _bind_again(ctx, [found[1] for found in tickets.ready_folders(ctx.layout) if found[0] == folder])
    started = len(pass_and_wake(ctx))
    return Held(target=name, changed=changed, line=f"{key or name} goes on", started=started)


def _bind_again(ctx: Context, batch_ids: Iterable[str]) -> bool:
    """Give batches that ``run`` made what the caller's environment holds of their variables; whether any changed."""
    changed = False
    with decider.deciding(ctx.layout):
        for batch_id in batch_ids:
            with members.apart(batch_id, lambda _: None):
                changed = credentials.bind_again(ctx, batch_id) or changed
    return changed


def limit(ctx: Context, key_text: str, number: int | None, reason: str = "") -> Held:
    """Set the live attempts of a queue key at most, for all passes from now on, in the place of the configured limit.

    Args:
        number: None takes the operator's limit away again.

    Raises:
        UserError: the number is less than 1.
    """
    if number is not None and number < 1:
        raise UserError("a limit is at least 1", fix="pause the key to start nothing on it")
    key = known_key(ctx, key_text)
    if key is None:
        raise unknown_key(ctx, key_text)
    word = said(reason)
    wanted = None if number is None else OperatorLimit(limit=number, said=word)
    what = "limit as configured" if number is None else f"limit {number}"
    changed = _key(
        ctx,
        key,
        "key_limit",
        reason,
        lambda state: (state.limit.limit if state.limit else None) != number,
        lambda state: state.model_copy(update={"limit": wanted}).changed(f"{what} {word}", word.at),
        limit=number,
    )
    started = len(pass_and_wake(ctx))
    line = f"{key}: at most {number} at once" if number is not None else f"{key}: the limit is as configured"
    return Held(target=f"key {key}", changed=changed, line=line, started=started)


def _key(ctx: Context, key: str, event: str, reason: str, when: Any, change: Any, **facts: Any) -> bool:
    with decider.deciding(ctx.layout):
        state: KeyState = queue_keys.read(ctx.layout, key)
        if not when(state):
            return False
        queue_keys.write(ctx.layout, change(state))
        word = said(reason)
        ledger.append(ctx.layout.system, event, queue_key=key, by=word.by, reason=word.reason or None, **facts)
    return True


def known_key(ctx: Context, text: str) -> str | None:
    """Return the queue key that a text names, normalised; None where nothing in the store or the configuration has it."""
    try:
        key = key_names.normalise_queue_key(text, ctx.config.aliases)
    except UserError:
        return None
    return key if key in _known_keys(ctx) else None


def _known_keys(ctx: Context) -> set[str]:
    """Return the keys that are configured, have a file, are in the queue, or are in the newest batches."""
    known = set(ctx.config.limits) | set(queue_keys.every(ctx.layout))
    for entry in tickets.running(ctx.layout):
        known.update(_key_of(entry.key_dir))
    for folder, _, _ in tickets.ready_folders(ctx.layout):
        known.update(_key_of(folder))
    for batch_id in ctx.layout.batch_ids()[-_RECENT_BATCHES:]:
        with members.apart(batch_id, lambda _: None):
            jobs = index.read(ctx.layout.batch(batch_id))
            known.update(step.queue_key for steps in jobs.values() for step in steps)
    return known


def _key_of(folder: str) -> Iterable[str]:
    try:
        return (key_names.key_from_dir(folder),)
    except UserError:  # a name too long to be read back
        return ()


def _batch_or_key(ctx: Context, text: str) -> str:
    try:
        return _batch(ctx, text)
    except UnknownId:
        if (fix := names.did_you_mean(text, _known_keys(ctx), "")) == "":
            raise
        raise UnknownId(f"there is no batch and no queue key {text}", fix=fix) from None


def unknown_key(ctx: Context, text: str) -> UnknownId:
    """Tell what is said to somebody who names a key that nothing has."""
    known = sorted(_known_keys(ctx))
    fix = names.suggestion(text, known, most=5)
    return UnknownId(f"nothing has the queue key {text}", fix=fix)


# --- a runner -----------------------------------------------------------------------------------------


def drain(ctx: Context, runner: str | None = None, reason: str = "") -> Held:
    """Have a host start nothing more; what runs there ends. ``undrain`` undoes it."""
    runner_id = _runner(ctx, runner)
    path = ctx.layout.runners / runner_id / "drain"
    changed = False
    with decider.deciding(ctx.layout):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            word = said(reason)
            atomic.write_json(path, dump(word))
            ledger.append(ctx.layout.system, "drained", runner=runner_id, by=word.by, reason=word.reason or None)
            changed = True
    return Held(target=f"runner {runner_id}", changed=changed, line=f"{runner_id} starts nothing more")


def undrain(ctx: Context, runner: str | None = None, reason: str = "") -> Held:
    """Let a drained host start attempts again."""
    runner_id = _runner(ctx, runner)
    path = ctx.layout.runners / runner_id / "drain"
    changed = False
    with decider.deciding(ctx.layout):
        if path.exists():
            path.unlink()
            word = said(reason)
            ledger.append(ctx.layout.system, "undrained", runner=runner_id, by=word.by, reason=word.reason or None)
            changed = True
    started = len(pass_and_wake(ctx)) if runner_id == ctx.runner_id else 0
    return Held(target=f"runner {runner_id}", changed=changed, line=f"{runner_id} starts attempts", started=started)


def _runner(ctx: Context, text: str | None) -> str:
    if text is None:
        return ctx.runner_id
    known = {ctx.runner_id}
    if ctx.layout.runners.is_dir():
        known |= {entry.name for entry in ctx.layout.runners.iterdir() if entry.name[0] != "."}
    if text in known:
        return text
    fix = names.suggestion(text, sorted(known))
    raise UnknownId(f"there is no runner {text}", fix=fix)
