"""Telling people what happened, by Apprise: ``python -m parallelhassnes.admin.notifications ROOT``, and ``notify``.

One process at a time, under ``notices.lock``. What is new is claimed first (``store.queue.notices``), then each service gets one
message for all of one event. A service has ``timeout_sec`` for it; what it has not taken by then is not tried again, and
``_system/notices.log`` says so by the name of the service's variable. No URL is written or shown anywhere.
"""

import logging
import sys
import threading
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import BaseModel

from parallelhassnes.errors import UserError, extra
from parallelhassnes.formatting import counted
from parallelhassnes.names import CONFIG_NAME
from parallelhassnes.schedule import health
from parallelhassnes.schedule.context import Context, open_context
from parallelhassnes.schedule.limits.concurrency_keys import Holds
from parallelhassnes.schedule.process import notifying, senders
from parallelhassnes.store import identity, locks, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import notices, tickets
from parallelhassnes.store.queue.notices import Notice
from parallelhassnes.store.records import now_text
from parallelhassnes.views import batch_summary
from parallelhassnes.views.outcome import trials_text
from parallelhassnes.views.scoreboard_models import TrialCounts

MOST_LINES = 20
"""Lines of one message; how many more there are is said."""
_TITLES = {
    "batch_ended": "{} ended",
    "gate_waits": "{} waiting for a person",
    "key_paused": "{} paused",
    "budget_reached": "{} reached",
    "nothing_ticks": "nothing starts",
}
_NOUNS = {"batch_ended": "batch", "gate_waits": "step", "key_paused": "queue key", "budget_reached": "budget"}
_OVER = {"done": "is done", "attention": "needs attention", "canceled": "is canceled"}
"""State of a batch that is over → its words."""


class Service(NamedTuple):
    """Where messages go."""

    name: str
    """The variable that holds its URL."""
    kind: str = ""
    """What Apprise calls it: ``JSON``, ``Slack``."""
    trouble: str = ""
    """Why it cannot be used, in one line with what to do; empty for one in order."""
    plugin: Any = None


class Delivery(BaseModel):
    """What one service was told."""

    service: str
    """The variable that holds its URL."""
    event: str
    title: str
    ok: bool
    """Whether it took the message."""
    line: str
    """How that went."""


def services(ctx: Context) -> list[Service]:
    """Return the services of the configuration.

    Raises:
        UserError: Apprise is not installed, or ``env_file`` cannot be read.
    """
    with extra("notify", "telling people of events needs"):
        import apprise
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False  # it writes addresses
    known, found = ctx.secrets(), []
    for name in ctx.config.notify.to:
        if not known.get(name):
            place = ctx.config.env_file or "env_file"
            fix = f"{name} is not set; set it in {place} to a URL of a service of Apprise"
            found.append(Service(name, trouble=fix))
            continue
        plugin = apprise.Apprise.instantiate(known[name], suppress_exceptions=True)
        if plugin is None:
            found.append(Service(name, trouble=f"{name} holds no URL that Apprise knows; see its list of services"))
        else:
            found.append(Service(name, str(getattr(plugin, "service_name", "") or "a service"), plugin=plugin))
    return found


def send(ctx: Context) -> list[Delivery]:
    """Tell of everything that is new; who is at it already looks again after its own.

    Raises:
        UserError: Apprise is not installed, or ``env_file`` cannot be read; nothing was claimed.
    """
    done: list[Delivery] = []
    while ctx.config.notify.to and notices.untold(ctx.layout):
        lock = locks.hold(notifying.sending_lock(ctx.layout))
        if lock is None:
            break
        try:
            to = services(ctx)
            claimed = [found for path in notices.untold(ctx.layout) if (found := notices.claim(path)) is not None]
            for event, group in groupby(claimed, key=lambda notice: notice.event):
                lines = [line for notice in group if (line := _line(ctx, notice))]
                if lines:
                    done += _tell(ctx, to, event, *_message(event, lines))
        finally:
            locks.release(lock)
    return done


def look(ctx: Context) -> list[Delivery]:
    """Tell of what is new and, from outside of any tick, of a store that nothing ticks.

    Raises:
        UserError: nobody is configured to be told; as ``send``.
    """
    _check(ctx)
    notifying.note_unserved(ctx)
    waits = _waiting(ctx.layout)
    if waits and not health.was_ticked(ctx.layout):
        at = health.last_pass(ctx.layout)
        line = f"nobody has ticked since {at}, and {waits}; look at cron, or run `parallelhassnes tick`"
        notices.note(ctx.layout, ctx.config.notify, "nothing_ticks", at, line=line)
    return send(ctx)


def test(ctx: Context) -> list[Delivery]:
    """Send every service a message that says that messages come through.

    Raises:
        UserError: as ``look``.
    """
    _check(ctx)
    return _tell(ctx, services(ctx), "test", "ParallelHassnes: a test", f"Messages of {ctx.layout.root} come through.")


def last_trouble(layout: Layout) -> str:
    """Return the last line of the log, if it tells of a message that was not taken; else nothing."""
    try:
        lines = (layout.system / notifying.LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines and " not told " in lines[-1] else ""


def _check(ctx: Context) -> None:
    if not ctx.config.notify.to:
        raise UserError("nobody is to be told of anything", fix=f'write to = ["NAME"] under [notify] in {CONFIG_NAME}')


def _waiting(layout: Layout) -> str:
    """Tell in words what waits for a tick, if anything."""
    tables = len(members.names(layout.incoming))
    if tables:
        return f"{counted(tables, 'table')} waiting to be taken in"
    if tickets.ended(layout) or tickets.running(layout) or any(True for _ in tickets.ready_folders(layout)):
        return "steps are in the queue"
    return ""


def _line(ctx: Context, notice: Notice) -> str:
    """Return a notice in one line; empty where it is not so any more."""
    if notice.event == "gate_waits":
        return f"approve or reject {notice.batch_id}/{notice.step}"
    if notice.event != "batch_ended":
        return notice.line
    with members.apart(ctx.layout.batch(notice.batch_id), lambda _: None):
        line = batch_summary.make(ctx.layout, notice.batch_id, 0, Holds(ctx.layout, ctx.config))
        if line.state not in _OVER:
            return ""
        counts = [text for text, _ in trials_text(line.trials or TrialCounts())] or [counted(line.steps_total, "step")]
        name = f" ({line.source_name})" if line.source_name else ""
        return f"{notice.batch_id}{name} {_OVER[line.state]}: {', '.join(counts)}; `parallelhassnes results {notice.batch_id}`"
    return ""


def _message(event: str, lines: list[str]) -> tuple[str, str]:
    """Return title and text of one message."""
    noun = _NOUNS.get(event, "")
    title = _TITLES[event].format(counted(len(lines), noun) if noun else "")
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return f"ParallelHassnes: {title}", "\n".join([*lines[:MOST_LINES], *more])


def _tell(ctx: Context, to: Iterable[Service], event: str, title: str, text: str) -> list[Delivery]:
    done = []
    for service in to:
        wrong = service.trouble or _notify(service.plugin, title, text, ctx.config.notify.timeout_sec)
        line = f"{event} not told to {service.name}: {wrong}" if wrong else f"{event} told to {service.name}"
        done.append(Delivery(service=service.name, event=event, title=title, ok=not wrong, line=line))
    _log(ctx.layout, [each.line for each in done])
    return done


def _log(layout: Layout, lines: Iterable[str]) -> None:
    with (layout.system / notifying.LOG).open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.writelines(f"{now_text()} {line}\n" for line in lines)


def _notify(plugin: Any, title: str, text: str, timeout_sec: float) -> str:
    """Have a service take a message, in a thread that nobody waits for any longer than that; what went wrong, or nothing."""
    outcome: dict[str, bool] = {}

    def work() -> None:
        outcome["ok"] = bool(plugin.notify(body=text, title=title))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout_sec)
    if thread.is_alive():
        return f"it did not answer within {timeout_sec:g} s"
    return "" if outcome.get("ok") else "it did not take the message"


def main(arguments: list[str]) -> None:
    """Send what is new, for a pass that waits for nothing."""
    ctx = open_context(senders.begin(arguments))
    identity.check(ctx.layout)
    try:
        send(ctx)
    except UserError as error:  # it is tried once, whatever is wrong
        for path in notices.untold(ctx.layout):
            notices.claim(path)
        _log(ctx.layout, [f"it was not told to anybody: {error}"])


if __name__ == "__main__":
    main(sys.argv[1:])
