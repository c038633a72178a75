"""What MkDocs does besides for ``make docs``: it takes what the documents link to in the checkout into the site.

A file outside of ``docs/`` gets the path in the site that it has in the checkout, and links are written to fit.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the checkout that the pages link to, and those that such pages link to."""
    pages = [CHECKOUT / "CHANGELOG.md", CHECKOUT / "CONTRIBUTING.md"]
    for page in pages:
        _add(files, config, page)
    pages += sorted((CHECKOUT / "docs").glob("*.md"))
    for page in pages:  # which grows
        for _, target, _, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = Path(os.path.normpath(page.parent / target))
            if path.is_file() and files.get_file_from_path(_place(path)) is None:
                _add(files, config, path)
                if path.suffix == ".md":
                    pages.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Write each link from where the page stands in the site."""
    place = page.file.src_uri
    inside = CHECKOUT / "docs" / place
    source = inside if inside.is_file() else CHECKOUT / place

    def moved(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / link[2]))
        if not path.exists():
            return link[0]
        return f"{link[1]}{os.path.relpath(_place(path), Path(place).parent)}{link[3] or ''}{link[4]}"

    return LINK.sub(moved, markdown)


def _place(path: Path) -> str:
    """Where a file of the checkout stands in the site."""
    docs = CHECKOUT / "docs"
    return path.relative_to(docs if path.is_relative_to(docs) else CHECKOUT).as_posix()


def _add(files: Files, config: MkDocsConfig, path: Path) -> None:
    files.append(File.generated(config, _place(path), abs_src_path=str(path)))
