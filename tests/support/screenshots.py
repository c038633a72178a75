"""Pictures of the pages for the documentation: ``python -m tests.support.screenshots [FOLDER]``, as ``make pictures`` runs it.

A store in which real things have happened and are happening is made in a temporary folder, served, looked at by Chromium
in light, dark and on a phone, and taken away again.
"""

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from browsers import page, running
from PIL import Image
from playwright.sync_api import Browser
from servers import serving
from stores import CHECKOUT, SUPPORT, context, job, program, put, shell, table, wait_for

from parallelhassnes.actions import pause_resume
from parallelhassnes.store.queue import tickets

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}
MOST_BYTES = 150_000
TALKS = r"""
for i in $(seq 1 400); do
  printf '\033[2m%s\033[0m \033[32mINFO\033[0m  step %s: read 12 files, \033[36m%s tests\033[0m passed\n' "$(date +%T)" "$i" "$((i * 3 % 41))"
  [ $((i % 9)) = 0 ] && printf '\033[33mWARN\033[0m  slow query: 1.%ss\n' "$i"
  sleep 0.3
done
"""
BREAKS = r"""
printf '\033[1m== tests/test_export.py\033[0m\n'
for i in $(seq 1 14); do printf '\033[32m.\033[0m export case %s\n' "$i"; done
printf '\033[31;1mFAILED\033[0m test_export.py::test_dates - AssertionError: 2024-02-30 is no date\n'
echo 'AssertionError: 2024-02-30 is no date' >&2
exit 1
"""


def make_store(root: Path) -> tuple[Any, str, str]:
    """A store with an evaluation that has ended and a batch that goes on; their ids."""
    ctx = context(
        root,
        'concurrency = 6\nenvironment = "sandbox"\n[limits]\n"openai/gpt-5.2" = 2\n'
        '[budgets.keys."openai/gpt-5.2"]\nusd = 40\n[budgets.experiments.migration]\ntokens = 2_000_000\n',
    )
    (root / "examples").symlink_to(CHECKOUT / "examples")
    sweep = table(
        experiment="nightly",
        batch_goal_summary="Does the new prompt still solve what the old one did?",
        labels={"team": "search"},
        analysis="rules",
        sweep={
            "path": "examples/tasks",
            "exclude_task_names": ["slow"],
            "environment": "sandbox",
            "agents": [
                {"name": "oracle", "n_trials": 2},
                {
                    "import_path": "costly_agent:CostlyAgent",
                    "model_name": "openai/gpt-5.2",
                    "n_trials": 2,
                    "kwargs": {"cost_usd": 0.42, "tokens": 18_400, "solves": False},
                },
                {"name": "nop"},
            ],
        },
    )
    ended = put(ctx, sweep)
    path = SUPPORT
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never", env=path)
    model = {"queue_key": "openai/gpt-5.2"}
    going_on = put(
        ctx,
        table(
            *(
                job(
                    f"service-{name}", shell("migrate", TALKS, **model), shell("review", "true", depends_on=["migrate"])
                )
                for name in ("auth", "billing", "export", "search")
            ),
            job(
                "service-reports",
                shell("migrate", BREAKS, retry={"max_attempts": 1}),
                shell("review", "true", depends_on=["migrate"]),
            ),
            job("service-mail", shell("migrate", "exit 3", retry={"max_attempts": 1})),
            job("docs", shell("write", "true", queue_key="anthropic/claude-sonnet")),
            job("release", shell("notes", "true"), shell("publish", "true", depends_on=["notes"], gate="human")),
            experiment="migration",
            budget={"usd": 25.0},
            priority=10,
        ),
    )
    pause_resume.pause(ctx, "anthropic/claude-sonnet", "quota is raised on Monday")
    (ctx.layout.incoming / "old-table.json").write_text('{"jobs": [{"stepz": []}]}')
    return ctx, ended, going_on


def take(browser: Browser, url: str, addresses: dict[str, str], folder: Path) -> None:
    """Every page in every look."""
    for look, options in LOOKS.items():
        for name, address in addresses.items():
            with page(browser, url, **options) as shown:
                shown.goto(address)
                if name == "submit":
                    shown.get_by_label("Task folders").fill("examples/tasks")
                    shown.get_by_label("Agent 1").fill("oracle")
                    shown.get_by_label("Agent 2").fill("costly_agent:CostlyAgent")
                    shown.get_by_label("Model 2").fill("openai/gpt-5.2")
                    shown.get_by_role("button", name="Show the table and what it would run").click()
                if name == "operate" and look != "phone":
                    shown.locator("#k-openai\\/gpt-5\\.2 summary").filter(has_text="Limit").click()
                shown.wait_for_timeout(700)
                keep(shown.screenshot(), folder / f"page-{name}-{look}.webp")


def keep(png: bytes, path: Path) -> None:
    """As WebP, small enough for a repository."""
    Image.open(io.BytesIO(png)).save(path, "WEBP", quality=82, method=6)
    assert path.stat().st_size <= MOST_BYTES, path


def main(folder: Path) -> None:
    """Make the pictures in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "lab"
        root.mkdir()
        ctx, ended, going_on = make_store(root)
        with serving(root) as server, running(Path(made) / "home") as browser:
            wait_for(lambda: len(tickets.running(ctx.layout)) >= 2, "two attempts to run")
            time.sleep(4)  # for logs that fill a window
            at = server.client.get(f"/attempts/{going_on}/service-auth/migrate", follow_redirects=True).url.path
            failed = server.client.get(f"/attempts/{going_on}/service-reports/migrate", follow_redirects=True).url.path
            compared = {"a": f"{ended}@oracle", "b": f"{ended}@nop"}
            addresses = {
                "overview": "/",
                "batch": f"/batches/{going_on}",
                "results": f"/batches/{ended}",
                "compare": f"/compare?{urlencode(compared)}",
                "attempt": at,
                "failure": f"{failed}?file=stdout.log",
                "submit": "/submit",
                "operate": "/operate",
            }
            take(browser, server.url, addresses, folder)
        program(root, "cancel", going_on)
        program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "docs" / "img")
