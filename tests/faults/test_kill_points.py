"""Every act of submit, cancel, retry, tick, supervisor and worker, with a kill -9 just before it.

The acts are those that the scenario really makes (see ``enumerate``); a failure names the point, and
``python -m tests.faults.enumerate SCENARIO --only "POINT"`` does it again. Here each act is died at once,
or as far as the time goes; ``make faults`` takes all occurrences.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from stores import CHECKOUT, SUPPORT, environment

from tests.faults import disturb

# Enough points that a scenario which stopped passing them, or a hook which stopped seeing them, is noticed.
LEAST = {
    "steps": 120,
    "operate": 170,
    "trial": 150,
    "journal": 130,
    "import": 100,
    "pack": 40,
    "gc": 70,
    "archive": 40,
    "local": 70,
    "reuse": 250,
    "regrade": 250,
}
SHARDS = 2
SECONDS = os.environ.get("PARALLELHASSNES_FAULTS_SEC", "8")
RUNS = "8"
"""So many at least, however slow the machine is: of fewer, too few might reach their point."""


def enumerated(*arguments):
    limits = ["--once", "--seconds", SECONDS, "--least", RUNS]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.enumerate", *arguments, *limits],
        capture_output=True,
        text=True,
        env=environment(SUPPORT),
        cwd=CHECKOUT,
    )
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


def none_broken(found: dict[str, Any], errors: str, scenario: str) -> None:
    """Hold what was killed against the promises: none is broken, and enough was reached to say so."""
    print("\n".join(found["points"]))
    assert not found["broken"], f"{json.dumps(found['broken'], indent=1)}\n{errors[-3000:]}"
    assert len(found["known"]) >= LEAST[scenario]
    assert found["reached"] >= found["runs"] * 0.5
    assert found["reached"] >= 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("scenario", ["steps", "operate", "journal"])
def test_killed_anywhere_nothing_is_lost_doubled_or_left(scenario, shard):
    found, errors = enumerated(scenario, f"{shard}/{SHARDS}")
    none_broken(found, errors, scenario)


@pytest.mark.timeout(300)
def test_killed_anywhere_what_a_rule_removes_has_its_tombstone_and_is_gone_in_the_end():
    found, errors = enumerated("gc", "0/1", "--only", "gc")
    none_broken(found, errors, "gc")


@pytest.mark.timeout(300)
def test_killed_anywhere_a_packed_batch_has_every_file_at_its_path_or_in_the_archive():
    found, errors = enumerated("pack", "0/1", "--only", "pack")
    none_broken(found, errors, "pack")


@pytest.mark.timeout(300)
def test_killed_anywhere_a_push_or_pull_leaves_the_batch_whole_or_not_there():
    found, errors = enumerated("archive", "0/1", "--only", "archive-")
    none_broken(found, errors, "archive")


@pytest.mark.timeout(300)
def test_killed_anywhere_files_that_go_for_an_archive_have_their_tombstone_and_come_back_whole():
    found, errors = enumerated("local", "0/1", "--only", "local-")
    none_broken(found, errors, "local")


@pytest.mark.timeout(300)
@pytest.mark.namespaces
def test_killed_anywhere_a_sandbox_trial_ends_as_it_should():
    found, errors = enumerated("trial", "0/1")
    print("\n".join(found["points"]))
    assert not found["broken"], f"{json.dumps(found['broken'], indent=1)}\n{errors[-3000:]}"
    assert len(found["known"]) >= LEAST["trial"]
    assert found["reached"] >= 3


@pytest.mark.timeout(300)
@pytest.mark.harbor
def test_killed_anywhere_an_import_is_completed_by_the_next():
    found, errors = enumerated("import", "0/1")
    print("\n".join(found["points"]))
    assert not found["broken"], f"{json.dumps(found['broken'], indent=1)}\n{errors[-3000:]}"
    assert len(found["known"]) >= LEAST["import"]
    assert found["reached"] >= 3


@pytest.mark.timeout(300)
@pytest.mark.harbor
@pytest.mark.parametrize("scenario", [pytest.param("reuse", marks=pytest.mark.namespaces), "regrade"])
def test_killed_anywhere_what_is_made_of_stored_trials_is_made_once(scenario):
    """No agent is paid again, no test judges twice, and both rewards are kept."""
    found, errors = enumerated(scenario, "0/1", "--only", f"{scenario}:")
    none_broken(found, errors, scenario)


@pytest.mark.timeout(400)
@pytest.mark.libfaketime
def test_random_kills_under_load():
    seconds = os.environ.get("SOAK_SEC", "60")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", "--seconds", seconds, "--disturb"],
        capture_output=True,
        text=True,
        env=environment(SUPPORT),
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])  # passes say before it that they succeed again
    assert found["total"] >= 50
    assert len(found["disturbed"]) >= len(disturb.KINDS) / 2
