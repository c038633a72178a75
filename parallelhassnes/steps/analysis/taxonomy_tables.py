"""The tables of ``docs/analyses.md``: ``python -m parallelhassnes.steps.analysis.taxonomy_tables`` writes them into the page."""

import sys
from pathlib import Path

from parallelhassnes.steps.analysis.rules import RULES
from parallelhassnes.steps.analysis.taxonomy import OUTCOMES, SUBTYPES

PAGE = Path("docs") / "analyses.md"
END = "<!-- end -->"


def taxonomy() -> str:
    """Return the outcomes, and their subtypes."""
    rows = ["| outcome | means | subtypes |", "|---|---|---|"]
    for outcome, meaning in OUTCOMES.items():
        named = "<br>".join(f"`{name}`: {said}" for name, said in SUBTYPES[outcome].items())
        rows.append(f"| `{outcome}` | {meaning} | {named} |")
    return "\n".join(rows)


def rules() -> str:
    """Return the rules in their order."""
    rows = ["| # | rule | decides when |", "|---|---|---|"]
    rows += [f"| {n} | `{rule.name}` | {rule.proves} |" for n, rule in enumerate(RULES, 1)]
    return "\n".join(rows)


def put(text: str, name: str, table: str) -> str:
    """Return the page with a table in its place."""
    begin = f"<!-- {name} -->\n"
    head, _, rest = text.partition(begin)
    return f"{head}{begin}{table}\n{END}{rest.partition(END)[2]}"


def filled(text: str) -> str:
    """Return the page with its tables as they are now."""
    for name, table in (("taxonomy", taxonomy()), ("rules", rules())):
        text = put(text, name, table)
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
