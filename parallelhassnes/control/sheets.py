"""Results as tables of text: what the terminal, Markdown and the report print alike."""

from collections.abc import Sequence
from typing import NamedTuple

from parallelhassnes.control import words
from parallelhassnes.control.compare import Comparison, Difference, PairedAgent
from parallelhassnes.control.errors_report import Errors
from parallelhassnes.control.flat import markdown_table, markdown_text
from parallelhassnes.control.results import GroupLine, Results
from parallelhassnes.control.trial_lines import TrialLines

MOST_NAMES = 8


class Sheet(NamedTuple):
    """One table."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    texts: int = 1
    """Columns from the left that hold text; those after them hold numbers."""


def markdown(sheet: Sheet) -> str:
    """The table in GitHub's Markdown."""
    table = markdown_table(sheet.heads, sheet.rows) if sheet.rows else "Nothing.\n"
    notes = "".join(f"\n{markdown_text(note)}\n" for note in sheet.notes)
    return f"**{markdown_text(sheet.title)}**\n\n{table}{notes}"


# --- results ------------------------------------------------------------------------------------------


def of_results(results: Results) -> Sheet:
    """A row per group."""
    money = any(group.cost_usd is not None for group in results.groups)
    tokens = any(group.input_tokens is not None for group in results.groups)
    repeats = any(group.k > 1 for group in results.groups)
    partial = any(group.mean_reward != group.pass_rate for group in results.groups)
    known = {group.k for group in results.groups if group.k}
    k = known.pop() if len(known) == 1 else "k"
    columns = [name for name, wanted in (("repeats", repeats), ("partial", partial), ("money", money), ("tokens", tokens), ("several k", k == "k")) if wanted]  # fmt: skip
    heads = [
        *(name.replace("_", " ") for name in results.by), "tasks", "passes/scored", "of planned", "pass rate",
        *(["mean reward"] if partial else []), *([f"pass@{k}", f"pass^{k}"] if repeats else []), "not scored",
        *(["cost", "per pass"] if money else []), *(["tokens in", "out"] if tokens else []), "time p50", "p90",
    ]  # fmt: skip
    notes = [
        "Trials without a reward count as 0, as asked for; skipped ones do not count."
        if results.unscored_as_zero
        else "Rates are over the scored trials; what is not scored counts nowhere as 0."
    ]
    notes.append(
        "Intervals: Wilson's, with the trials of one task taken for alike as far as they were."
    )
    if money and any(0 < group.cost_known < group.scored for group in results.groups):
        notes.append("Of some trials the cost is not known; sums are over the others.")
    return Sheet(
        f"Results of {results.of}", tuple(heads), [_group(group, columns) for group in results.groups],
        tuple(notes), len(results.by),
    )  # fmt: skip


def _group(group: GroupLine, columns: Sequence[str]) -> tuple[str, ...]:
    k = str(group.k)
    cells = [
        *(value or "–" for value in group.key.values()),
        str(group.tasks), f"{group.passes}/{group.counted}", str(group.n - group.skipped),
        words.percent_with(group.pass_rate, group.pass_rate_low, group.pass_rate_high),
    ]  # fmt: skip
    if "partial" in columns:
        cells.append(
            words.value_with(group.mean_reward, group.mean_reward_low, group.mean_reward_high)
        )
    if "repeats" in columns:
        said = f" (k={k})" if "several k" in columns and group.k else ""
        cells += [
            f"{words.percent(found.get(k))}{said}" for found in (group.pass_at, group.pass_hat)
        ]
    cells.append(not_scored(group))
    if "money" in columns:
        cells += [words.money(group.cost_usd), words.money(group.cost_per_success_usd)]
    if "tokens" in columns:
        cells += [words.number(group.input_tokens), words.number(group.output_tokens)]
    return (*cells, words.seconds(group.seconds_p50), words.seconds(group.seconds_p90))


def not_scored(group: GroupLine) -> str:
    """``2 verifier, 1 missing``: what the trials without a reward came to; empty where all have one."""
    other = group.n - group.scored - group.canceled - group.skipped - group.missing
    parts = [f"{count} {name}" for name, count in group.failures.items()]
    unnamed = other - sum(group.failures.values())
    if unnamed > 0:
        parts.append(f"{unnamed} unscored")
    parts += [
        f"{count} {name}"
        for name in ("canceled", "skipped", "missing")
        if (count := getattr(group, name)) and not (name == "canceled" and "canceled" in group.failures)
    ]  # fmt: skip
    return ", ".join(parts)


def of_trials(lines: TrialLines) -> Sheet:
    """A row per trial."""
    heads = ("task", "agent", "model", "step", "result", "reward", "failure", "cost", "time")
    rows = [
        (
            line.task, line.agent, line.model or "–", f"{line.batch}/{line.job}/{line.step}", line.result,
            "–" if line.reward is None else f"{line.reward:g}", line.failure_class or line.exception or "",
            words.money(line.cost_usd), words.seconds(line.seconds),
        )
        for line in lines.trials
    ]  # fmt: skip
    return Sheet(f"Trials of {lines.of}", heads, rows, texts=5)


# --- compare ------------------------------------------------------------------------------------------


def of_comparison(comparison: Comparison) -> list[Sheet]:
    """A table of the differences, and one of the tasks that flipped."""
    rows = [
        row
        for agent in comparison.agents
        for row in (
            _difference(agent, "mean reward", agent.reward),
            _difference(agent, "cost of a trial, USD", agent.cost_usd),
            _difference(agent, "time of a trial, s", agent.seconds),
        )
        if row is not None
    ]
    notes = [note for agent in comparison.agents for note in _notes(agent)]
    for only, side in ((comparison.only_a, "A"), (comparison.only_b, "B")):
        if only:
            notes.append(f"only in {side}: {_names(only)}")
    return [
        Sheet(
            f"A: {comparison.a}; B: {comparison.b}",
            ("agent", "what", "tasks", "A", "B", "B − A (95 %)"), rows, tuple(notes), 2,
        ),
        Sheet(
            "Tasks that flipped", ("agent", "task", "A", "B", "change"),
            [row for agent in comparison.agents for row in _flips(agent)], (), 2,
        ),
    ]  # fmt: skip


def who(agent: PairedAgent) -> str:
    return agent.a if agent.a == agent.b else f"{agent.a} → {agent.b}"


def _difference(agent: PairedAgent, what: str, found: Difference) -> tuple[str, ...] | None:
    if found.a is None or found.b is None:
        return None
    digits = 4 if "USD" in what else 2
    interval = (
        "" if found.low is None else f" ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
    )
    return (
        who(agent), what, str(found.tasks), f"{found.a:.{digits}f}", f"{found.b:.{digits}f}",
        f"{found.difference:+.{digits}f}{interval}",
    )  # fmt: skip


def _notes(agent: PairedAgent) -> list[str]:
    passed = (
        f"{agent.passed_both} tasks pass on both sides, {agent.passed_neither} on none,"
        f" {len(agent.won)} only in B, {len(agent.lost)} only in A"
    )
    notes = [f"{who(agent)}: {passed}; exact McNemar p = {agent.p_value:.3g}"]
    changed = [pair.task for pair in agent.tasks if pair.changed]
    for names, said in (
        (agent.new, "only in B"),
        (agent.gone, "only in A"),
        (agent.unpaired, "not scored on one side"),
        (changed, "the task itself differs between the sides"),
    ):
        if names:
            notes.append(f"{who(agent)}: {said}: {_names(names)}")
    return notes


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _flips(agent: PairedAgent) -> list[tuple[str, ...]]:
    flipped = {**dict.fromkeys(agent.lost, "lost"), **dict.fromkeys(agent.won, "won")}
    return [
        (who(agent), pair.task, f"{pair.a:.2f}", f"{pair.b:.2f}", flipped[pair.task])
        for pair in agent.tasks
        if pair.task in flipped
    ]


# --- errors -------------------------------------------------------------------------------------------


def of_errors(errors: Errors) -> Sheet:
    """A row per group."""
    rows = [
        (
            f"{group.failure_class}{' (scored)' if group.beside_a_score else ''}", group.message, ", ".join(group.agents),
            group.attempt, str(group.attempts), str(group.steps), str(group.open),
        )
        for group in errors.groups
    ]  # fmt: skip
    notes = ("open: steps whose newest attempt failed so.",) if rows else ()
    heads = ("class", "message", "agents", "example", "attempts", "steps", "open")
    return Sheet(f"Failures of {errors.of}", heads, rows, notes, 4)
