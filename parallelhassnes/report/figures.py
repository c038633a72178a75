"""The report's pictures: drawn by matplotlib, put into the page as SVG whose colours are the page's.

Colours are drawn as stand-ins and replaced by variables of the page's style, so that one picture serves light and
dark. Nothing is told by colour alone: markers have numbers, areas have hatches, and a table with the same numbers is
beside every picture.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from parallelhassnes.errors import extra
from parallelhassnes.report.spans import PHASES, Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WIDTH_IN = 6.4
MOST_ROWS = 40
MOST_KEYS = 10
BINS = 240
NAME_LENGTH = 30
MOST_TOGETHER = 4
"""Numbers at a spot where several points lie."""
COVERS = 0.03
"""Of the width and height: points closer than this would hide each other's number."""
INK, MUTED, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper"}
PHASE_COLOURS = ("#010211", "#010212", "#010213", "#010214", "#010215")
PHASE_HATCHES = ("", "///", "", "...", "xxx")
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.edgecolor": LINE,
    "hatch.color": PAPER,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


class Rate(NamedTuple):
    """A point with its interval."""

    name: str
    rate: float
    low: float
    high: float
    baseline: bool = False
    cost_usd: float | None = None
    """Of a trial."""


def require() -> None:
    """Look whether pictures can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    with extra("report", "a report needs"):
        import matplotlib as _  # noqa: F401, ICN001


def leaderboard(rates: Sequence[Rate]) -> str:
    """Return a row per agent, its pass rate as a dot with its interval; baselines are hollow."""
    shown = list(rates)[:MOST_ROWS]
    figure, (axes,) = _figure(0.9 + 0.36 * len(shown))
    places = range(len(shown), 0, -1)
    for place, rate in zip(places, shown, strict=True):
        axes.plot([rate.low, rate.high], [place, place], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot(rate.rate, place, "o", markersize=8, color=INK, markerfacecolor=PAPER if rate.baseline else INK)
    axes.set_yticks(list(places), told_apart([rate.name for rate in shown]))
    axes.set_ylim(0.4, len(shown) + 0.6)
    axes.tick_params(axis="y", length=0)
    _percent_axis(axes, "x")
    axes.set_xlabel("pass rate")
    return _svg(figure, "leaderboard")


def cost_against_success(rates: Sequence[Rate]) -> str:
    """Cost of a trial against the pass rate; the numbers are those of the list beside it."""
    import numpy as np

    figure, (axes,) = _figure(3.6)
    shown = list(rates)[:MOST_ROWS]
    costs = [rate.cost_usd or 0.0 for rate in shown]
    for rate, cost in zip(shown, costs, strict=True):
        axes.plot([cost, cost], [rate.low, rate.high], color=MUTED, linewidth=1)
    most = float(np.max(costs)) or 1.0
    if min(costs) > 0 and max(costs) / min(costs) > 20:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.3, most * 1.3)
        places = np.log(np.array(costs) / min(costs)) / np.log(most / min(costs))
    else:
        axes.set_xlim(-0.04 * most, 1.08 * most)
        places = np.array(costs) / most
    for own in together([(place, rate.rate) for place, rate in zip(places, shown, strict=True)]):
        spot = costs[own[0]], shown[own[0]].rate
        axes.plot(*spot, "o", markersize=15, color=INK, markerfacecolor=PAPER, clip_on=False)
        alone = len(own) == 1
        axes.annotate(str(own[0] + 1) if alone else "×", spot, ha="center", va="center", fontsize=10, color=INK)
        if not alone:
            numbers = ", ".join(str(index + 1) for index in own[:MOST_TOGETHER])
            more = f" +{len(own) - MOST_TOGETHER}" if len(own) > MOST_TOGETHER else ""
            left = places[own[0]] > 0.6
            axes.annotate(
                numbers + more,
                spot,
                (-9 if left else 9, -12 if spot[1] > 0.5 else 7),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=10,
                color=INK,
            )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.set_xlabel("cost of a trial, USD")
    _percent_axis(axes, "y")
    axes.set_ylabel("pass rate")
    axes.grid(visible=True, color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    return _svg(figure, "cost")


def timeline(spans: Sequence[Span], keys: Sequence[str]) -> str:
    """For each queue key how many attempts were in which phase, over time; waiting ones on top."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    shown = list(keys)[:MOST_KEYS]
    start = min(span.times[0] for span in spans)
    end = max(*(span.times[-1] for span in spans), start + 1e-3)
    unit, name = next(
        (u, n)
        for u, n in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
        if (end - start) >= 2 * u or u == 1.0
    )
    figure, every = _figure(0.8 + 1.15 * len(shown), len(shown))
    edges = np.linspace(start, end, BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    order = [*range(1, len(PHASES)), 0]
    for place, key in enumerate(shown):
        axes = every[place]
        own = np.array([span.times for span in spans if span.queue_key == key])
        layers = [_occupancy(own[:, phase], own[:, phase + 1], edges) for phase in order]
        areas = axes.stackplot(
            (middles - start) / unit, layers, colors=[PHASE_COLOURS[phase] for phase in order], linewidth=0
        )
        for area, phase in zip(areas, order, strict=True):
            area.set_hatch(PHASE_HATCHES[phase])
            area.set_edgecolor(INK if phase == 0 else PAPER)
            area.set_linewidth(0.6 if phase == 0 else 0)
        axes.set_title(_short(key, 50), loc="left", fontsize=12.5, color=INK)
        axes.set_xlim(0, (end - start) / unit)
        axes.set_ylim(0, None)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    every[-1].set_xlabel(f"{name} since the start")
    figure.supylabel("attempts at once", fontsize=12.5, color=INK)
    return _svg(figure, "timeline")


def _occupancy(starts: "NDArray[Any]", ends: "NDArray[Any]", edges: "NDArray[Any]") -> "NDArray[Any]":
    """Tell how many of the intervals are open on average in each bin."""
    import numpy as np

    def passed(moments: "NDArray[Any]") -> "NDArray[Any]":
        """Return the time since each moment that has come, summed, at each edge."""
        ordered = np.sort(moments)
        sums = np.concatenate([[0.0], np.cumsum(ordered)])
        count = np.searchsorted(ordered, edges)
        return np.asarray(count * edges - sums[count])

    spent = np.diff(passed(starts) - passed(ends))
    return np.asarray(np.maximum(spent / np.diff(edges), 0.0))


# --- common -------------------------------------------------------------------------------------------


def _figure(height: float, rows: int = 1) -> "tuple[Figure, list[Axes]]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for one in axes:
        one.set_facecolor("none")
    return figure, list(axes)


def _percent_axis(axes: "Axes", which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(-0.05, 1.05)
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
    axis.set_major_formatter(PercentFormatter(1, 0))
    axes.grid(visible=True, axis="x" if which == "x" else "y", color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)


def told_apart(texts: Sequence[str]) -> list[str]:
    """Return the names, short; those that are alike when short have their number in the list before them."""
    short = [_short(text) for text in texts]
    return [name if short.count(name) == 1 else f"{number}. {name}" for number, name in enumerate(short, 1)]


def together(places: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Return the indexes of points, in groups that would cover each other.

    Args:
        places: from 0 to 1 each way.
    """
    groups: list[list[int]] = []
    for index, (x, y) in enumerate(places):
        for group in groups:
            other = places[group[0]]
            if abs(x - other[0]) < COVERS and abs(y - other[1]) < COVERS:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _short(text: str, length: int = NAME_LENGTH) -> str:
    """Cut in the middle: the ends of names are what tells models apart."""
    plain = " ".join(text.split())
    if len(plain) <= length:
        return plain
    return f"{plain[: length // 2 - 1]}…{plain[-(length - length // 2) :]}"


def _svg(figure: "Figure", name: str) -> str:
    """Return the picture as an element for a page: no size of its own, its ids its own, its colours the page's."""
    import matplotlib as mpl

    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(
        r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true" focusable="false">', text, count=1
    )
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r"(\.\d\d)\d+", r"\1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var(--{variable})")
    for number, stand_in in enumerate(PHASE_COLOURS):
        text = text.replace(stand_in, f"var(--phase{number})")
    return text
