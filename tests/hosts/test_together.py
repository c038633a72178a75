"""Commands and sandbox trials over three hosts that see one store by different mounts, while everything befalls these: in one run."""

import json

import pytest

from parallelhassnes.version import __version__
from tests.hosts.lab import NEXT_VERSION, Lab
from tests.hosts.scenarios import LIMITS, MODEL, TOML, Round

pytestmark = [pytest.mark.timeout(240), pytest.mark.hosts, pytest.mark.libfaketime, pytest.mark.bubblewrap]
STEPS, TRIALS = 200, 12


def test_two_hundred_steps_and_trials_while_everything_befalls_their_hosts():
    """Locks do not cross, one host's caches are old, clocks are hours apart; a power cut, a partition, a drain, an upgrade of one host, then of all."""
    with Lab("own_locks", TOML) as lab:
        story = Round(lab, own={"h3": "stale_briefly"})
        decider, other, stale = story.hosts
        other.clock, stale.clock = "+2h", "-2h"
        story.begin(STEPS, 0.3, trials=TRIALS)
        story.wait(lambda: story.ran() >= 20, "some to end", 60)
        story.cut(other)
        story.wait(lambda: story.ran() >= 50, "others to go on", 60)
        story.boot(other)
        story.freeze(decider)
        story.wait(lambda: story.ran() >= 80, "others to go on without the one that decided", 60)
        story.thaw(decider)
        story.upgrade(stale)
        story.wait(lambda: story.ran() >= 120, "hosts of two versions to go on", 60)
        assert versions(story, stale) >= {__version__, NEXT_VERSION}
        story.drain(decider)
        story.wait(lambda: story.ran() >= 150, "others to go on", 60)
        story.upgrade(decider)
        story.upgrade(other)
        found = story.end(limits=LIMITS)
        assert found.peak[f"key {MODEL}"] > 1, "trials ran beside each other"
        assert set(found.by_host) == {"h1", "h2", "h3"}
        assert versions(story, stale) == {NEXT_VERSION}


def versions(story, host):
    """What the runners are of, by the word of the command that lists them."""
    said = host.ours("runners", "--quick", "--json", root=story.lab.root).stdout
    return {each["version"] for each in json.loads(said)["runners"]}
