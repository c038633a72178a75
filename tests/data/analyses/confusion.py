"""The rules against trials labelled by hand; ``PYTHONPATH=.:tests:tests/support python tests/data/analyses/confusion.py`` writes docs/analyses.md.

``labels.json`` names each trial, what it is and why; ``make.py`` made the trials.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parallelhassnes.plan import JobSpec
from parallelhassnes.steps.analysis import rules, taxonomy_tables
from parallelhassnes.steps.analysis.case import Case, case_of
from parallelhassnes.steps.analysis.record import Answer
from parallelhassnes.steps.analysis.taxonomy import OUTCOMES

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]


class Labelled(NamedTuple):
    """A trial with what it is, and what the rules say."""

    trial: str
    outcome: str
    subtype: str
    why: str
    case: Case
    said: Answer


@cache
def job(name: str) -> JobSpec:
    text = (HERE / name / "job.json").read_text()
    return JobSpec.model_validate_json(text.replace("@CHECKOUT@", str(CHECKOUT)))


def labelled() -> Iterator[Labelled]:
    """Every labelled trial."""
    for label in json.loads((HERE / "labels.json").read_text()):
        name, step_id = label["trial"].split("/")
        case = case_of(HERE / name, job(name), job(name).step(step_id))
        assert case is not None, label["trial"]
        assert case.reward == label["reward"], label["trial"]
        said = rules.decide(case)
        yield Labelled(label["trial"], label["outcome"], label["subtype"], label["why"], case, said)


def table(found: list[Labelled]) -> str:
    """The confusion table, and what it comes to."""
    counts = Counter((one.outcome, one.said.outcome) for one in found)
    names = [name for name in OUTCOMES if name != "unknown"]
    rows = ["| labelled | n | " + " | ".join(f"`{name}`" for name in OUTCOMES) + " |"]
    rows.append("|---" * (len(OUTCOMES) + 2) + "|")
    for name in names:
        own = [counts[name, said] for said in OUTCOMES]
        cells = " | ".join(str(count) if count else "" for count in own)
        rows.append(f"| `{name}` | {sum(own)} | {cells} |")
    decided = [one for one in found if one.said.outcome != "unknown"]
    right = sum(one.outcome == one.said.outcome for one in decided)
    exact = sum((one.outcome, one.subtype) == (one.said.outcome, one.said.subtype) for one in decided)
    unknown = len(found) - len(decided)
    told = f"{len(found)} trials. The rules decide {len(decided)} of them and get the outcome of {right} right"
    told += f" ({right / len(decided):.0%}), outcome and subtype of {exact} ({exact / len(decided):.0%})."
    rows += ["", f"{told} Of {unknown} ({unknown / len(found):.0%}) they say `unknown`."]
    wrong = [one for one in decided if (one.outcome, one.subtype) != (one.said.outcome, one.said.subtype)]
    if wrong:
        rows += ["", "Where they differ from the label:", ""]
        rows += [
            f"- `{one.trial}` is `{one.outcome}/{one.subtype}` ({one.why}); the rules say"
            f" `{one.said.outcome}/{one.said.subtype}`"
            for one in wrong
        ]
    return "\n".join(rows)


def filled(text: str) -> str:
    """The page with the table as it is now."""
    return taxonomy_tables.put(text, "confusion", table(list(labelled())))


if __name__ == "__main__":
    place = CHECKOUT / taxonomy_tables.PAGE
    place.write_text(filled(place.read_text()))
    print(table(list(labelled())))
