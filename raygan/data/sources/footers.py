"""The footer of a Parquet file, checked and reduced to its column of images.

pyarrow does not get the file's own footer, but one that is written here from checked numbers. So
it sees neither the other columns nor the Arrow schema of the file. The extension types of such a
schema would pass metadata to code that is registered in this process, and some of that code
unpickles it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, BinaryIO

from raygan.data.sources import thrift
from raygan.data.sources.thrift import BINARY, I32, I64, LIST, STRUCT
from raygan.errors import DataError
from raygan.shown import shown

IMAGE_COLUMNS = ("image", "img")
MAX_ROWS = 2**32
"""Most rows of a row group."""
MAX_FOOTER = 16 * 2**20
MAX_STRUCTURES = 2**20
"""Most structures in a footer, which has three per column of each row group."""
_END = b"PAR1"

_BYTE_ARRAY, _REPEATED = 6, 2
_PHYSICAL = ("bool", "int32", "int64", "int96", "float", "double", "binary", "fixed_size_binary")
_CONVERTED = {0: "string", 1: "map", 2: "map", 3: "list", 4: "enum", 5: "decimal", 19: "json"}
_LOGICAL = {1: "string", 2: "map", 3: "list", 4: "enum", 5: "decimal", 12: "json", 13: "bson"}

# numbers of fields in parquet.thrift
_TYPE, _REPETITION, _NAME, _CHILDREN, _CONVERTED_TYPE, _LOGICAL_TYPE = 1, 3, 4, 5, 6, 10
_ELEMENT = {
    _TYPE: int,
    _REPETITION: int,
    _NAME: bytes,
    _CHILDREN: int,
    _CONVERTED_TYPE: int,
    _LOGICAL_TYPE: {number: {} for number in _LOGICAL},
}
_META = {1: int, 4: int, 5: int, 6: int, 7: int, 9: int, 11: int, 12: {3: int}}
_GROUP = {1: [{3: _META}], 3: int}
_FILE = {2: [_ELEMENT], 3: int, 4: [_GROUP]}


@dataclass(frozen=True)
class Chunk:
    """The pages of a column in a row group: bytes ``start`` … ``stop`` of the file."""

    start: int
    stop: int
    is_images: bool
    """Whether the values are images; otherwise they are paths of images."""
    nulls: int | None
    """Rows without a value; None if the file does not say."""


@dataclass(frozen=True)
class Footer:
    """The part of a footer that is used: the column of images."""

    rows: tuple[int, ...]
    """Rows of each row group."""
    chunks: tuple[tuple[Chunk, ...], ...]
    """By row group: the chunk of the images' bytes and, if there is one, that of their paths."""
    images: str
    """The name of the images' bytes in pyarrow."""
    written: bytes
    """A Parquet file without pages that holds the footer for pyarrow: one column ``image`` of
    bytes, or of a struct with the fields ``bytes`` and perhaps ``path``."""


def read(file: BinaryIO, path: str) -> Footer:
    """The footer of an open file; raises DataError or OSError."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    if len(tail) < 8 or tail[4:] != _END:
        raise ValueError("its end is not that of a Parquet file")
    length = int.from_bytes(tail[:4], "little")
    if length > min(size - 8, MAX_FOOTER):
        raise ValueError(f"its footer claims {length:,} bytes")
    file.seek(size - 8 - length)
    return _checked(file.read(length), size - 8 - length, path)


@functools.lru_cache(maxsize=8)  # each piece of a file opens it anew
def _checked(data: bytes, end_of_pages: int, path: str) -> Footer:
    footer = thrift.Reader(data, MAX_STRUCTURES).struct(_FILE)
    groups = footer.get(4, [])
    rows = tuple(group.get(3, -1) for group in groups)
    if any(not 0 <= count <= MAX_ROWS for count in rows) or sum(rows) != footer.get(3):
        raise DataError(
            f"{shown(path)}: its row groups of {str(rows[:5])[:99]} … rows are not the "
            f"{footer.get(3)} that it claims to have"
        )
    schema, columns = _column(footer.get(2, []), path)
    chunks, written = [], []
    for group, count in zip(groups, rows, strict=True):
        metas = [(names, _meta(group, column, count)) for names, column in columns]
        chunks.append(tuple(_chunk(*meta, end_of_pages) for meta in metas))
        written.append(_group(metas, count))
    reduced = thrift.struct(
        (1, I32, 2), (2, LIST, (STRUCT, schema)), (3, I64, sum(rows)), (4, LIST, (STRUCT, written))
    )
    whole = _END + reduced + len(reduced).to_bytes(4, "little") + _END
    return Footer(rows, tuple(chunks), b".".join(columns[0][0]).decode(), whole)


@dataclass(frozen=True)
class _Node:
    """A column, or a field of one."""

    element: dict[int, Any]
    leaf: int
    """Number of the first leaf column in it."""
    fields: tuple[_Node, ...] = ()

    @property
    def name(self) -> str:
        name: bytes = self.element.get(_NAME, b"")
        return name.decode(errors="replace")

    @property
    def kind(self) -> str:
        """Arrow's name of its type."""
        for number in self.element.get(_LOGICAL_TYPE, {}):
            return _LOGICAL[number]
        if (converted := self.element.get(_CONVERTED_TYPE)) is not None:
            return _CONVERTED.get(converted, "no bytes")
        if self.fields:
            return "struct"
        kind = self.element.get(_TYPE, -1)
        return _PHYSICAL[kind] if 0 <= kind < len(_PHYSICAL) else "unknown"

    def written(self, name: bytes, children: int | None = None) -> bytes:
        """The schema element for pyarrow."""
        repetition = self.element.get(_REPETITION)
        if repetition not in (0, 1):
            raise ValueError("its images are lists")
        return thrift.struct(
            (_TYPE, I32, None if children else _BYTE_ARRAY),
            (_REPETITION, I32, repetition),
            (_NAME, BINARY, name),
            (_CHILDREN, I32, children),
        )


def _column(
    elements: list[dict[int, Any]], path: str
) -> tuple[list[bytes], list[tuple[list[bytes], int]]]:
    """The schema of the column of images, and the names and number of each of its leaves."""
    tops = _tops(elements)
    column = next((top for name in IMAGE_COLUMNS for top in tops if top.name == name), None)
    if column is None:
        raise DataError(
            f"{shown(path)}: has no column {' or '.join(IMAGE_COLUMNS)}; it has "
            f"{shown(', '.join(top.name for top in tops[:20]))}"
        )
    root = thrift.struct((_NAME, BINARY, b"schema"), (_CHILDREN, I32, 1))
    images, field = column, ""
    if column.kind == "struct":
        fields = {node.name: node for node in column.fields}
        if "bytes" not in fields:
            raise DataError(f"{shown(path)}: column {column.name} has no field `bytes`")
        images, field = fields["bytes"], ".bytes"
    if images.kind != "binary":
        raise DataError(
            f"{shown(path)}: column {column.name}{field} holds {images.kind}, not image bytes"
        )
    if images is column:
        return [root, column.written(b"image")], [([b"image"], column.leaf)]
    kept = {b"bytes": images}
    if "path" in fields and fields["path"].kind in ("string", "binary"):
        kept[b"path"] = fields["path"]
    schema = [root, column.written(b"image", len(kept))]
    schema += [node.written(name) for name, node in kept.items()]
    return schema, [([b"image", name], node.leaf) for name, node in kept.items()]


def _tops(elements: list[dict[int, Any]]) -> list[_Node]:
    """The top-level columns, with their fields, of a schema that is listed depth first."""
    place, leaf = 1, 0
    tops: list[_Node] = []
    if not elements or elements[0].get(_CHILDREN, 0) > len(elements):
        raise ValueError("it has no schema")
    for _ in range(elements[0].get(_CHILDREN, 0)):
        top, first, fields = elements[place], leaf, []
        place += 1
        waiting = [top.get(_CHILDREN, 0)]  # by open group, outermost first: how many fields follow
        leaf += not waiting[0]
        while waiting:
            if waiting[-1] <= 0:
                waiting.pop()
                continue
            waiting[-1] -= 1
            element = elements[place]
            place += 1
            if len(waiting) == 1:
                fields.append(_Node(element, leaf))
            if element.get(_CHILDREN, 0):
                waiting.append(element[_CHILDREN])
            else:
                leaf += 1
        tops.append(_Node(top, first, tuple(fields)))
    return tops


def _meta(group: dict[int, Any], column: int, rows: int) -> dict[int, Any]:
    metas = group.get(1, [])
    meta: dict[int, Any] = metas[column].get(3, {}) if column < len(metas) else {}
    if not {1, 4, 5, 6, 7, 9} <= set(meta):
        raise ValueError("the description of a column is missing or encrypted")
    if meta[5] != rows or meta[1] != _BYTE_ARRAY:
        raise ValueError("the description of a column contradicts that of its row group")
    return meta


def _chunk(names: list[bytes], meta: dict[int, Any], end_of_pages: int) -> Chunk:
    start, first = meta[9], meta.get(11)
    if first is not None and 0 < first < start:  # its dictionary
        start = first
    if not (len(_END) <= start and 0 <= meta[7] <= end_of_pages - start):
        raise ValueError("a column lies outside of the file")
    nulls = meta.get(12, {}).get(3)
    return Chunk(start, start + meta[7], names[-1] != b"path", nulls)


def _group(metas: list[tuple[list[bytes], dict[int, Any]]], rows: int) -> bytes:
    columns = []
    for names, meta in metas:
        described = thrift.struct(
            (1, I32, _BYTE_ARRAY),
            (2, LIST, (I32, [0])),  # each page says its own
            (3, LIST, (BINARY, names)),
            (4, I32, meta[4]),
            (5, I64, rows),
            (6, I64, meta[6]),
            (7, I64, meta[7]),
            (9, I64, meta[9]),
            (11, I64, meta.get(11)),
        )
        columns.append(thrift.struct((2, I64, 0), (3, STRUCT, described)))
    return thrift.struct((1, LIST, (STRUCT, columns)), (2, I64, 0), (3, I64, rows))
