"""Writing a report to where the user wants it."""

from pathlib import Path
from typing import Literal

from parallelhassnes.report import bundle as bundles
from parallelhassnes.report import figures, page, story
from parallelhassnes.report.gather import gather
from parallelhassnes.report.transcripts import Which
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.export import write_file
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.scoreboard_models import View


class Written(View):
    """What ``report --json`` prints."""

    schema_version: Literal[1] = 1
    ok: bool = True
    format: Literal["html", "markdown", "bundle"]
    path: str | None
    """The file or folder, absolute; null where the text is in ``text``."""
    text: str | None = None
    batches: list[str]
    transcripts: int = 0
    """Of a bundle, how many are in it."""


def html(layout: Layout, chosen: Choice, out: Path) -> Written:
    """Write the page.

    Raises:
        UserError: there is nothing to report, the file cannot be written, or matplotlib is not installed.
    """
    out = out.absolute()
    write_file(out, page_of(layout, chosen, out.parent).encode())
    return Written(format="html", path=str(out), batches=list(chosen.batch_ids))


def page_of(layout: Layout, chosen: Choice, folder: Path | None) -> str:
    """Return the page, as it is for a file in that folder; without one it links no file of the store.

    Raises:
        UserError: there is nothing to report, or matplotlib is not installed.
    """
    figures.require()
    links = page.LinksInBundle([]) if folder is None else page.Links(layout.root, folder)
    return page.html(gather(layout, chosen), links)


def bundle(layout: Layout, chosen: Choice, out: Path, which: Which) -> Written:
    """Write the page with the transcripts of chosen trials, see ``bundle``.

    Raises:
        UserError: as ``html``; or something else is in that place.
    """
    out = out.absolute()
    made = bundles.make(layout, chosen, which)
    bundles.write(made, out)
    return Written(format="bundle", path=str(out), batches=made.manifest.batches, transcripts=made.manifest.transcripts)


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
