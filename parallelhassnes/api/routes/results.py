"""Results, comparisons and errors across batches."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from parallelhassnes.api.http.auth import needs
from parallelhassnes.api.http.responses import Id, KnownHere, polled
from parallelhassnes.api.live.server_state import SiteHere
from parallelhassnes.api.routes.batches import batch_id
from parallelhassnes.results import aggregate as grouping
from parallelhassnes.results import analysis_list as analysing
from parallelhassnes.results import collect, error_groups
from parallelhassnes.results import compare as comparing
from parallelhassnes.results.aggregate import DEFAULT_BY, Results
from parallelhassnes.results.analysis_list import Analysed
from parallelhassnes.results.compare import Comparison
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.rows import TrialLines, trial_lines

router = APIRouter(prefix="/v1", tags=["results"], dependencies=[Depends(needs("read"))])

Batch = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[A-Za-z0-9._-]+$", description="One batch, or `latest`; left out: all of them."),
]
Experiment = Annotated[str | None, Query(min_length=1, max_length=500, description="The batches of an experiment.")]
Side = Annotated[
    str, Query(min_length=1, max_length=700, description="`BATCH` or `experiment:NAME`, and perhaps `@AGENT[,MODEL]`.")
]


@router.get("/results", response_model=Results)
def get_results(
    known: KnownHere,
    site: SiteHere,
    batch: Batch = None,
    experiment: Experiment = None,
    by: Annotated[str, Query(max_length=200, description="What to group by, as `agent,model,task`.")] = ",".join(
        DEFAULT_BY
    ),
    unscored_as_zero: Annotated[bool, Query(description="Count trials without a reward as 0.")] = False,
) -> Response:
    """Rates with intervals, pass@k, tokens, money and time, by agent and model or by anything else."""
    chosen = collect.choose(site.layout, batch, experiment)
    names = [name.strip() for name in by.split(",") if name.strip()]
    found = grouping.results(site.layout, chosen, names, unscored_as_zero=unscored_as_zero)
    return polled(known, found)


@router.get("/trials", response_model=TrialLines)
def get_trials(known: KnownHere, site: SiteHere, batch: Batch = None, experiment: Experiment = None) -> Response:
    """A line per trial: reward, tokens, money, time, agent, task."""
    return polled(known, trial_lines(site.layout, collect.choose(site.layout, batch, experiment)))


@router.get("/compare", response_model=Comparison)
def get_comparison(known: KnownHere, site: SiteHere, a: Side, b: Side) -> Response:
    """Two batches, experiments or agents task by task: difference, flips, cost and time."""
    return polled(known, comparing.compare(site.layout, a, b))


@router.get("/batches/{batch}/analyses", response_model=Analysed)
def get_analyses(known: KnownHere, site: SiteHere, batch: Id) -> Response:
    """What the analyses say of each trial of a batch, and how far their engines agree."""
    return polled(known, analysing.analyses(site.layout, batch_id(site, batch)))


@router.get("/errors", response_model=Errors)
def get_errors(known: KnownHere, site: SiteHere, batch: Batch = None, experiment: Experiment = None) -> Response:
    """What failed, by class and message, with counts and an example each."""
    chosen = collect.choose(site.layout, batch, experiment)
    return polled(known, error_groups.errors(site.layout, chosen))
