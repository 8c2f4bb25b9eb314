"""Images in Parquet tables, in the Hugging Face layout; the files are not trusted."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raygan.data import files
from raygan.data.pieces import Item, Part
from raygan.errors import DataError

IMAGE_COLUMNS = ("image", "img")
MAX_ROWS = 2**32
"""Rows that a file may claim to have."""
MAX_FOOTER = 256 * 2**20
_BATCH = 64
"""Rows that are in memory at a time; images of some MiB each may be among them."""
_BUFFER = 4 * 2**20
_EXTENSION = b"ARROW:extension:name"


@dataclass(frozen=True)
class ParquetPiece:
    """Ranges of rows of Parquet files."""

    path: str
    parts: tuple[Part, ...]

    @property
    def count(self) -> int:
        return sum(part.stop - part.start for part in self.parts)

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
        for batch in table.iter_batches(_BATCH, row_groups=chosen, columns=[column]):
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
    for key in re.finditer(b"ARROW:schema", footer):
        # what stands between key and value may look like base64, too: try each alignment
        for run in re.findall(rb"[A-Za-z0-9+/]{8,}", footer[key.end() :]):
            for start in range(min(8, len(run) - 4)):
                text = run[start:]
                with contextlib.suppress(binascii.Error):
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
