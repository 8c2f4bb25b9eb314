"""Pieces: ranges of a source that are decoded independently of each other, in any process.

The images of a piece have a fixed order, so that the prepared set does not depend on where and when
pieces are decoded. Pieces are small and can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from raygan import storage
from raygan.addresses import is_address
from raygan.data.decode import MAX_BYTES, Pixels, UnusableError
from raygan.errors import DataError

T = TypeVar("T")

Item = tuple[str, "bytes | Pixels | UnusableError"]
"""Where an image is; and its encoded bytes, its pixels [H, W, C], or why it cannot be used."""

_REQUESTS = 16
"""Files that are read from object storage at the same time."""


class Piece(Protocol):
    """A range of a source."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def path(self) -> str:
        """The file or folder that holds it."""

    def read(self) -> Iterator[Item]:
        """The images in order; raises DataError naming a file that cannot be read."""


class Rows(NamedTuple):
    """Rows ``start`` … ``stop`` of a file."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class RowsPiece:
    """Ranges of rows of files; the base of pieces of tables."""

    path: str
    parts: tuple[Rows, ...]

    @property
    def count(self) -> int:
        return sum(part.stop - part.start for part in self.parts)


def ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """0 … ``count`` cut into ranges of ``size``, the last one shorter."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def at_once(read: Callable[[T], Item], items: Sequence[T], path: str) -> Iterator[Item]:
    """``read`` of each item in order; several at a time if ``path`` is an address."""
    if not is_address(path):
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(_REQUESTS)
    try:
        for start, stop in ranges(len(items), 4 * _REQUESTS):
            yield from pool.map(read, items[start:stop])
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class FilesPiece:
    """Files of one image each."""

    path: str
    files: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.files)

    def read(self) -> Iterator[Item]:
        yield from at_once(_file, self.files, self.path)


def _file(path: str) -> Item:
    try:
        return path, storage.read(path, MAX_BYTES)
    except ValueError as error:  # too large
        return path, UnusableError(path, f"has {error}")
    except OSError as error:
        # without the cause, so that `retrying` does not try the whole piece again
        raise DataError(f"{path}: cannot be read ({error})") from None


def cut(parts: Iterable[tuple[str, int, int]], size: int) -> Iterator[tuple[Rows, ...]]:
    """Group ``parts`` (file, first row, count) into groups of at most ``size`` images.

    A part is cut only if it is larger than ``size``, since parts are best read whole.
    """
    group: list[Rows] = []
    room = size
    for path, start, count in parts:
        if count > room and group:
            yield tuple(group)
            group, room = [], size
        while count > room:  # too large to be read whole
            yield (Rows(path, start, start + room),)
            start, count = start + room, count - room
        if not count:
            continue
        if group and group[-1].path == path and group[-1].stop == start:
            group[-1] = Rows(path, group[-1].start, start + count)
        else:
            group.append(Rows(path, start, start + count))
        room -= count
    if group:
        yield tuple(group)
