"""``/operate``: queue keys, runners and batches at one place, and the forms by which operators say a word anywhere.

A form is shown after its consequences (the first click), and answered by going back to its page, where what was done
stands with the way to take it back.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from parallelhassnes.actions.limits import budget
from parallelhassnes.actions.registry import BY_NAME, LEDGER_WORDS
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.pages import action_list
from parallelhassnes.api.pages.login import own_page
from parallelhassnes.api.pages.render import PageRoute, page
from parallelhassnes.errors import UserError
from parallelhassnes.names import suggestion
from parallelhassnes.plan import CAPS
from parallelhassnes.schedule.context import Context
from parallelhassnes.store.queue import queue_keys
from parallelhassnes.views.history import operators_words

router = APIRouter(route_class=PageRoute)

MOST_BATCHES = 50


@router.get("/operate")
def operate_page(request: Request, site: SiteHere) -> Response:
    """Everything that an operator can turn."""
    ctx = site.context()
    board = site.board_now()
    return page(
        request,
        "operate.html",
        board=board,
        words=operators_words(site.layout.system, LEDGER_WORDS),
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
    max_cost_usd: Annotated[str, Form(max_length=25)] = "",
    max_tokens: Annotated[str, Form(max_length=25)] = "",
    max_turns: Annotated[str, Form(max_length=25)] = "",
    max_wall_sec: Annotated[str, Form(max_length=25)] = "",
) -> Response:
    """Do it, and go back to where it was asked for."""
    action = BY_NAME.get(word)
    if action is None:
        raise UserError(f"unknown action {word}", fix=suggestion(word, BY_NAME))
    caps = dict(zip(CAPS, (max_cost_usd, max_tokens, max_turns, max_wall_sec), strict=True))
    values: dict[str, dict[str, Any]] = {
        "cap": {name: _amount(text) for name, text in caps.items()},
        "retry": _only(only),
        "limit": {"number": _number(number)},
        "priority": {"number": _number(number) or 0},
        "budget": {"usd": _amount(usd), "tokens": _number(tokens)},
    }
    done = action.do(site.context(), target, reason, **values.get(action.command, {}))
    if action.nothing and not done.touched:
        word = action_list.NOTHING
    return RedirectResponse(action_list.address(own_page(back), word, target, done.touched, was), 303)


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
        raise UserError(f"{text} is not an amount", fix="give a number, as 12.50") from None


def _only(text: str) -> dict[str, Any]:
    """Tell which ended steps: as the form's list names them; an undone cancel means those that were canceled."""
    if text.startswith("class:"):
        return {"classes": [text.removeprefix("class:")]}
    return {} if text == "all" else {"unscored" if text == "unscored" else "failed": True}
