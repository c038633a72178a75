"""Writing a report to where the user wants it."""

from pathlib import Path
from typing import Literal

from parallelhassnes.report import figures, page, story
from parallelhassnes.report.gather import gather
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.export import write_file
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.scoreboard_models import View


class Written(View):
    """What ``report --json`` prints."""

    schema_version: Literal[1] = 1
    ok: bool = True
    format: Literal["html", "markdown"]
    path: str | None
    """The file, absolute; null where the text is in ``text``."""
    text: str | None = None
    batches: list[str]


def html(layout: Layout, chosen: Choice, out: Path) -> Written:
    """Write the page.

    Raises:
        UserError: there is nothing to report, the file cannot be written, or matplotlib is not installed.
    """
    figures.require()
    out = out.absolute()
    write_file(out, page.html(gather(layout, chosen), layout, out.parent).encode())
    return Written(format="html", path=str(out), batches=list(chosen.batch_ids))


def markdown(layout: Layout, chosen: Choice, out: Path | None) -> Written:
    """Write the Markdown, or hand it back where no file is named.

    Raises:
        UserError: as ``html``.
    """
    text = story.markdown(gather(layout, chosen))
    if out is None:
        return Written(format="markdown", path=None, text=text, batches=list(chosen.batch_ids))
    write_file(out.absolute(), text.encode())
    return Written(format="markdown", path=str(out.absolute()), batches=list(chosen.batch_ids))
