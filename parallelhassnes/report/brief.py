"""The report as Markdown, short enough for a comment on a pull request."""

from parallelhassnes.report import story
from parallelhassnes.report.gather import JobVerdict, Report
from parallelhassnes.results import text_tables
from parallelhassnes.results.export import markdown_table, markdown_text

MOST_VERDICTS = 20
MOST_FAILURES = 10


def markdown(report: Report) -> str:
    """Summary, leaderboard, the tasks that need somebody, failures, provenance."""
    parts = [
        f"## {markdown_text(report.title)}\n",
        f"{markdown_text(' '.join(story.sentences(report)))}\n",
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
    rows = [
        (each.task, story.QUALITY_WORDS[each.quality], _confidence(each), _why(each)) for each in bad[:MOST_VERDICTS]
    ]
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
