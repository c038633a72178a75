"""Small figures as SVG, each with its numbers in words; positions are attributes, so no inline style is needed."""

from collections.abc import Sequence

from markupsafe import Markup

from parallelhassnes import formatting
from parallelhassnes.store.records import parse_time
from parallelhassnes.views.pace import CostPoint
from parallelhassnes.views.scoreboard_models import Counts, TrialCounts

_UNPASSED = "unpassed"
_WORDS = {_UNPASSED: "scored without passing", "needs_attention": "needs attention"}
ORDER = ("succeeded", _UNPASSED, "failed", "lost", "needs_attention", "canceled", "running", "ready", "blocked")
_WIDTH, _HEIGHT = 640.0, 120.0


def bar(counts: Counts, total: int, trials: TrialCounts | None) -> Markup:
    """Tell how the steps of a batch stand, as one bar; a trial that is scored and did not pass is not shown as one that went well."""
    found = {name: getattr(counts, name) for name in ORDER if name != _UNPASSED}
    found[_UNPASSED] = min(trials.scored if trials else 0, found["succeeded"])
    found["succeeded"] -= found[_UNPASSED]
    said = ", ".join(f"{found[name]} {_WORDS.get(name, name)}" for name in ORDER if found[name])
    parts, at = [], 0.0
    for name in ORDER:
        width = 100.0 * found[name] / total if total else 0.0
        if width:
            piece = Markup('<rect class="s-{}" x="{}%" width="{}%" height="100%"/>')
            parts.append(piece.format(name, f"{at:.3f}", f"{width:.3f}"))
            at += width
    return _figure("bar", said or "no steps", Markup("").join(parts))


def meter(used: float, limit: float | None) -> Markup:
    """Tell how much of a limit is in use."""
    if limit is None:
        return Markup("")
    share = min(100.0, 100.0 * used / limit) if limit else 100.0
    full = " full" if used >= limit else ""
    inside = Markup('<rect class="used{}" width="{}%" height="100%"/>').format(full, f"{share:.2f}")
    return _figure("meter", f"{share:.0f} % of the limit in use", inside)


def interval(value: float, low: float, high: float) -> Markup:
    """Return a share between 0 and 1 with its interval."""
    piece = Markup(
        '<line class="axis" x1="0%" x2="100%" y1="50%" y2="50%"/>'
        '<line class="range" x1="{}%" x2="{}%" y1="50%" y2="50%"/>'
        '<circle class="value" cx="{}%" cy="50%" r="4"/>'
    )
    inside = piece.format(*(f"{2 + 96 * x:.2f}" for x in (low, high, value)))
    return _figure("interval", f"{value:.0%}, between {low:.0%} and {high:.0%}", inside)


def cost(points: Sequence[CostPoint]) -> Markup:
    """Cost so far over time."""
    if len(points) < 2 or points[-1].usd <= 0:
        return Markup("")
    start, end = parse_time(points[0].at), parse_time(points[-1].at)
    span, top = max(end - start, 1e-9), points[-1].usd
    path: list[str] = []
    before = _HEIGHT
    for point in points:
        x = (parse_time(point.at) - start) / span * _WIDTH
        y = _HEIGHT - point.usd / top * (_HEIGHT - 8)
        path.append(f"{'L' if path else 'M'}{x:.1f} {before:.1f} L{x:.1f} {y:.1f}")
        before = y
    said = f"cost so far, up to {formatting.money(top)} after {formatting.duration(end - start)}"
    inside = Markup('<path class="curve" d="{}"/>').format(" ".join(path))
    figure = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return figure.format(f"{_WIDTH:.0f}", f"{_HEIGHT:.0f}", said, inside)


def _figure(kind: str, said: str, inside: Markup) -> Markup:
    return Markup('<svg class="{}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
        kind, said, said, inside
    )
