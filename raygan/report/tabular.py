"""A table of the report: one content, as Parquet and CSV for programs and as text for people."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Show = Callable[[Any], str]


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
    """A table with a title and a note."""

    key: str
    """Names its files."""
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    note: str = ""

    @property
    def shown(self) -> list[Column]:
        """The columns that people see: those with a heading and at least one value."""
        return [
            column
            for column in self.columns
            if column.heading and any(row.get(column.name) is not None for row in self.rows)
        ]

    @property
    def texts(self) -> list[list[str]]:
        """The shown columns' values row by row; empty text where there is none."""
        return [[_text(column, row.get(column.name)) for column in self.shown] for row in self.rows]

    def arrow(self) -> pa.Table:
        """All columns, with their types, however many rows there are."""
        schema = pa.schema([(column.name, column.type) for column in self.columns])
        rows = [{column.name: row.get(column.name) for column in self.columns} for row in self.rows]
        return pa.Table.from_pylist(rows, schema)


def _text(column: Column, value: Any) -> str:
    return "" if value is None else column.show(value)


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """``rows`` with every column that any of them has; what a row lacks is null."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def parquet_bytes(table: pa.Table) -> bytes:
    """``table`` as a Parquet file."""
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def csv_bytes(table: pa.Table) -> bytes:
    """``table`` as a CSV file with a header."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def json_bytes(table: pa.Table) -> bytes:
    """``table`` as a JSON list of objects, one per row."""
    return (json.dumps(table.to_pylist(), indent=1, allow_nan=False) + "\n").encode()
