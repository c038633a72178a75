"""The documents: generated pages are current, links and anchors lead somewhere, every page has its place, commands run."""

import ast
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import commands_of
from servers import kept_port
from stores import CHECKOUT, readers_place

from parallelhassnes.cli import reference
from parallelhassnes.cli.commands import SUMMARIES
from parallelhassnes.config import Config

DOCS = CHECKOUT / "docs"
OUTSIDE = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "schemas/fields.md")]
PAGES = [*sorted(DOCS.glob("*.md")), *OUTSIDE]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """What a page says outside of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?\1", "", text)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings: as GitHub makes them, and as MkDocs does."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set[str]()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[^\w\s-]", "", words).replace(" ", "-"))
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


def nav(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from [below] if isinstance(below, str) else nav(below)


@pytest.mark.parametrize("name", [reference.COMMANDS, reference.CONFIGURATION])
def test_the_reference_is_what_the_code_says(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "47")  # as a narrow terminal sets it
    made = reference.commands() if name == reference.COMMANDS else reference.configuration()
    assert (DOCS / name).read_text(encoding="utf-8") == made, "run `python -m parallelhassnes.cli.reference`"


def test_help_lists_what_the_commands_say_of_themselves():
    assert SUMMARIES.read_text(encoding="utf-8") == reference.summaries(), (
        "run `python -m parallelhassnes.cli.reference`"
    )


def test_the_reference_has_every_command_and_every_setting():
    page = reference.commands()
    assert {*reference.app_group().commands, "token create"} <= set(re.findall(r"\n### parallelhassnes (.*)\n", page))
    page = reference.configuration()
    sections = [name for name in Config.model_fields if f"| `{name}` |" not in page]
    assert all(re.search(rf"## `\[{name}[\].]", page) for name in sections), sections


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath(page.parent / path)) if path else page
        assert file.is_relative_to(CHECKOUT), target
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_has_one_place_in_the_site():
    places = Counter(nav(yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"]))
    assert [place for place, times in places.items() if times > 1] == []
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= set(places)
    assert all((DOCS / place).is_file() or (CHECKOUT / place).is_file() for place in places)


def test_every_picture_of_the_documents_is_shown():
    shown = {Path(target).name for page in PAGES for target in LINK.findall(prose(page))}
    assert {path.name for path in (DOCS / "img").glob("*.svg")} <= shown


@pytest.mark.namespaces
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["start.md", "unattended.md", "ci.md", "team.md"])
def test_the_commands_of_a_page_run_in_their_order(name, tmp_path):
    place, env = readers_place(tmp_path)
    lines = commands_of(f"docs/{name}")
    assert lines
    with kept_port() as port:
        script = "\n".join(["set -e", "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT", *lines]).replace("8765", port)
        done = subprocess.run(["bash", "-c", script], cwd=place, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if name == "start.md":
        assert "OPENAI_API_KEY is not passed on; add --secret OPENAI_API_KEY" in done.stderr
        assert '"status":"ok"' in done.stdout


def said_by_the_program() -> set[str]:
    """The fixed parts of every text in the code, of those long enough to tell something."""
    found = set[str]()
    for path in (CHECKOUT / "parallelhassnes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and 6 <= len(node.value) < 300:
                found.add(node.value)
    return found


def test_the_messages_of_troubleshooting_are_the_programs():
    texts = said_by_the_program()
    quoted = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) > 15
    for message in quoted:
        covered = set[int]()
        for text in texts:
            if (start := message.find(text)) >= 0:
                covered |= set(range(start, start + len(text)))
        values = r"/srv/\S+|\([^)]*\)|openai/\S+|terminus-2|OPENAI_API_KEY|alice|root\b|\S*\d\S*|\w+Error"
        example = {place for found in re.finditer(values, message) for place in range(*found.span())}
        open_ends = "".join(
            char if place not in covered | example else " " for place, char in enumerate(message)
        ).split()
        assert sum(map(len, open_ends)) < 0.3 * len(message), (message, open_ends)


def sentences(page: Path) -> Iterator[str]:
    """The sentences of a page's paragraphs and lists; tables, headings, quotes and code are none."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = (line for line in text.splitlines() if not line.startswith(("|", "#", "!", ">")))
    for block in re.split(r"\n\s*\n|\n(?=\s*[-\d]+[. ] ?)", re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))):
        found = re.split(r"(?<=[.?!])\s+(?=[A-Z`*\[])", " ".join(block.split()))
        yield from (each for each in found if len(each.split()) > 2)


def test_sentences_are_short():
    every = [each for page in [*DOCS.glob("*.md"), *OUTSIDE[:2]] for each in sentences(page)]
    long = [each for each in every if len(each.split()) > 35]
    assert len(every) > 1000
    assert len(long) <= 0.02 * len(every), "\n".join(long)


def test_the_site_is_built_and_takes_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.glob("*.md")))
    taken = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?:[^\"]+)\"")
    assert {address for page in pages for address in taken.findall(page.read_text())} == set()
