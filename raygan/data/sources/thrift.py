"""Thrift's compact protocol, in which Parquet stores its footer and the headers of its pages.

raygan reads them itself to check them before pyarrow sees anything, and writes what it has checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(3, 13)
_BOOLS = (1, 2)
_MOST_NESTED = 32
_MOST_FIELDS = 1000

Wanted = Any
"""What is kept of a value: ``int`` or ``bytes``, ``[Wanted]`` for a list of such values, or
``{field number: Wanted}`` for a structure, whose other fields are left out."""


class Reader:
    """Reads structures from ``data``; raises ValueError if it ends early or is malformed.

    ``most``: most structures that it may hold. A structure takes far more memory than bytes.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._left = data, most
        self.at = 0

    def struct(self, wanted: dict[int, Wanted], depth: int = 0) -> dict[int, Any]:
        """The ``wanted`` fields of the next structure, by their numbers."""
        values: dict[int, Any] = {}
        for field, kind in self._fields():
            if field in wanted:
                values[field] = self._value(kind, wanted[field], depth)
            else:
                self._skip(kind, depth)
        return values

    def _fields(self) -> Iterator[tuple[int, int]]:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has too many structures")
        field = 0
        while (head := self._take(1)[0]) & 15:
            field = field + (head >> 4) if head >> 4 else self._signed()
            if not 0 <= field <= _MOST_FIELDS:
                raise ValueError(f"it has a field of number {field}")
            yield field, head & 15

    def _value(self, kind: int, wanted: Wanted, depth: int) -> Any:
        if kind == STRUCT and isinstance(wanted, dict):
            return self.struct(wanted, depth + 1)
        if kind == LIST and isinstance(wanted, list):
            size, element = self._list()
            return [self._value(element, wanted[0], depth + 1) for _ in range(size)]
        if kind in (I32, I64) and wanted is int:
            value = self._signed()
            if kind == I32 and not -(2**31) <= value < 2**31:
                raise ValueError(f"it has {value} where 32 bits should be")
            return value
        if kind == BINARY and wanted is bytes:
            return self._take(self._number())
        raise ValueError(f"it has a value of another type ({kind}) than it should have")

    def _skip(self, kind: int, depth: int, *, in_list: bool = False) -> None:
        if depth > _MOST_NESTED:
            raise ValueError("it is nested too deeply")
        if kind in (I16, I32, I64):
            self._number()
        elif kind == BINARY:
            self._take(self._number())
        elif kind == STRUCT:
            for _, inner in self._fields():
                self._skip(inner, depth + 1)
        elif kind in (LIST, SET):
            size, element = self._list()
            for _ in range(size):
                self._skip(element, depth + 1, in_list=True)
        elif kind in _BOOLS:
            self._take(1 if in_list else 0)  # the value of a field is in its type
        elif kind in (BYTE, DOUBLE):
            self._take(1 if kind == BYTE else 8)
        else:  # Parquet has no maps
            raise ValueError(f"it has a value of the unknown type {kind}")

    def _list(self) -> tuple[int, int]:
        head = self._take(1)[0]
        size = head >> 4 if head >> 4 < 15 else self._number()
        if size > len(self._data) - self.at:  # each element takes a byte at least
            raise ValueError("it ends early")
        return size, head & 15

    def _take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self._data):
            raise ValueError("it ends early")
        return self._data[start : self.at]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("it has a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)


def struct(*fields: tuple[int, int, Any]) -> bytes:
    """A structure of ``fields`` (number, type, value), in the order of their numbers.

    Fields whose value is None are left out. The value of a structure is its bytes; the value of a
    list is (type of its elements, elements).
    """
    last, out = 0, b""
    for field, kind, value in fields:
        if value is not None:
            out += bytes([(field - last) << 4 | kind]) + _written(kind, value)
            last = field
    return out + b"\0"


def _written(kind: int, value: Any) -> bytes:
    if kind in (I32, I64):
        return _varint(value << 1 ^ value >> 63)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == LIST:
        element, values = value
        head = bytes([15 << 4 | element]) + _varint(len(values))
        return head + b"".join(_written(element, item) for item in values)
    return bytes(value)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
