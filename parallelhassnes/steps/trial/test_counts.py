"""Counts of tests from CTRF reports (https://ctrf.io), wherever a verifier wrote one."""

from pathlib import Path

from parallelhassnes.steps import safe_read

MAX_CTRF_BYTES = 16 * 1024 * 1024
PATTERNS = ("verifier/ctrf.json", "steps/*/verifier/ctrf.json", "verifier/*ctrf*.json")


def counts(trial_dir: Path) -> dict[str, int] | None:
    """``{passed, failed, total}``, summed over the steps of a multi-step trial; None without a report."""
    for pattern in PATTERNS:
        found = [c for c in map(_read, sorted(trial_dir.glob(pattern))[:1000]) if c is not None]
        if found:
            return {key: sum(c[key] for c in found) for key in ("passed", "failed", "total")}
    return None


def _read(path: Path) -> dict[str, int] | None:
    report = safe_read.read_object(path, MAX_CTRF_BYTES) or {}
    summary = safe_read.mapping(safe_read.mapping(report.get("results")).get("summary"))
    passed, failed = safe_read.whole(summary.get("passed")), safe_read.whole(summary.get("failed"))
    total = safe_read.whole(summary.get("tests"))
    if passed is None and total is None:
        return None
    passed = passed or 0
    failed = failed or 0
    return {"passed": passed, "failed": failed, "total": total if total is not None else passed + failed}
