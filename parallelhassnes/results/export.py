"""Tables of results as files: CSV, Parquet and Markdown, from the same flat records."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from parallelhassnes.errors import UserError, extra
from parallelhassnes.results.aggregate import GroupLine
from parallelhassnes.results.rows import TrialLine
from parallelhassnes.store import atomic

_PLAIN = (str, int, float, bool)


class FlatTable(NamedTuple):
    """Flat records; what is not known is None."""

    columns: dict[str, type]
    """Name → ``str``, ``int``, ``float`` or ``bool``; the same whatever is in the records, of which there may be none."""
    records: list[dict[str, Any]]


def of_groups(by: Sequence[str], groups: Sequence[GroupLine]) -> FlatTable:
    """Return a record per group: its dimensions first; of pass@k and pass^k those for 1 and for the largest k."""
    left_out = {"key", "pass_at", "pass_hat", "failures", "failures_guessed", "rewards"}
    shares = ("pass_at_1", "pass_at_k", "pass_hat_k")
    columns = {
        **dict.fromkeys(by, str),
        **_columns(GroupLine, left_out),
        **dict.fromkeys(shares, float),
        "failures": str,
        "failures_guessed": str,
        "rewards": str,
    }
    records = []
    for group in groups:
        record = group.model_dump(exclude=left_out)
        k = str(group.k)
        found = group.pass_at.get("1"), group.pass_at.get(k), group.pass_hat.get(k)
        own = dict(zip(shares, found, strict=True))
        means = {name: found.mean for name, found in group.rewards.items()}
        records.append(
            {
                **group.key,
                **record,
                **own,
                "failures": _words(group.failures),
                "failures_guessed": _words(group.failures_guessed),
                "rewards": _json(means),
            }
        )
    return FlatTable(columns, records)


def of_trials(lines: Sequence[TrialLine]) -> FlatTable:
    """Return a record per trial; its labels, its rewards by name and its warnings as JSON."""
    records = [
        {
            **line.model_dump(),
            "labels": json.dumps(line.labels, sort_keys=True, ensure_ascii=False),
            "rewards": _json(line.rewards),
            "warnings": _json(line.warnings),
        }
        for line in lines
    ]
    return FlatTable(_columns(TrialLine, set()), records)


def _columns(model: type[BaseModel], left_out: Collection[str]) -> dict[str, type]:
    """Return the fields with their types; what is no plain value (labels) is text."""
    found = {}
    for name, field in model.model_fields.items():
        if name not in left_out:
            of = field.annotation
            parts = () if get_origin(of) in (dict, list) else (of, *get_args(of))
            kinds = {kind for kind in parts if kind in _PLAIN}
            found[name] = next(iter(kinds - {str}), str)
    return found


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def _words(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in counts.items())


def csv_text(table: FlatTable) -> str:
    """Return CSV (RFC 4180, with plain newlines) under a head; what is not known is empty."""
    return "".join(map(_csv_line, (table.columns, *(record.values() for record in table.records))))


def _csv_line(values: Iterable[Any]) -> str:
    out = io.StringIO()
    # A lone carriage return is quoted only where it is part of the line's end.
    csv.writer(out, lineterminator="\r\n").writerow(values)
    return out.getvalue().removesuffix("\r\n") + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown; no cell can end its cell or become markup."""
    lines = [heads, ["---"] * len(heads), *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def markdown_text(text: str) -> str:
    """Return text as Markdown that shows it as it is, on one line."""
    plain = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#~&@!" else char for char in plain)


def parquet_bytes(table: FlatTable) -> bytes:
    """Return a Parquet file.

    Raises:
        UserError: pyarrow is not installed.
    """
    with extra("parquet", "Parquet needs"):
        import pyarrow as pa
        from pyarrow import parquet
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in table.columns.items()])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(table.records, schema), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_file(path: Path, data: bytes) -> None:
    """Write what the user asked for, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        atomic.write_bytes(path, data, durable=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})", fix="name another file") from None
