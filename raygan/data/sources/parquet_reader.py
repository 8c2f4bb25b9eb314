"""Images in Parquet tables, in the Hugging Face layout; the files are not trusted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from raygan import storage
from raygan.addresses import is_address
from raygan.data.decode import MAX_BYTES, UnusableError
from raygan.data.sources import footers, thrift
from raygan.data.sources.footers import Chunk, Footer
from raygan.data.sources.pieces import Item, Rows, RowsPiece, at_once
from raygan.errors import DataError
from raygan.shown import shown

MAX_PAGE = 16 * 2**20
"""A page may unpack to this many bytes, whatever its packed size."""
_PLAUSIBLE = 10
"""A page may also unpack to this many times its packed size. Images are packed already, so that
real pages unpack to at most two or three times their size."""
_BATCH = 64
"""Most rows in memory at a time."""
_MOST_AT_ONCE = 64 * 2**20
"""Most bytes of values in memory at a time. pyarrow takes up to five times that: the unpacked page,
its dictionary, and buffers that grow by doubling."""
_BUFFER = 4 * 2**20
_MOST_AHEAD = 64 * 2**20
"""Most bytes that are read from object storage at once. pyarrow holds all of them until the last
image has been read."""
_HEADER, _MOST_HEADER = 16 * 2**10, 2**20
"""Bytes that are read for the header of a page, at first and at most; it may hold statistics."""
_MOST_STRUCTURES = 100
"""Most structures in the header of a page."""
_READERS = 16

# numbers of fields in parquet.thrift: sizes of a page, and how many values of which encoding it has
_PAGE = {2: int, 3: int, 5: {1: int, 2: int}, 7: {1: int, 2: int}, 8: {1: int, 4: int}}
_ENCODING = {5: 2, 7: 2, 8: 4}
_PLAIN, _DICTIONARIES = 0, (2, 8)

ReadAt = Callable[[int, int], bytes]
"""Called with a position and a size; returns these bytes of a file."""


class ParquetPiece(RowsPiece):
    """Ranges of rows of Parquet files."""

    def read(self) -> Iterator[Item]:
        for part in self.parts:
            yield from _rows(part)


def row_groups(path: str) -> list[int]:
    """Rows of each row group of the file; raises DataError if it is not sound."""
    with _sound(path), storage.open_file(path) as file:
        return list(footers.read(file, path).rows)


def _rows(part: Rows) -> Iterator[Item]:
    path, start, stop = part
    row = start
    with _sound(path), storage.open_file(path) as file:
        footer = footers.read(file, path)
        chosen: list[int] = []
        first = 0
        for group, rows in enumerate(footer.rows):
            if first < stop and first + rows > start:
                if not chosen:
                    row = first
                chosen.append(group)
            first += rows
        if not chosen:
            raise DataError(f"{shown(path)}: has changed while it was read")
        chunks = [chunk for group in chosen for chunk in footer.chunks[group]]
        # an image without bytes may be in the file that its path names
        with_names = any(chunk.nulls != 0 for chunk in chunks if chunk.is_images)
        if not with_names:
            chunks = [chunk for chunk in chunks if chunk.is_images]
        at_a_time = _rows_at_once(file, path, chunks)
        ahead = is_address(path) and sum(c.stop - c.start for c in chunks) <= _MOST_AHEAD
        opened = _batches(file, footer, chosen, at_a_time, with_names=with_names, ahead=ahead)
        for column, names in opened:
            first, last = max(0, start - row), min(len(column), stop - row)
            cells = column[first:last]
            places = (f"{path}, row {row + index}" for index in range(first, last))
            if names is None:
                yield from map(_item, places, cells)
            else:
                rows_ = list(zip(places, cells, names[first:last], strict=True))
                yield from at_once(partial(_image, path), rows_, path)
            row += len(column)
            if row >= stop:
                return
    raise DataError(f"{shown(path)}: ends at row {row}, of {stop} that its row groups claim")


def _batches(
    file: BinaryIO, footer: Footer, groups: list[int], rows: int, *, with_names: bool, ahead: bool
) -> Iterator[tuple[Any, Any]]:
    """pyarrow arrays of the images' bytes and of their file names, ``rows`` at a time.

    ``ahead``: all bytes of ``groups`` are read first, which takes few requests; else they are read
    as they are needed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(footer.written), arrow_extensions_enabled=False) as empty:
        metadata = empty.metadata
    file.seek(0)
    with pq.ParquetFile(
        file,
        metadata=metadata,
        pre_buffer=ahead,
        buffer_size=_BUFFER,
        arrow_extensions_enabled=False,
    ) as table:
        columns = ["image" if with_names else footer.images]
        for batch in table.iter_batches(rows, row_groups=groups, columns=columns):
            column = batch.column(0)
            if not pa.types.is_struct(column.type):
                yield column, None
            elif with_names and "path" in column.type.names:
                yield column.field("bytes"), column.field("path")
            else:
                yield column.field("bytes"), None


def _item(where: str, cell: Any) -> Item:
    data: bytes = cell.as_py() or b""
    if len(data) > MAX_BYTES:
        return where, UnusableError(where, f"has more than {MAX_BYTES:,} bytes")
    return where, data


def _image(table: str, row: tuple[str, Any, Any]) -> Item:
    """The image of a ``row`` (where it is, its bytes, its path), from its bytes or the file."""
    where, cell, name_cell = row
    if cell.as_buffer() or not (named := name_cell.as_py()):
        return _item(where, cell)
    name, folder = named.decode(errors="replace"), table.rpartition("/")[0]
    said = f"holds no image bytes, and its path {shown(name, 100)!r}"
    if not _is_below(name, folder):
        reason = (
            f"{said} does not lie in the table's folder; put the images there, or write their "
            "bytes into the table"
        )
        return where, UnusableError(where, reason)
    file = f"{folder}/{name}"
    try:
        if not is_address(file) and not Path(file).is_file():  # a pipe would be waited for
            raise FileNotFoundError(file)
        return where, storage.read(file, MAX_BYTES)
    except FileNotFoundError:
        return where, UnusableError(where, f"{said} is no file in the table's folder")
    except ValueError as error:  # too large
        return where, UnusableError(where, f"{said} has {error}")
    except OSError as error:
        # without the cause, so that `retrying` does not try the whole piece again
        raise DataError(f"{shown(file)}: cannot be read ({shown(error)})") from None


def _is_below(name: str, folder: str) -> bool:
    """Whether ``name`` is a path below ``folder``, also when symbolic links are followed."""
    if {"", ".", ".."} & set(name.split("/")) or set(name) & set("\\\0?#") or ":" in name:
        return False
    if is_address(folder):
        return True
    return Path(os.path.realpath(f"{folder}/{name}")).is_relative_to(os.path.realpath(folder))


def _rows_at_once(file: BinaryIO, path: str, chunks: list[Chunk]) -> int:
    """How many rows fit into memory, whatever the pages of ``chunks`` unpack to.

    The header of each page is read for this. The footer does not tell the size of the pages, and
    one value of a dictionary may be in every row. Raises DataError for pages that only a crafted
    file has.
    """
    if is_address(path):
        opened: Any = file  # pyarrow's, which several threads may read
        with ThreadPoolExecutor(_READERS) as pool:  # a round trip each
            sizes = pool.map(
                lambda chunk: _largest_page(lambda at, n: opened.read_at(n, at), path, chunk),
                chunks,
            )
            largest = max(sizes)
    else:

        def read(at: int, size: int) -> bytes:
            file.seek(at)
            return file.read(size)

        largest = max(_largest_page(read, path, chunk) for chunk in chunks)
    return max(1, min(_BATCH, _MOST_AT_ONCE // max(1, largest)))


def _largest_page(read: ReadAt, path: str, chunk: Chunk) -> int:
    at, largest = chunk.start, 0
    while at < chunk.stop:
        header, length = _page(read, at, min(chunk.stop - at, _MOST_HEADER))
        size, packed = header.get(2, -1), header.get(3, -1)
        if size < 0 or not 0 <= packed <= chunk.stop - at - length:
            raise ValueError("a page is larger than its column")
        if size > max(_PLAUSIBLE * packed, MAX_PAGE):
            raise DataError(
                f"{shown(path)}: a page claims to unpack {packed:,} bytes of images to {size:,}, "
                f"and more than {_PLAUSIBLE} times as much is not believed; write the table again "
                "with smaller pages (pyarrow: data_page_size, use_dictionary=False)"
            )
        for kind in _ENCODING.keys() & header.keys():
            encoding = header[kind].get(_ENCODING[kind])
            if encoding != _PLAIN and encoding not in _DICTIONARIES:
                raise DataError(
                    f"{shown(path)}: its images are stored by encoding {encoding} of Parquet; only "
                    "plain and dictionary encoding are read: write the table again with these "
                    "(pyarrow's default)"
                )
        # each value of a dictionary takes memory
        if 7 in header and not 0 <= header[7].get(1, -1) <= size // 4:
            raise ValueError("a dictionary claims more values than it has bytes")
        at, largest = at + length + packed, max(largest, size)
    return largest


def _page(read: ReadAt, at: int, most: int) -> tuple[dict[int, Any], int]:
    """The header of the page at ``at``, and the length of the header."""
    for size in (_HEADER, _MOST_HEADER):
        reader = thrift.Reader(read(at, min(size, most)), _MOST_STRUCTURES)
        try:
            return reader.struct(_PAGE), reader.at
        except ValueError:
            if size >= most or size == _MOST_HEADER:
                raise
    raise AssertionError


@contextlib.contextmanager
def _sound(path: str) -> Iterator[None]:
    """Turn the exceptions that a damaged file causes into a DataError that names ``path``."""
    from pyarrow import ArrowException

    try:
        yield
    except DataError:
        raise
    except (ArrowException, OSError, ValueError, ArithmeticError, MemoryError, TypeError,
            LookupError) as error:  # fmt: skip
        reason = shown(" ".join(str(error).split()), 300)
        raise DataError(f"{shown(path)}: not a readable Parquet file ({reason})") from error
