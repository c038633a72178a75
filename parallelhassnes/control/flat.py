"""Tables of results as files: CSV, Parquet and Markdown, from the same flat records."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parallelhassnes.control.results import GroupLine
from parallelhassnes.control.trial_lines import TrialLine
from parallelhassnes.errors import UserError
from parallelhassnes.store import atomic

type Record = dict[str, Any]


def group_records(groups: Sequence[GroupLine]) -> list[Record]:
    """A flat record per group: its dimensions first; of pass@k and pass^k those for 1 and for the largest k."""
    records = []
    for group in groups:
        record = group.model_dump(exclude={"key", "pass_at", "pass_hat", "failures"})
        k = str(group.k)
        records.append(
            {
                **group.key, **record,
                "pass_at_1": group.pass_at.get("1"), "pass_at_k": group.pass_at.get(k),
                "pass_hat_k": group.pass_hat.get(k), "failures": _words(group.failures),
            }
        )  # fmt: skip
    return records


def trial_records(lines: Sequence[TrialLine]) -> list[Record]:
    """A flat record per trial; its labels as JSON."""
    return [
        {**line.model_dump(), "labels": json.dumps(line.labels, sort_keys=True, ensure_ascii=False)}
        for line in lines
    ]


def _words(counts: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in counts.items())


def csv_text(records: Sequence[Record]) -> str:
    """CSV (RFC 4180, with plain newlines) under a head; what is not known is empty."""
    out = io.StringIO()
    if records:
        writer = csv.DictWriter(out, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return out.getvalue()


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; no cell can end its cell or become markup."""
    lines = [heads, ["---"] * len(heads), *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def markdown_text(text: str) -> str:
    """Text as Markdown that shows it as it is, on one line."""
    plain = " ".join(text.split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#~&@!" else char for char in plain)


def write_parquet(records: Sequence[Record], path: Path) -> None:
    """Write a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "--format parquet needs pyarrow", fix="pip install 'parallelhassnes[parquet]'"
        ) from None
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(list(records)), sink)
    write_file(path, sink.getvalue().to_pybytes())


def write_file(path: Path, data: bytes) -> None:
    """Write what the user asked for, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        atomic.write_bytes(path, data, durable=False)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror})", fix="name another file"
        ) from None
