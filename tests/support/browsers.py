"""A real browser for tests, which tells what went wrong in its pages."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from probes import axe, chromium

_EXPECTED = re.compile(r"status of 4[02][1-4]|ERR_CONNECTION_\w+|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE")
"""What a browser logs of answers that a test asked for."""


PATIENCE_MS = 60_000
"""A busy machine is no failure."""

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def running(home: Path) -> Iterator[Browser]:
    """Chromium without a window, with a home folder of its own.

    Its sockets lie in its TMPDIR, and the path of a socket has hardly a hundred characters.
    """
    home.mkdir(exist_ok=True)
    with _short_folder() as short, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--headless", "--no-sandbox"],
            timeout=PATIENCE_MS,
            env={"HOME": str(home), "TMPDIR": short, "PATH": "/usr/bin:/bin"},
        )
        try:
            yield browser
        finally:
            browser.close()


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """One from which processes of a browser that just ended may still remove what is theirs."""
    return tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)


@contextmanager
def page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page at ``url`` in a context of its own; what its scripts fail at, and any dialog, fails the test."""
    context = browser.new_context(base_url=url, **options)
    shown, trouble = context.new_page(), []
    shown.set_default_timeout(PATIENCE_MS)
    shown.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    shown.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    shown.on("console", lambda said: _note(said, trouble))
    shown.on("request", lambda asked: asked.url.startswith((url, "data:")) or trouble.append(f"left: {asked.url}"))
    try:
        yield shown
        assert not trouble, trouble
    finally:
        context.close()


def _note(said: Any, trouble: list[str]) -> None:
    if said.type in ("error", "warning") and not _EXPECTED.search(said.text):
        trouble.append(f"{said.type}: {said.text}")


def accessibility_problems(shown: Page) -> list[str]:
    """What axe-core finds wrong with the page, a line each."""
    path = axe()
    assert path is not None
    shown.evaluate(path.read_text())
    found = shown.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for rule in found
        for node in rule["nodes"]
    ]
