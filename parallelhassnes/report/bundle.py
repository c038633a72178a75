"""``report --bundle``: the report with the transcripts of chosen trials, as a folder or a zip that needs nothing else.

``index.html`` is the report, ``trials/N.html`` are transcripts, ``bundle.json`` says what is in it and marks the folder as one that the
next bundle may replace. All links are relative, so a disk shows it as well as any web server. A folder appears whole: it is
written beside its place and renamed.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from parallelhassnes.errors import UserError
from parallelhassnes.report import figures, page, transcripts
from parallelhassnes.report.gather import gather
from parallelhassnes.report.page import Bundled
from parallelhassnes.report.transcripts import Which
from parallelhassnes.results.collect import Choice
from parallelhassnes.store import atomic
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.scoreboard_models import View

MARK = "bundle.json"


class BundleManifest(View):
    """``bundle.json``."""

    schema_version: Literal[1] = 1
    at: str
    """When it was made."""
    batches: list[str]
    trials: Which
    """Which trials were chosen."""
    transcripts: int


class Bundle(NamedTuple):
    """A bundle that is being made."""

    manifest: BundleManifest
    pages: Iterator[tuple[str, str]]
    """Path → text, in the order in which they are made."""


def make(layout: Layout, chosen: Choice, which: Which) -> Bundle:
    """Gather the report; the transcripts are read one by one, as they are asked for.

    Raises:
        UserError: there is nothing to report, or matplotlib is not installed.
    """
    figures.require()
    report = gather(layout, chosen)
    rows = transcripts.chosen(layout, report.rows, which)
    bundled = [
        Bundled(row, transcripts.file_of(number), transcripts.outcome(row)) for number, row in enumerate(rows, 1)
    ]
    manifest = BundleManifest(
        at=report.at, batches=list(report.chosen.batch_ids), trials=which, transcripts=len(bundled)
    )

    def pages() -> Iterator[tuple[str, str]]:
        yield "index.html", page.html(report, page.LinksInBundle(bundled), bundled, which)
        room = transcripts.PictureRoom()
        for number, row in enumerate(rows, 1):
            yield (
                transcripts.file_of(number),
                page.transcript(transcripts.read(layout, number, row, room), report.title),
            )
        yield MARK, manifest.model_dump_json(indent=2) + "\n"

    return Bundle(manifest, pages())


def write_zip(bundle: Bundle, stream: BinaryIO) -> None:
    """Write it as a zip."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in bundle.pages:
            made.writestr(name, text.encode("utf-8", "replace"))


def write(bundle: Bundle, out: Path) -> None:
    """Write it to a zip, where the path ends so, or to a folder.

    Raises:
        UserError: something else is in that place, or it cannot be written.
    """
    try:
        if out.suffix == ".zip":
            with tempfile.SpooledTemporaryFile(max_size=64 << 20) as stream:
                write_zip(bundle, stream)  # type: ignore[arg-type]
                stream.seek(0)
                atomic.write_bytes(out, stream.read(), durable=False)
        else:
            _write_folder(bundle, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})", fix="name another place") from None


def _write_folder(bundle: Bundle, out: Path) -> None:
    if out.exists() and not _may_be_replaced(out):
        raise UserError(
            f"{out}: is there already and is no bundle", fix="name a new folder, or a file that ends in .zip"
        )
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        made.chmod(0o755)
        (made / "trials").mkdir()
        for name, text in bundle.pages:
            (made / name).write_text(text, "utf-8", "replace")
        if out.exists():
            out.rename(made / ".before")
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(out / ".before", ignore_errors=True)


def _may_be_replaced(folder: Path) -> bool:
    """Tell whether it is an empty folder, or one that was made here."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    found = atomic.read_json_or_none(folder / MARK)
    return isinstance(found, dict) and "transcripts" in found and (folder / "index.html").is_file()
