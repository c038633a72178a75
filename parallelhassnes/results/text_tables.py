"""Results as tables of text: what the terminal, Markdown and the report print alike."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from parallelhassnes import formatting
from parallelhassnes.results.aggregate import GroupLine, Results
from parallelhassnes.results.compare import CHECKSUM, Comparison, Difference, PairedAgent
from parallelhassnes.results.error_groups import Errors
from parallelhassnes.results.export import markdown_table, markdown_text
from parallelhassnes.results.regraded import ComparisonFlip, Conclusions
from parallelhassnes.results.rows import TrialLines
from parallelhassnes.results.trial_plans import RULE_OF_PASSING

MOST_NAMES = 8
MOST_REWARDS = 8
"""Columns of rewards; ``results --by reward`` has a row for each."""
NOT_SCORED = "not scored"
BRACKET = "if all unscored failed–passed"


class Sheet(NamedTuple):
    """One table."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    texts: int = 1
    """Columns from the left that hold text; those after them hold numbers."""
    texts_right: int = 0
    """Columns from the right that hold text again."""

    def is_number(self, place: int) -> bool:
        """Tell whether the column holds numbers."""
        return self.texts <= place < len(self.heads) - self.texts_right


def markdown(sheet: Sheet) -> str:
    """Return the table in GitHub's Markdown."""
    table = markdown_table(sheet.heads, sheet.rows) if sheet.rows else "Nothing.\n"
    notes = "".join(f"\n{markdown_text(note)}\n" for note in sheet.notes)
    return f"**{markdown_text(sheet.title)}**\n\n{table}{notes}"


# --- results ------------------------------------------------------------------------------------------


def of_results(results: Results) -> Sheet:
    """Return a row per group; what no group says anything under has no column."""
    groups = results.groups
    by = {name.replace("_", " ") for name in results.by}
    columns = [
        column
        for place, column in enumerate(_columns(results))
        if place == 0 or any(column.text(group) not in ("", "–") for group in groups)
    ]
    notes = [
        "Trials without a reward count as 0, as asked for; skipped ones do not count."
        if results.unscored_as_zero
        else "Rates are over the scored trials; what is not scored is never counted as 0."
    ]
    notes.append("In parentheses: 95 % intervals (Wilson); trials of one task count as alike as far as they were.")
    if any(group.superseded and group.cost_usd for group in groups):
        notes.append("Costs and tokens are those of all attempts, repeated ones included.")
    if any(group.cost_unknown for group in groups):
        notes.append("≥: of some attempts the cost is not known, in whole or in part.")
    notes += results.notes
    notes += dict.fromkeys(
        f"{group.undecided} of {group.scored} scored trials of {' · '.join(filter(None, group.key.values())) or 'all'}"
        f" are {group.undecided_because}"
        for group in groups
        if group.undecided_because and "reward" not in results.by
    )
    return Sheet(
        f"Results of {results.of}",
        tuple(column.head for column in columns),
        [tuple(column.text(group) for column in columns) for group in groups],
        tuple(notes),
        sum(column.head in by for column in columns),
        sum(column.head == NOT_SCORED for column in columns),
    )


class _Column(NamedTuple):
    head: str
    text: Callable[[GroupLine], str]


def _columns(results: Results) -> Iterator[_Column]:
    groups = results.groups
    for name in results.by:
        yield _Column(name.replace("_", " "), lambda g, name=name: g.key[name] or "–")  # type: ignore[misc]
    yield _Column("tasks", lambda g: str(g.tasks))
    counted = "planned" if results.unscored_as_zero else "scored"
    yield _Column(f"passes/{counted}", lambda g: f"{g.passes}/{g.counted}" if g.counted or not g.scored else "–")
    yield _Column("of planned", lambda g: str(g.n - g.skipped))
    yield _Column("pass rate", lambda g: formatting.percent_with(g.pass_rate, g.pass_rate_low, g.pass_rate_high))
    yield _Column(BRACKET, bracket)
    if any(group.mean_reward != group.pass_rate for group in groups):
        yield _Column(
            "mean reward", lambda g: formatting.value_with(g.mean_reward, g.mean_reward_low, g.mean_reward_high)
        )
    if "reward" not in results.by:
        for name in _reward_names(groups):
            yield _Column(name, partial(_mean_of, name))
    sizes = {group.k for group in groups if group.k}
    if sizes - {1}:
        one = next(iter(sizes)) if len(sizes) == 1 else None
        for sign, which in (("@", "pass_at"), ("^", "pass_hat")):
            yield _Column(f"pass{sign}{one or 'k'}", lambda g, which=which: _at_k(g, which, said=one is None))  # type: ignore[misc]
    if any(group.capped for group in groups):
        yield _Column("capped", lambda g: str(g.capped))
    yield _Column("cost", lambda g: formatting.money(g.cost_usd, at_least=g.cost_unknown > 0))
    yield _Column("per pass", lambda g: formatting.money(g.cost_per_success_usd, at_least=g.cost_unknown > 0))
    yield _Column("tokens in", lambda g: formatting.number(g.input_tokens))
    yield _Column("out", lambda g: formatting.number(g.output_tokens))
    yield _Column("time p50", lambda g: formatting.seconds(g.seconds_p50))
    yield _Column("p90", lambda g: formatting.seconds(g.seconds_p90))
    yield _Column(NOT_SCORED, not_scored)


def _mean_of(reward: str, group: GroupLine) -> str:
    return formatting.reward(group.rewards[reward].mean, plain=True) if reward in group.rewards else "–"


def _reward_names(groups: Sequence[GroupLine]) -> list[str]:
    """Return the rewards that get a column each: all names where trials have more than the main one, the first of many."""
    names = list(dict.fromkeys(name for group in groups for name in group.rewards))
    return names[:MOST_REWARDS] if names not in ([], ["reward"]) else []


def _at_k(group: GroupLine, which: str, *, said: bool) -> str:
    """Return the estimate for the largest k, which is said where it differs between groups."""
    if not group.k:
        return "–"
    text = formatting.percent(getattr(group, which)[str(group.k)])
    return f"{text} (k={group.k})" if said else text


def bracket(group: GroupLine) -> str:
    """Return ``238–271 of 438``: passes in the worst and the best case; empty where every trial that was due is decided."""
    if group.passes_worst == group.passes_best:
        return ""
    return f"{group.passes_worst}–{group.passes_best} of {group.bracket_of}"


def not_scored(group: GroupLine) -> str:
    """Return ``2 verifier, 1 missing``: what the trials without a reward came to; empty where all have one."""
    other = group.n - group.scored - group.canceled - group.skipped - group.missing
    parts = [
        f"{count} {name}{f' ({guessed} guessed)' if (guessed := group.failures_guessed.get(name)) else ''}"
        for name, count in group.failures.items()
    ]
    unnamed = other - sum(group.failures.values())
    if unnamed > 0:
        parts.append(f"{unnamed} unscored")
    parts += [
        f"{count} {name}"
        for name in ("canceled", "skipped", "missing")
        if (count := getattr(group, name)) and not (name == "canceled" and "canceled" in group.failures)
    ]
    return ", ".join(parts)


def of_trials(lines: TrialLines) -> Sheet:
    """Return a row per trial."""
    names = list(dict.fromkeys(name for line in lines.trials for name in line.rewards))
    names = names[:MOST_REWARDS] if names not in ([], ["reward"]) else []
    heads = ("task", "agent", "model", "step", "result", "reward", *names, "failure", "cost", "time")
    rows = [
        (
            line.task,
            line.agent,
            line.model or "–",
            f"{line.batch}/{line.job}/{line.step}",
            line.result,
            "undecided"
            if line.undecided
            else "–"
            if line.reward is None
            else formatting.reward(line.reward, plain=True),
            *(formatting.reward(line.rewards[name], plain=True) if name in line.rewards else "–" for name in names),
            formatting.failure_class(
                line.failure_class or ("capped" if line.capped else line.exception) or "", line.guessed
            ),
            formatting.money(line.cost_spent_usd, at_least=line.cost_incomplete),
            formatting.seconds(line.seconds),
        )
        for line in lines.trials
    ]
    notes = tuple(dict.fromkeys(line.undecided for line in lines.trials if line.undecided))
    return Sheet(f"Trials of {lines.of}", heads, rows, notes[:MOST_NAMES], texts=5)


# --- compare ------------------------------------------------------------------------------------------


def of_comparison(comparison: Comparison) -> list[Sheet]:
    """Return a table of the differences, and one of the tasks that flipped."""
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
            ("agent", "what", "tasks", "A", "B", "B − A (95 %)"),
            rows,
            tuple(notes),
            2,
        ),
        Sheet(
            "Tasks that flipped",
            ("agent", "task", "A", "B", "change"),
            [row for agent in comparison.agents for row in _flips(agent)],
            (),
            2,
        ),
    ]


def who(agent: PairedAgent) -> str:
    return agent.a if agent.a == agent.b else f"{agent.a} → {agent.b}"


def _difference(agent: PairedAgent, what: str, found: Difference) -> tuple[str, ...] | None:
    if found.a is None or found.b is None:
        return None
    digits = 4 if "USD" in what else 2
    own = formatting.reward if "reward" in what else lambda value: formatting.fixed(value, digits)
    low, high, difference = (
        "" if value is None else formatting.fixed(value, digits, "+")
        for value in (found.low, found.high, found.difference)
    )
    interval = f" ({low} to {high})" if low else ""
    return (who(agent), what, str(found.tasks), own(found.a), own(found.b), f"{difference}{interval}")


def _notes(agent: PairedAgent) -> list[str]:
    passed = (
        f"{formatting.counted(agent.passed_both, 'task')} passed on both sides, {agent.passed_neither} on none,"
        f" {len(agent.won)} only in B, {len(agent.lost)} only in A; exact McNemar p = {agent.p_value:.3g}"
    )
    notes = [f"{who(agent)}: {passed if agent.tasks else 'no task has a score on both sides'}"]
    for side, found in (("A", agent.a_rate), ("B", agent.b_rate)):
        between = (
            ""
            if found.worst == found.best
            else f"; {found.worst}–{found.best} of {found.of} if all unscored failed or passed"
        )
        capped = f"; {formatting.counted(found.capped, 'trial')} ended by a cap" if found.capped else ""
        notes.append(f"{who(agent)}: {side} passed {found.passes}/{found.scored}{between}{capped}")
    notes += [
        f"{who(agent)}: not equal: {one.what} is {one.a} in A, {one.b} in B: {_names(one.tasks)}"
        for one in agent.unequal
        if one.what != CHECKSUM
    ]
    changed = [one for each in agent.unequal if each.what == CHECKSUM for one in each.tasks]
    for names, said in (
        (agent.new, "only in B"),
        (agent.gone, "only in A"),
        (agent.unpaired, "without a score on at least one side"),
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
        (
            who(agent),
            pair.task,
            formatting.reward(pair.a),
            formatting.reward(pair.b),
            flipped[pair.task] + (" by another pass rule" if RULE_OF_PASSING in pair.unequal else ""),
        )
        for pair in agent.tasks
        if pair.task in flipped
    ]


# --- regrade ------------------------------------------------------------------------------------------


def of_conclusions(found: Conclusions) -> list[Sheet]:
    """Return a table of the trials that flipped, one of what else is concluded otherwise, and one of pass rates."""
    flips = [
        (trial.task, trial.agent, trial.step, *(_reward_or_none(value) for value in (trial.before, trial.after)))
        for trial in found.trials
        if trial.flipped or (trial.before is None) != (trial.after is None)
    ]
    changed = sum(trial.before != trial.after for trial in found.trials)
    judged, flipped = formatting.counted(len(found.trials), "trial"), sum(trial.flipped for trial in found.trials)
    by = f"judged again by {_names(found.verifier)}"
    notes = [f"{judged} of {found.regrade_of} {by}: {changed} with another reward, {flipped} flipped"]
    if found.pending:
        notes.append(f"{formatting.counted(found.pending, 'trial')} still to be judged")
    if found.left_out:
        notes.append(f"{formatting.counted(found.left_out, 'trial')} of {found.regrade_of} could not be judged again")
    other = [
        *((f"verdict of {each.job}", each.before or "–", each.after or "–") for each in found.verdicts if each.flipped),
        *(
            (f"{each.a} against {each.b}", _said_better(each, each.before), _said_better(each, each.after))
            for each in found.comparisons
            if each.flipped or each.turned
        ),
    ]
    rates = [
        (each.agent, str(each.trials), formatting.percent(each.before), formatting.percent(each.after))
        for each in found.rates
    ]
    return [
        Sheet(
            f"Trials of {found.batch} that come to something else",
            ("task", "agent", "step", "before", "after"),
            flips,
            tuple(notes),
            3,
        ),
        Sheet("Conclusions that flip", ("what", "before", "after"), other, (), 3),
        Sheet("Pass rates", ("agent", "trials", "before", "after"), rates),
    ]


def _reward_or_none(value: float | None) -> str:
    return "–" if value is None else formatting.reward(value, plain=True)


def _said_better(each: ComparisonFlip, better: str) -> str:
    return {"a": f"{each.a} is better", "b": f"{each.b} is better"}.get(better, better)


# --- errors -------------------------------------------------------------------------------------------


def of_errors(errors: Errors) -> Sheet:
    """Return a row per group."""
    rows = [
        (
            f"{formatting.failure_class(group.failure_class, group.guessed)}{' (scored)' if group.beside_a_score else ''}",
            group.message,
            ", ".join(group.agents),
            group.attempt,
            str(group.attempts),
            str(group.steps),
            str(group.open),
        )
        for group in errors.groups
    ]
    notes = ("open: steps whose newest attempt failed so.",) if rows else ()
    heads = ("class", "message", "agents", "example", "attempts", "steps", "open")
    return Sheet(f"Failures of {errors.of}", heads, rows, notes, 4)
