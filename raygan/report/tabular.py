"""A table of the report: one content, as Parquet and CSV for programs and as text for people."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from raygan.shown import shown

Show = Callable[[Any], str]
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
"""How a cell begins that Excel, LibreOffice or Google Sheets takes for a formula."""
_MOST_CSV = 32_000
"""Characters of a cell; spreadsheets take 32,767."""


@dataclass(frozen=True)
class Column:
    """One column: its name in files and, for people, its heading and how its values read."""

    name: str
    type: pa.DataType
    heading: str = ""
    """Empty: in the files only."""
    show: Show = str

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, which people compare from the right."""
        return bool(pa.types.is_floating(self.type) or pa.types.is_integer(self.type))


@dataclass(frozen=True)
class Sheet:
    """A table with a title, how to read it, and a note."""

    key: str
    """Names its files."""
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    reading: str
    """How to read it, in one line: what a row is, and which way is better."""
    note: str = ""
    """What the columns mean."""
    only_in_files: Sequence[bool] = ()
    """By row, whether people do not see it; empty: they see all rows."""

    @cached_property
    def seen(self) -> list[dict[str, Any]]:
        """The rows that people see."""
        hidden = self.only_in_files or [False] * len(self.rows)
        return [row for row, is_hidden in zip(self.rows, hidden, strict=True) if not is_hidden]

    @cached_property
    def shown(self) -> list[Column]:
        """The columns that people see: those with a heading and at least one value."""
        return [
            column
            for column in self.columns
            if column.heading and any(row.get(column.name) is not None for row in self.seen)
        ]

    @cached_property
    def texts(self) -> list[list[str]]:
        """The shown columns' values row by row; empty text where there is none."""
        return [[_text(column, row.get(column.name)) for column in self.shown] for row in self.seen]

    def arrow(self) -> pa.Table:
        """All columns, with their types, however many rows there are."""
        schema = pa.schema([(column.name, column.type) for column in self.columns])
        rows = [
            {column.name: _whole(row.get(column.name)) for column in self.columns}
            for row in self.rows
        ]
        return pa.Table.from_pylist(rows, schema)


def _text(column: Column, value: Any) -> str:
    return "" if value is None else column.show(value)


def _whole(value: Any) -> Any:
    """Text that UTF-8 can encode: half of a surrogate pair, which JSON may hold, is escaped."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """``rows`` with every column that any of them has; what a row lacks is null."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({_whole(name): [_whole(row.get(name)) for row in rows] for name in names})


def parquet_bytes(table: pa.Table) -> bytes:
    """``table`` as a Parquet file."""
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def csv_bytes(table: pa.Table) -> bytes:
    """``table`` as a CSV file with a header, safe to open in a spreadsheet.

    In text, control characters are escaped (a line break is ``\\n``), and what a spreadsheet
    would take for a formula begins with an apostrophe. Parquet and JSON have the text unchanged.
    """
    columns = [
        pa.array([text and _csv_text(text) for text in column.to_pylist()], pa.string())
        if pa.types.is_string(column.type)
        else column
        for column in table.columns
    ]
    named = pa.Table.from_arrays(columns, [_csv_text(name) for name in table.column_names])
    sink = io.BytesIO()
    pyarrow.csv.write_csv(named, sink)
    return sink.getvalue()


def _csv_text(text: str) -> str:
    return ("'" if _FORMULA.match(text) else "") + shown(text, _MOST_CSV)


def json_bytes(table: pa.Table) -> bytes:
    """``table`` as a JSON list of objects, one per row."""
    return (json.dumps(table.to_pylist(), indent=1, allow_nan=False) + "\n").encode()
