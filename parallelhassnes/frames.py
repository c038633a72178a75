"""Trials, attempts and rates as pandas frames, for ``import parallelhassnes as ph``.

pandas is an extra: without it each of these says what to type.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from parallelhassnes.errors import extra
from parallelhassnes.library import Batch, Store, choice, opened, several, store_of
from parallelhassnes.refs import resolve
from parallelhassnes.results import collect
from parallelhassnes.results.aggregate import DEFAULT_BY
from parallelhassnes.results.aggregate import results as results_of
from parallelhassnes.results.collect import Choice
from parallelhassnes.results.rows import AttemptRow, TrialLine, attempt_lines, trial_lines

if TYPE_CHECKING:
    import pandas as pd


def trials_df(what: Batch | Store | Sequence[Batch]) -> "pd.DataFrame":
    """Return one row per trial, by the attempt of it that counts; columns are the fields of ``results --trials`` (docs/python.md).

    ``labels`` and ``rewards`` hold mappings, ``warnings`` lists; what is not known is missing (NaN or None).
    """
    store, chosen = _chosen(what)
    with opened(store) as ctx:
        found = trial_lines(ctx.layout, chosen)
    _warn(found.passed_over)
    lines = found.trials
    return _frame([line.model_dump() for line in lines], TrialLine.model_fields)


def attempts_df(what: Batch | Store | Sequence[Batch]) -> "pd.DataFrame":
    """Return one row per attempt, live and superseded ones included, in order of their launch; times are UTC time stamps."""
    store, chosen = _chosen(what)
    with opened(store) as ctx:
        found = attempt_lines(ctx.layout, chosen)
    _warn(found.passed_over)
    lines = found.attempts
    frame = _frame([line.model_dump() for line in lines], AttemptRow.model_fields)
    for name in ("launched_at", "ended_at"):
        frame[name] = _pandas().to_datetime(frame[name], utc=True, format="ISO8601")
    return frame


def results_df(what: Batch | Store | Sequence[Batch], by: str | Sequence[str] = DEFAULT_BY) -> "pd.DataFrame":
    """Return one row per group, best first; the dimensions of ``by`` are columns, then the fields of ``results --json`` groups."""
    store, chosen = _chosen(what)
    with opened(store) as ctx:
        found = results_of(ctx.layout, chosen, several(by))
    _warn(found.passed_over)
    rows = [{**line.key, **line.model_dump(exclude={"key"})} for line in found.groups]
    return _frame(rows, several(by))


def _warn(passed_over: Iterable[str]) -> None:
    for line in passed_over:
        warnings.warn(f"passed over {line}", stacklevel=3)


def _frame(rows: list[dict[str, Any]], columns: Iterable[str]) -> "pd.DataFrame":
    pd = _pandas()
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns))


def _pandas() -> Any:
    with extra("df", "frames need"):
        import pandas as pd
    return pd


def _chosen(what: Batch | Store | Sequence[Batch]) -> tuple[Store, Choice]:
    if isinstance(what, Store):
        with opened(what) as ctx:
            return what, collect.choose(ctx.layout)
    batches = [what] if isinstance(what, Batch) else list(what)
    store = store_of(batches)
    with opened(store) as ctx:
        for batch in batches:
            resolve(ctx.layout, batch.id)
    return store, choice(batches)
