"""``python -m tests.one_answer --stores 2000 --seed 1``: the long run. Goes on after a failure and says them all at the end."""

import argparse
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from one_answer import stories, views
from one_answer.check import check


def main() -> int:
    """Make and look at so many stores; 1 where a view contradicted another, or the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stores", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    browser, faults, examples = views.Browser(), Counter[str](), {}
    done, began = 0, time.monotonic()

    @seed(asked.seed)
    @settings(
        max_examples=asked.stores,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(story=stories.stories)
    def tell(story: stories.Story) -> None:
        nonlocal done
        done += 1
        try:
            check(story, folder, browser, report=True)
        except Exception as error:  # noqa: BLE001 - all are wanted
            place = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} {Path(place.filename).name}:{place.lineno} {str(error).partition(chr(10))[0][:160]}"
            faults[name] += 1
            examples.setdefault(name, story)
        if done % 100 == 0:
            print(f"{done} stores, {sum(faults.values())} with a fault", flush=True)

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            tell()
        finally:
            browser.close()
    print(f"{done} stores, seed {asked.seed}, {time.monotonic() - began:.0f} s: {sum(faults.values())} with a fault")
    for name, count in faults.most_common():
        print(f"{count:>6}  {name}\n        {examples[name]}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
