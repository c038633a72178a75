"""Every view gives one answer, and it is what the attempts' own files say: random stores, all views, an independent count."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import scored
from hypothesis import HealthCheck, given, settings
from one_answer import stories, views
from one_answer.check import check, look
from stores import program

STORES = 90
EVERY_REPORT = 15
"""Stores of which one has its report looked at, too; ``python -m tests.one_answer`` looks at each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def browser() -> Iterator[views.Browser]:
    made = views.Browser()
    yield made
    made.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", [1, 2])
def test_every_view_of_every_store_gives_one_answer(folder: Path, browser: views.Browser, half: int) -> None:
    numbers = itertools.count(half)

    @settings(max_examples=STORES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(story=stories.stories)
    def tell(story: stories.Story) -> None:
        check(story, folder, browser, report=next(numbers) % EVERY_REPORT == 0)

    tell()


TOLD_WRONGLY_ONCE = {
    "a task that a client has sent again, and that was run again here": stories.Story(
        first=stories.Table(
            tasks=1,
            agents=("model",),
            max_attempts=1,
            enough=False,
            gate=False,
            client="oddish.alpha-00000000000000000000",
        ),
        ends=("crash",),
        events=(stories.Event("again", 0), stories.Event("run", 7), stories.Event("rerun failed", 0)),
        finish=True,
    ),
    "a verdict that is to be made again, after trials were added": stories.Story(
        first=stories.Table(
            tasks=1,
            agents=("ours", "valid"),
            max_attempts=3,
            enough=False,
            gate=False,
            client="oddish.alpha-00000000000000000000",
        ),
        ends=("several", "several", "half", "rate limit"),
        events=(
            stories.Event("run", 6),
            stories.Event("append", 4),
            stories.Event("run", 2),
            stories.Event("again", 5),
        ),
        finish=False,
    ),
}


@pytest.mark.parametrize("name", TOLD_WRONGLY_ONCE)
def test_what_was_told_wrongly_once(folder: Path, browser: views.Browser, name: str) -> None:
    check(TOLD_WRONGLY_ONCE[name], folder, browser, report=True)


def test_a_store_of_real_trials_gives_one_answer_also_to_other_processes(root: Path, browser: views.Browser) -> None:
    made = scored.make(root)
    for batch in (made.first, made.second):
        look(made.ctx, browser, batch, report=True)
    for command, path in (
        (("results", made.first), f"/v1/results?batch={made.first}"),
        (("results", "--trials"), "/v1/trials"),
        (("compare", made.first, made.second), f"/v1/compare?a={made.first}&b={made.second}"),
        (("errors",), "/v1/errors"),
        (("scoreboard", made.second), f"/v1/batches/{made.second}/scoreboard"),
    ):
        told = json.loads(program(root, *command, "--json").stdout)
        answered = browser.look_at(made.ctx).get(path).json()
        assert told | {"at": ""} == answered | {"at": ""}, command
