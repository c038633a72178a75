"""Budgets over all batches: of queue keys and of experiments. A batch's own stands with the batch."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from parallelhassnes.actions.limits import budget
from parallelhassnes.actions.limits.budget import Scope, SharedLine
from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import KnownHere, polled
from parallelhassnes.api.live.server_state import SiteHere

router = APIRouter(prefix="/v1", tags=["queue"], dependencies=[Depends(needs("read"))])


class SharedBudgets(BaseModel):
    """Every budget over all batches that is in force."""

    items: list[SharedLine]


class SharedWanted(BaseModel):
    """What may be spent in all, in the place of the configured budget; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    scope: Scope
    name: str = Field(min_length=1, max_length=500)
    """The queue key or the experiment."""
    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    tokens: int | None = Field(default=None, ge=0)
    reason: str = Field(default="", max_length=500)


@router.get("/budgets", response_model=SharedBudgets)
def list_budgets(known: KnownHere, site: SiteHere) -> Response:
    """What queue keys and experiments have spent, and their budgets."""
    return polled(known, SharedBudgets(items=budget.every_shared(site.context())))


@router.put("/budgets", dependencies=[Depends(needs("operate"))])
def set_shared_budget(site: SiteHere, wanted: Annotated[SharedWanted, Body()]) -> SharedLine:
    """Let a queue key or an experiment spend so much in all, from the next pass on."""
    return budget.change_shared(
        site.context(), wanted.scope, wanted.name, usd=wanted.usd, tokens=wanted.tokens, reason=wanted.reason
    )
