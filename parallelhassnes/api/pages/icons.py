"""Small marks of every page: times and states."""

from markupsafe import Markup

from parallelhassnes import formatting

STATE_WORDS = {"needs_attention": "needs attention", "attention": "needs attention"}


def when(text: str | None) -> Markup:
    """Return a time: in UTC as it comes, in the reader's zone where scripts run, exact in its title."""
    return _time(text, "when")


def ago(text: str | None) -> Markup:
    """Return a time that scripts show as how long ago it was."""
    return _time(text, "ago")


def _time(text: str | None, kind: str) -> Markup:
    if not text:
        return Markup('<span class="none">–</span>')
    shown = f"{text[:10]} {text[11:16]} UTC"
    mark = Markup('<time datetime="{}" data-show="{}" title="{}">{}</time>')
    return mark.format(text, kind, text, shown)


def seconds(value: float | None) -> str:
    """Return a time span; short ones with a tenth."""
    return f"{value:.1f}s" if value is not None and value < 10 else formatting.duration(value)


def state_word(state: str) -> str:
    """Return a state as it is said."""
    return STATE_WORDS.get(state, state)
