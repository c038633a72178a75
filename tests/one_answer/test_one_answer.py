"""Every view gives one answer, and it is what the attempts' own files say: random stores, all views, an independent count."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from one_answer import stories, views
from one_answer.check import check

STORES = 150
_browser = views.Browser()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.mark.timeout(600)
@settings(max_examples=STORES, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories.stories)
def test_every_view_of_every_store_gives_one_answer(folder: Path, story: stories.Story) -> None:
    check(story, folder, _browser)
