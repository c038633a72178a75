"""The report as one HTML file: no script, no network, every text escaped by the template."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

from parallelhassnes import formatting
from parallelhassnes.report import figures, story, transcripts
from parallelhassnes.report.figures import Rate
from parallelhassnes.report.gather import Report, ReportCell, is_baseline, label
from parallelhassnes.report.spans import PHASES
from parallelhassnes.report.transcripts import TrialTranscript, Which
from parallelhassnes.results import text_tables
from parallelhassnes.results.aggregate import GroupLine
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.results.text_tables import Sheet

if TYPE_CHECKING:
    from jinja2 import Environment

STEPS_OF_SHADE = 5


class LinkMaker(Protocol):
    """From the page to what it speaks of."""

    def to(self, path: str) -> str:
        """To a path relative to the root; empty where nothing can be linked."""
        ...


class Links:
    """To files of the store, relative, so that both can be moved together."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._up = os.path.relpath(root, folder)

    def to(self, path: str) -> str:
        return quote(f"{self._up}/{path}")


class Bundled(NamedTuple):
    """A trial whose transcript is in the bundle."""

    row: TrialRow
    file: str
    """Relative to the report."""
    outcome: str

    @property
    def who(self) -> str:
        return transcripts.who(self.row)


class LinksInBundle:
    """To transcripts of the bundle, and nothing else: the store stays where it is."""

    def __init__(self, bundled: Sequence[Bundled]) -> None:
        self._files = {str(each.row.attempt): each.file for each in bundled}

    def to(self, path: str) -> str:
        return self._files.get(path.rstrip("/"), "")


def html(report: Report, links: LinkMaker, bundled: Sequence[Bundled] | None = None, which: Which = "failed") -> str:
    """Return the page.

    Args:
        bundled: the transcripts beside the page; None where the page stands alone.
        which: trials have one.
    """
    from markupsafe import Markup

    pictures = {name: Markup(svg) for name, svg in _pictures(report).items()}  # noqa: S704 - matplotlib has escaped every text in it
    by_cell: dict[tuple[str, str], str] = {}
    for each in bundled or ():
        by_cell.setdefault((each.row.task, each.who), each.file)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            story=story.sentences(report),
            took=story.took(report),
            pictures=pictures,
            leaderboard=text_tables.of_results(report.results),
            trusted=_trusted(report),
            costs=_costs(report),
            times=_times(report),
            failures=text_tables.of_errors(report.errors),
            link=links.to,
            attempt_link=lambda verdict, place: links.to(f"runs/{verdict.batch_id}/{verdict.job_id}/{place}/"),
            words=story.QUALITY_WORDS,
            phases=PHASES,
            bundled=bundled,
            by_cell=by_cell,
            which=which,
        )
    )


def transcript(found: TrialTranscript, title: str) -> str:
    """Return the page of one trial.

    Args:
        title: of the report that leads to it.
    """
    return (
        _environment()
        .get_template("transcript.html.j2")
        .render(found=found, facts=found.row.facts, title=title, most_pictures=transcripts.MOST_PICTURE_BYTES)
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "money": formatting.money,
        "number": formatting.number,
        "seconds": formatting.seconds,
        "size": formatting.size,
        "shade": shade,
        "cell": cell_text,
    }
    return environment


def shade(cell: ReportCell | None) -> str:
    """Return the class of a cell's shade: by fifths of the mean reward."""
    if cell is None or cell.mean_reward is None:
        return "none"
    return f"h{round(min(1.0, max(0.0, cell.mean_reward)) * STEPS_OF_SHADE)}"


def cell_text(cell: ReportCell | None) -> str:
    """Return ``2/3``, with the mean where rewards lie between, what is undecided and what is not scored: ``2/3 (0.81) ?1 +1``."""
    if cell is None:
        return ""
    text = f"{cell.passes}/{cell.decided}" if cell.decided else "–"
    if cell.mean_reward is not None and cell.mean_reward != cell.passes / (cell.decided or 1):
        text += f" ({formatting.reward(cell.mean_reward)})"
    if cell.scored > cell.decided:
        text += f" ?{cell.scored - cell.decided}"
    return text if cell.n == cell.scored else f"{text} +{cell.n - cell.scored}"


def _pictures(report: Report) -> dict[str, str]:
    rates = [_rate(group) for group in report.results.groups if group.pass_rate is not None]
    pictures = {}
    if rates:
        pictures["leaderboard"] = figures.leaderboard(rates)
    costly = [rate for rate in rates if rate.cost_usd is not None]
    if costly:
        pictures["cost"] = figures.cost_against_success(costly)
    if report.spans:
        pictures["timeline"] = figures.timeline(report.spans, [key.queue_key for key in report.keys])
    return pictures


def _rate(group: GroupLine) -> Rate:
    rate = group.pass_rate or 0.0
    low, high = group.pass_rate_low, group.pass_rate_high
    known = group.cost_usd is not None and group.n > group.skipped
    mean = (group.cost_usd or 0.0) / (group.n - group.skipped) if known else None
    return Rate(
        label(group), rate, rate if low is None else low, rate if high is None else high, is_baseline(group), mean
    )


def _trusted(report: Report) -> Sheet | None:
    if report.trusted is None:
        return None
    return text_tables.of_results(report.trusted)._replace(title="Without the tasks that are broken")


def _costs(report: Report) -> Sheet | None:
    """Return the numbers of the picture of cost against success."""
    groups = [g for g in report.results.groups if g.pass_rate is not None and g.cost_usd is not None]
    if not groups:
        return None
    rows = [
        (
            str(number),
            label(group),
            story.rate(group),
            formatting.money(_rate(group).cost_usd),
            formatting.money(group.cost_per_success_usd, at_least=group.cost_unknown > 0),
            formatting.money(group.cost_usd, at_least=group.cost_unknown > 0),
            str(group.cost_known),
        )
        for number, group in enumerate(groups, 1)
    ]
    heads = ("no.", "agent", "pass rate", "cost of a trial", "per pass", "in all", "attempts")
    return Sheet("Cost against success", heads, rows, texts=2)


def _times(report: Report) -> Sheet:
    """Return the numbers of the timeline."""
    rows: list[tuple[Any, ...]] = [
        (
            key.queue_key,
            str(key.attempts),
            *(formatting.seconds(total) for total in key.totals),
            formatting.seconds(key.queued_p50),
            formatting.seconds(key.queued_p90),
        )
        for key in report.keys
    ]
    heads = ("queue key", "attempts", *PHASES, "queued p50", "p90")
    return Sheet("Where time went", heads, rows, ("Sums over the attempts of a key.",))
