"""``/operate``: queue keys, runners and batches at one place, and the forms by which operators say a word anywhere.

A form is shown after its consequences (the first click), and answered by going back to its page, where what was done
stands with the way to take it back.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.actions import approve, budget, pause_resume
from parallelhassnes.actions import cancel_retry as operations
from parallelhassnes.actions.cancel_retry import Only, Target
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list
from parallelhassnes.api.pages.login import own_page
from parallelhassnes.api.pages.render import PageRoute, page
from parallelhassnes.errors import UserError
from parallelhassnes.names import nearest
from parallelhassnes.refs import resolve
from parallelhassnes.schedule.context import Context
from parallelhassnes.store.queue import queue_keys
from parallelhassnes.views.history import operators_words

router = APIRouter(route_class=PageRoute)

MOST_BATCHES = 50


class FormInput(NamedTuple):
    """What a form says."""

    target: str
    reason: str
    number: int | None
    only: str
    usd: float | None = None
    tokens: int | None = None


class Came(NamedTuple):
    """What came of it."""

    target: str
    touched: int = 0
    word: str = ""
    """What was done, where that is not what was asked for."""


@router.get("/operate")
def operate_page(request: Request, site: SiteHere) -> Response:
    """Everything that an operator can turn."""
    ctx = site.context()
    board = site.board_now()
    return page(
        request,
        "operate.html",
        board=board,
        words=operators_words(site.layout.system),
        said=action_list.done(request),
        batches=[b for b in board.batches if b.state in ("running", "waiting", "blocked")][:MOST_BATCHES],
        budgets=budget.every_shared(ctx),
        keys=_keys(ctx, [line.queue_key for line in board.queue]),
        lines={k.queue_key: k for k in board.queue},
        own_limits={key: state.limit.limit for key, state in queue_keys.every(site.layout).items() if state.limit},
    )


def _keys(ctx: Context, queued: list[str]) -> list[str]:
    """Queue keys in use or configured."""
    return list(dict.fromkeys([*queued, *ctx.config.limits]))


@router.post("/operate/{word}", dependencies=[Depends(needs("operate"))])
def say(
    site: SiteHere,
    word: str,
    target: Annotated[str, Form(max_length=600)],
    back: Annotated[str, Form(max_length=1000)] = "/",
    reason: Annotated[str, Form(max_length=500)] = "",
    number: Annotated[str, Form(max_length=10)] = "",
    was: Annotated[str, Form(max_length=60)] = "",
    usd: Annotated[str, Form(max_length=25)] = "",
    tokens: Annotated[str, Form(max_length=25)] = "",
    only: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Do it, and go back to where it was asked for."""
    act = _ACTS.get(word)
    if act is None:
        near = nearest(word, _ACTS)
        raise UserError(f"there is no word {word}", fix=f"did you mean {near}?" if near else "")
    came = act(site.context(), FormInput(target, reason, _number(number), only, _amount(usd), _number(tokens)))
    return RedirectResponse(action_list.address(own_page(back), came.word or word, came.target, came.touched, was), 303)


def _number(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{text} is not a number", fix="give a whole number") from None


def _amount(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{text} is not an amount", fix="give USD, as 12.50") from None


def _held(act: Callable[[Context, str, str], pause_resume.Held]) -> Callable[[Context, FormInput], Came]:
    def done(ctx: Context, form: FormInput) -> Came:
        act(ctx, form.target, form.reason)
        return Came(form.target)

    return done


def _limit(ctx: Context, form: FormInput) -> Came:
    if form.number is not None and form.number < 1:
        raise UserError("a limit is at least 1", fix="pause the key to start nothing on it")
    pause_resume.limit(ctx, form.target, form.number, form.reason)
    return Came(form.target)


def _priority(ctx: Context, form: FormInput) -> Came:
    pause_resume.priority(ctx, form.target, form.number or 0, form.reason)
    return Came(form.target)


def _budget(ctx: Context, form: FormInput) -> Came:
    batch_id = resolve(ctx.layout, form.target).batch_id
    budget.change(ctx, batch_id, usd=form.usd, tokens=form.tokens, reason=form.reason)
    return Came(batch_id)


def _shared_budget(scope: budget.Scope) -> Callable[[Context, FormInput], Came]:
    def done(ctx: Context, form: FormInput) -> Came:
        line = budget.change_shared(ctx, scope, form.target, usd=form.usd, tokens=form.tokens, reason=form.reason)
        return Came(line.name)

    return done


def _approve(ctx: Context, form: FormInput) -> Came:
    done = approve.approve(ctx, form.target, form.reason)
    return Came(done.target, len(done.steps))


def _reject(ctx: Context, form: FormInput) -> Came:
    done = approve.reject(ctx, form.target, form.reason)
    return Came(done.target, len(done.steps))


def _cancel(ctx: Context, form: FormInput) -> Came:
    done = operations.cancel(ctx, _target(ctx, form.target), form.reason)
    word = "cancel" if done.changed else "nothing"
    return Came(done.target, len(done.attempts) + len(done.steps), word)


def _retry(ctx: Context, form: FormInput) -> Came:
    done = operations.retry(ctx, _target(ctx, form.target), _only(form.only), form.reason)
    return Came(done.target, len(done.steps))


def _only(text: str) -> Only:
    """Which ended steps: as the form's list names them; an undone cancel means those that were canceled."""
    if text.startswith("class:"):
        return Only(classes=frozenset({text.removeprefix("class:")}))
    return Only() if text == "all" else Only(unscored=True) if text == "unscored" else Only(failed=True)


def _target(ctx: Context, text: str) -> Target:
    found = resolve(ctx.layout, text)
    return Target(batch_id=found.batch_id, job_id=found.job_id, step_id=found.step_id)


_ACTS: dict[str, Callable[[Context, FormInput], Came]] = {
    "pause": _held(pause_resume.pause),
    "resume": _held(pause_resume.resume),
    "close": _held(pause_resume.close),
    "reopen": _held(pause_resume.reopen),
    "drain": _held(pause_resume.drain),
    "undrain": _held(pause_resume.undrain),
    "limit": _limit,
    "priority": _priority,
    "cancel": _cancel,
    "retry": _retry,
    "approve": _approve,
    "reject": _reject,
    "budget": _budget,
    "budget-key": _shared_budget("key"),
    "budget-experiment": _shared_budget("experiment"),
}
