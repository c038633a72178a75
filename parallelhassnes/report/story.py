"""The summary of a report in words, and the report as Markdown, short enough for a comment on a pull request."""

from parallelhassnes import formatting
from parallelhassnes.report.gather import JobVerdict, Report, is_baseline, label
from parallelhassnes.results import text_tables
from parallelhassnes.results.aggregate import GroupLine
from parallelhassnes.results.export import markdown_table, markdown_text
from parallelhassnes.steps.verdict.flakiness import BASELINES

QUALITY_WORDS = {
    "broken": "broken",
    "needs_review": "to be reviewed",
    "good": "good",
    "unknown": "not known to be good",
}


def sentences(report: Report) -> list[str]:
    """Tell what came of it, in a few sentences."""
    rows = report.rows
    scored = sum(row.scored for row in rows)
    passes = sum(row.facts.passed is True for row in rows)
    due = sum(row.facts.result != "skipped" for row in rows)
    tasks = len({row.task for row in rows})
    agents = len(report.agents)
    said = [
        f"{formatting.counted(len(rows), 'trial')} of {formatting.counted(tasks, 'task')} by {formatting.counted(agents, 'agent')}:"
        f" {scored} scored, {passes} passed."
        if rows
        else "There are no trials."
    ]
    if rows and scored < due:
        said.append(f"{due - scored} have no score, which is never counted as zero.")
    undecided = [row.facts.undecided for row in rows if row.facts.undecided]
    if undecided:
        said.append(f"Whether {formatting.counted(len(undecided), 'trial')} passed is {undecided[0]}.")
    said += _best(report)
    doubted = sum(
        agent["passes_doubted"]
        for each in report.verdicts
        for agent in each.verdict["agents"]
        if agent["agent"] not in BASELINES
    )
    if doubted:
        said.append(f"Analyses doubt {formatting.counted(doubted, 'pass')} of agents: the work was not done.")
    said += _tasks(report)
    said += _money(report)
    unfinished = [board for board in report.boards if board.state not in ("done", "attention", "canceled")]
    if unfinished:
        left = sum(b.counts.running + b.counts.ready + b.counts.blocked for b in unfinished)
        said.append(f"It is not over: {formatting.counted(left, 'step')} still to come.")
    if any(board.stand_in for board in report.boards):
        said.append("This was a dry run: no agent was called, and the answers mean nothing.")
    return said


def _best(report: Report) -> list[str]:
    found = [g for g in report.results.groups if not is_baseline(g) and g.pass_rate is not None]
    if not found:
        return []
    highest = max(group.pass_rate or 0.0 for group in found)
    if not highest:
        return ["No agent passed anything."]
    first = [group for group in found if group.pass_rate == highest]
    others = [group for group in found if group.pass_rate != highest]
    if len(first) > 1:
        text = f"{formatting.joined([label(group) for group in first])} have the same pass rate: {rate(first[0])}"
    else:
        text = f"{label(first[0])} has {'the highest' if others else 'a'} pass rate{':' if others else ' of'} {rate(first[0])}"
    near = [group for group in others if _overlap(first[0], group)]
    if near:
        text += f"; the intervals of {formatting.counted(len(near), 'other agent')} overlap with it, so which is better is not shown"
    return [f"{text}.", *_beside_nop(report, first[0])]


def _beside_nop(report: Report, best: GroupLine) -> list[str]:
    """Tell where an agent that does nothing passes as much, or may do so: the tasks then say little about any agent."""
    idle = [g for g in report.results.groups if g.key.get("agent") == "nop" and g.pass_rate]
    for group in idle:
        if (group.pass_rate or 0.0) >= (best.pass_rate or 0.0):
            return [
                f"nop, which does nothing, passes as much: {rate(group)}. These tasks show nothing about the agents."
            ]
        if _overlap(best, group):
            return [f"nop, which does nothing, has {rate(group)}, and the intervals overlap."]
    return []


def rate(group: GroupLine) -> str:
    """Return ``59 % (54 to 63 %)``, and between what it lies where some trials have no score."""
    text = formatting.percent_with(group.pass_rate, group.pass_rate_low, group.pass_rate_high)
    between = text_tables.bracket(group)
    return f"{text}, {between} if all unscored failed or passed" if between else text


def _overlap(one: GroupLine, other: GroupLine) -> bool:
    return (one.pass_rate_low or 0.0) <= (other.pass_rate_high or 0.0)


def _tasks(report: Report) -> list[str]:
    counts = dict.fromkeys(QUALITY_WORDS, 0)
    for each in report.verdicts:
        counts[each.quality] += 1
    parts = [f"{count} {QUALITY_WORDS[name]}" for name, count in counts.items() if count]
    if not parts:
        return []
    text = f"By the verdicts {formatting.joined(parts)}."
    if counts["broken"]:
        text += " What agents did on broken tasks says nothing about the agents."
    return [text]


def _money(report: Report) -> list[str]:
    costs = [board.spent.cost_usd for board in report.boards if board.spent.cost_usd is not None]
    failed = report.errors.attempts
    said = []
    if costs:
        unknown = any(row.facts.spent.cost_unknown for row in report.rows)
        said.append(f"All attempts together cost {formatting.money(sum(costs), at_least=unknown)}.")
    if failed:
        said.append(
            f"{formatting.counted(failed, 'attempt')} failed, in {formatting.counted(len(report.errors.groups), 'group')}."
        )
    return said


def took(report: Report) -> float | None:
    """Return the seconds from the first batch's start to the last attempt's end."""
    if not report.spans:
        return None
    return max(span.times[-1] for span in report.spans) - min(s.times[0] for s in report.spans)


MOST_VERDICTS = 20
MOST_FAILURES = 10


def markdown(report: Report) -> str:
    """Summary, leaderboard, the tasks that need somebody, failures, provenance."""
    parts = [
        f"## {markdown_text(report.title)}\n",
        f"{markdown_text(' '.join(sentences(report)))}\n",
        text_tables.markdown(text_tables.of_results(report.results)),
        *_verdicts(report),
        *_failures(report),
        _provenance(report),
    ]
    return "\n".join(parts)


def _verdicts(report: Report) -> list[str]:
    bad = [each for each in report.verdicts if each.quality in ("broken", "needs_review")]
    if not bad:
        return []
    rows = [(each.task, QUALITY_WORDS[each.quality], _confidence(each), _why(each)) for each in bad[:MOST_VERDICTS]]
    table = markdown_table(("task", "is", "confidence", "because"), rows)
    return ["**Tasks to look at**\n", table, *_more(len(bad) - MOST_VERDICTS)]


def _confidence(each: JobVerdict) -> str:
    """Empty where the verdict is of a version that did not say."""
    found = each.verdict["confidence"]
    return f"{found:.2f}" if found else ""


def _why(each: JobVerdict) -> str:
    return "; ".join(each.verdict["reasons"])


def _failures(report: Report) -> list[str]:
    sheet = text_tables.of_errors(report.errors)
    if not sheet.rows:
        return []
    cut = sheet._replace(title="Failures", rows=sheet.rows[:MOST_FAILURES])
    return [text_tables.markdown(cut), *_more(len(sheet.rows) - MOST_FAILURES)]


def _more(count: int) -> list[str]:
    return [f"… and {count} more\n"] if count > 0 else []


def _provenance(report: Report) -> str:
    batches = ", ".join(f"{meta.batch_id} (table {meta.table_sha256[:12]})" for meta in report.provenance.metas)
    versions = ", ".join(f"{name} {version}" for name, version in report.provenance.made_by)
    return f"<sub>{markdown_text(f'{batches}; {versions}; {report.at}')}</sub>\n"
