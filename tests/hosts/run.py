"""Random faults on several hosts under load: ``python -m tests.hosts.run --seconds 1800 [--seed N]``.

Rounds of half a minute: a store on one of the file systems, three hosts with a runner each and clocks of their own, commands and sandbox trials under limits; hosts lose
power, are cut off, upgraded, their loops are killed or told to end, at random moments, and come back. Each round is judged by the steps' own witness. Prints one JSON
object with the counts; exits 1 where something was not as it must be.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter

import probes

from tests.hosts.file_systems import BY_NAME
from tests.hosts.lab import Lab
from tests.hosts.scenarios import LIMITS, SKEWS, TOML, Round

DISTURBED_SEC = 12.0
STEPS, STEP_SEC, TRIALS = 60, 0.5, 6


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--file-system", choices=[*BY_NAME], default=None)
    given = parser.parse_args(arguments)
    for probe in (probes.hosts, probes.libfaketime, probes.bubblewrap):
        if missing := probe():
            raise SystemExit(f"hosts: {missing.reason}; {missing.remedy}")
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    counts: Counter[str] = Counter()
    bad: dict[str, str] = {}
    end = time.monotonic() + given.seconds
    while not counts["rounds"] or (time.monotonic() < end and not bad):
        counts["rounds"] += 1
        own = f"{seed}-{counts['rounds']}"
        chance = random.Random(own)
        kind = given.file_system or chance.choice([*BY_NAME])
        counts[f"on {kind}"] += 1
        try:
            one_round(kind, chance, counts)
        except AssertionError as error:
            bad[own] = str(error)
        print(f"{own} on {kind}: {'bad' if bad else 'good'}; {dict(counts)}", file=sys.stderr, flush=True)
    print(json.dumps({"seed": seed, "counts": counts, "broken": bad}))
    return 1 if bad else 0


def one_round(kind: str, chance: random.Random, counts: Counter[str]) -> None:
    """One store, from its beginning to its judgement.

    Raises:
        AssertionError: what is not as it must be, and what befell the hosts.
    """
    with Lab(kind, TOML) as lab:
        story = Round(lab, chance=chance)
        for host in story.hosts[1:]:
            host.clock = chance.choice(("+0s", *SKEWS))
        story.begin(STEPS, STEP_SEC, trials=TRIALS)
        story.disturb(DISTURBED_SEC)
        found = story.end(240, limits=LIMITS)
        counts.update(each.split()[0] for each in story.told)
        counts.update({"steps": found.steps, "runs": found.begun})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
