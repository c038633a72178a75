"""A line of a log as HTML: colours as classes of ours, everything else harmless.

Colours are brought down to the sixteen of a terminal, which the style sheet has in a light and a dark form; links and
other control sequences are left out.
"""

from itertools import pairwise

from markupsafe import Markup, escape
from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text

from parallelhassnes.harmless import plain

LONGEST = 20_000
"""Characters of a line that are shown."""


def line_html(text: str) -> Markup:
    """Return one line, its last state where carriage returns have overwritten it."""
    left = len(text) - LONGEST
    text = text[:LONGEST].rstrip("\r").rpartition("\r")[2]
    html = _coloured(text) if "\x1b" in text else escape(plain(text))
    if left > 0:
        html += Markup('<span class="cut"> … {} more characters of this line</span>').format(left)
    return html


def _coloured(text: str) -> Markup:
    decoded = Text.from_ansi(text, end="")
    marks = sorted({0, len(decoded), *(edge for s in decoded.spans for edge in (s.start, s.end))})
    parts = []
    for start, end in pairwise(marks):
        styles = [s.style for s in decoded.spans if s.start <= start and s.end >= end]
        names = _classes(Style.combine([Style.null(), *(s for s in styles if isinstance(s, Style))]))
        piece = escape(plain(decoded.plain[start:end]))
        parts.append(Markup('<span class="{}">{}</span>').format(names, piece) if names else piece)
    return Markup("").join(parts)


def _classes(style: Style) -> str:
    names = [name for name in ("bold", "dim", "italic", "underline", "strike") if getattr(style, name)]
    for kind, color in (("fg", style.color), ("bg", style.bgcolor)):
        if color is not None and not color.is_default:
            names.append(f"{kind}{color.downgrade(ColorSystem.STANDARD).number}")
    if style.reverse:
        names.append("reverse")
    return " ".join(f"t-{name}" for name in names)
