"""Three hosts on one root, with a fault each: nothing twice at once, nothing lost, no limit exceeded, by the steps' own witness.

HOSTS=all has each on more file systems.
"""

import json
import os

import pytest

from tests.hosts.lab import Lab
from tests.hosts.scenarios import KEY, LIMIT, TOML, Round

pytestmark = [pytest.mark.timeout(200), pytest.mark.hosts, pytest.mark.libfaketime]
LIMITS = {KEY: LIMIT}
ALL = os.environ.get("HOSTS") == "all"


def on(*kinds):
    """File systems of a test: the first one, all of them where that is asked for."""
    return pytest.mark.parametrize("story", kinds if ALL else kinds[:1], indirect=True)


@pytest.fixture
def story(request):
    kind = getattr(request, "param", "same")
    with Lab(kind, TOML) as lab:
        yield Round(lab)


@on("same", "stale", "own_locks")
def test_three_hosts_share_the_work(story):
    story.begin(24, 0.3)
    found = story.end(limits=LIMITS)
    assert found.begun == 24
    assert set(found.by_host) == {"h1", "h2", "h3"}


@pytest.mark.parametrize("which", [1, 0] if ALL else [1])
@on("own_locks", "same")
def test_a_host_loses_power_and_comes_back_while_clocks_differ_by_hours(story, which):
    story.hosts[1].clock, story.hosts[2].clock = "+2h", "-2h"
    story.begin(24, 0.5)
    story.wait(lambda: story.ran() >= 5, "some to end", 60)
    story.cut(story.hosts[which])
    story.wait(lambda: story.ran() >= 10, "others to go on", 60)
    story.boot(story.hosts[which])
    story.end(limits=LIMITS)


@pytest.mark.parametrize("which", [0, 1] if ALL else [0])
@on("own_locks", "same", "stale")
def test_a_host_is_cut_off_replaced_and_comes_back(story, which):
    story.begin(24, 0.5)
    story.wait(lambda: story.ran() >= 5, "some to end", 60)
    story.freeze(story.hosts[which])
    story.wait(lambda: story.ran() >= 14, "others to go on", 60)
    story.thaw(story.hosts[which])
    story.end(limits=LIMITS)


def test_a_runner_that_is_told_to_end_ends_what_it_runs_and_no_attempt_is_used(story):
    story.begin(9, 10.0, retry={"max_attempts": 2})
    story.wait(lambda: len(story.lab.witness.runs()) == 9, "all to begin", 60)
    story.drain(story.hosts[1])
    found = story.end()
    assert found.statuses == {"succeeded": 9, "lost": found.begun - 9}
    assert found.begun > 9, "grace_sec is shorter than what it ran"
    for path in story.lab.disk.glob("runs/*/*/steps/*/attempts/*/state.json"):
        state = json.loads(path.read_text())
        assert state["status"] == "succeeded" or state["shut_down"], "what ends with its host uses no attempt"
