"""Images in Parquet tables, in the Hugging Face layout; the files are not trusted."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from raygan.data import files
from raygan.data.decode import MAX_BYTES
from raygan.data.pieces import Item, Part, PartsPiece
from raygan.errors import DataError

IMAGE_COLUMNS = ("image", "img")
MAX_ROWS = 2**32
"""Rows that a file may claim to have."""
MAX_FOOTER = 256 * 2**20
_BATCH = 64
"""Rows that are in memory at a time, at most; and bytes, whatever the rows hold:"""
_MOST_AT_ONCE = 2**30
_PLAUSIBLE = 50
"""So many times smaller may images become that are packed already."""
_BUFFER = 4 * 2**20
_EXTENSION = b"ARROW:extension:name"


class ParquetPiece(PartsPiece):
    """Ranges of rows of Parquet files."""

    def read(self) -> Iterator[Item]:
        for part in self.parts:
            yield from _rows(part)


def row_groups(path: str) -> list[int]:
    """Rows of each row group of the file; raises DataError if it is not sound."""
    with _open(path) as (table, _):
        return _groups(table, path)


def _rows(part: Part) -> Iterator[Item]:
    path, start, stop = part
    with _open(path) as (table, column):
        first, skip = 0, 0
        chosen: list[int] = []
        for group, rows in enumerate(_groups(table, path)):
            if first < stop and first + rows > start:
                if not chosen:
                    skip = start - first
                chosen.append(group)
            first += rows
        row = start - skip
        rows = _rows_at_once(table, chosen, column, path)
        for batch in table.iter_batches(rows, row_groups=chosen, columns=[column]):
            cells = batch.column(0)
            if column.endswith(".bytes"):
                cells = cells.field("bytes")
            for cell in cells:
                if start <= row < stop:
                    yield f"{path}, row {row}", cell.as_py() or b""
                row += 1
            if row >= stop:
                return
    raise DataError(f"{path}: ends at row {row}, of {stop} that its row groups claim")


def _rows_at_once(table: Any, groups: list[int], column: str, path: str) -> int:
    """So few that they fit into memory whatever they hold; raises DataError for a column that
    only a file made to fill it would have."""
    largest = 1
    for group in groups:
        meta = table.metadata.row_group(group)
        for index in range(meta.num_columns):
            chunk = meta.column(index)
            if chunk.path_in_schema != column:
                continue
            packed, size = chunk.total_compressed_size, chunk.total_uncompressed_size
            if size < 0 or packed < 0 or size > max(_PLAUSIBLE * packed, MAX_BYTES):
                raise DataError(
                    f"{path}: row group {group} claims to unpack {packed:,} bytes of images to "
                    f"{size:,}; not believed"
                )
            largest = max(largest, size)
    # one value may be as large as the chunk, and stand in each row of it
    return max(1, min(_BATCH, _MOST_AT_ONCE // largest))


@contextlib.contextmanager
def _open(path: str) -> Iterator[tuple[Any, str]]:
    """The open table and its column of encoded images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with files.open_file(path) as file:
            _check_footer(file, path)
            file.seek(0)
            # from object storage whole column chunks at a time; else in small reads
            with pq.ParquetFile(
                file, pre_buffer=files.is_address(path), buffer_size=_BUFFER
            ) as table:
                yield table, _column(table.schema_arrow, path)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, MemoryError, TypeError,
            LookupError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: not a readable Parquet file ({reason})") from error


def _check_footer(file: Any, path: str) -> None:
    """Refuse a schema with Arrow extension types before pyarrow reads it: it would hand their
    metadata to whatever is registered in this process, and there are types that unpickle it."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    if len(tail) < 8 or tail[4:] != b"PAR1":
        raise DataError(f"{path}: not a readable Parquet file (it does not end as one)")
    length = int.from_bytes(tail[:4], "little")
    if length > min(size - 8, MAX_FOOTER):
        raise DataError(f"{path}: not a readable Parquet file (its footer claims {length:,} bytes)")
    file.seek(size - 8 - length)
    footer = file.read(length)
    key = footer.find(b"ARROW:schema")
    if key < 0:
        return
    # what stands between key and value may look like base64, too: try each alignment
    for run in set(re.findall(rb"[A-Za-z0-9+/]{8,}", footer[key:])):
        for start in range(min(4, len(run) - 4)):
            text = run[start:]
            if _EXTENSION in base64.b64decode(text[: len(text) // 4 * 4]):
                raise DataError(f"{path}: has columns of Arrow extension types; refused")


def _groups(table: Any, path: str) -> list[int]:
    meta = table.metadata
    groups = [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]
    if any(not 0 <= rows <= MAX_ROWS for rows in groups) or sum(groups) != meta.num_rows:
        raise DataError(
            f"{path}: its row groups of {groups[:5]} … rows are not the {meta.num_rows} that it "
            "claims to have"
        )
    return groups


def _column(schema: Any, path: str) -> str:
    """The column of images, or the field of it, that holds the encoded bytes."""
    import pyarrow as pa

    def is_binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    name = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if name is None:
        raise DataError(
            f"{path}: has no column {' or '.join(IMAGE_COLUMNS)}; it has "
            f"{', '.join(schema.names[:20])}"
        )
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        if index < 0:
            raise DataError(f"{path}: column {name} has no field `bytes`")
        name, kind = f"{name}.bytes", kind.field(index).type
    if not is_binary(kind):
        raise DataError(f"{path}: column {name} holds {kind}, not image bytes")
    return name
