"""Ranges of a source that are decoded independently of each other, wherever that is.

A piece names its images in a fixed order; so what comes of a source does not depend on who decodes
which piece when. Pieces are small and can be sent to other processes.
"""

from __future__ import annotations

import contextlib
import functools
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from raygan.data import files
from raygan.data.decode import MAX_BYTES, Pixels
from raygan.errors import DataError

Item = tuple[str, "bytes | Pixels"]
"""Where an image lies, and its encoded bytes or its pixels [H, W, C]; no bytes: unusable."""

LMDB_FILE = "data.mdb"
_REQUESTS = 16
"""Files that are fetched from object storage at a time."""


class Piece(Protocol):
    """A range of a source."""

    @property
    def count(self) -> int:
        """How many images it has."""

    @property
    def path(self) -> str:
        """The file or folder that it lies in."""

    def read(self) -> Iterator[Item]:
        """Its images in order; raises DataError naming the file that cannot be read."""


class Part(NamedTuple):
    """Rows ``start`` … ``stop`` of a file."""

    path: str
    start: int
    stop: int


def ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """0 … ``count`` cut into ranges of ``size``, the last one shorter."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


@dataclass(frozen=True)
class DigitsPiece:
    """A range of scikit-learn's handwritten digits."""

    start: int
    stop: int
    path: str = "digits"

    @property
    def count(self) -> int:
        return self.stop - self.start

    def read(self) -> Iterator[Item]:
        from sklearn.datasets import load_digits

        for index, values in enumerate(load_digits().images[self.start : self.stop]):  # 0…16
            pixels = (values * (255 / 16)).round().astype(np.uint8)
            yield f"digits, {self.start + index}", pixels[:, :, None]


@dataclass(frozen=True)
class FilesPiece:
    """Files of one image each."""

    path: str
    files: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.files)

    def read(self) -> Iterator[Item]:
        if not files.is_address(self.path):
            yield from map(_file, self.files)
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for start, stop in ranges(self.count, 4 * _REQUESTS):
                yield from pool.map(_file, self.files[start:stop])


def _file(path: str) -> Item:
    try:
        return path, files.read(path, MAX_BYTES)
    except ValueError:  # too large
        return path, b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


@dataclass(frozen=True)
class ZipPiece:
    """Entries of a zip archive."""

    path: str
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    def read(self) -> Iterator[Item]:
        archive = _archive(self.path)
        for name in self.names:
            where = f"{self.path}, {name}"
            try:
                entry = archive.getinfo(name)
                large = entry.file_size > MAX_BYTES  # zipfile reads no more than that
                yield where, b"" if large else archive.read(entry)
            except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, KeyError,
                    ValueError) as error:  # fmt: skip
                if "checksum" in str(error) or "CRC" in str(error):
                    yield where, b""
                    continue
                raise DataError(f"{where}: cannot be unpacked ({error})") from error
            except OSError as error:
                raise DataError(f"{self.path}: cannot be read ({error})") from error


@functools.lru_cache(maxsize=2)
def _archive(path: str) -> zipfile.ZipFile:
    """Kept open: the table of contents of 200,000 entries takes a second to read."""
    try:
        return zipfile.ZipFile(files.retrying(lambda: files.open_file(path), path))
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable zip archive ({error})") from error


def zip_names(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the archive's images, in order; hidden ones are left out."""
    entries = _archive(path).infolist()
    names = {e.filename for e in entries if e.filename.lower().endswith(suffixes)}
    return sorted(name for name in names if not name.startswith("__MACOSX"))


@dataclass(frozen=True)
class LmdbPiece:
    """A range of an LMDB database's values, from the key ``first`` on."""

    path: str
    first: bytes
    count: int

    def read(self) -> Iterator[Item]:
        with open_lmdb(self.path) as transaction:
            cursor = transaction.cursor()
            found = cursor.set_range(self.first)
            for _ in range(self.count):
                if not found:
                    raise DataError(f"{self.path}: has changed while it was read")
                value = cursor.value()
                name = cursor.key().decode(errors="backslashreplace")
                yield f"{self.path}, {name}", value if len(value) <= MAX_BYTES else b""
                found = cursor.next()


def lmdb_keys(path: str, size: int) -> Iterator[tuple[bytes, int]]:
    """The first key and the count of each range of ``size`` values."""
    with open_lmdb(path) as transaction:
        first, count = b"", 0
        for key in transaction.cursor().iternext(values=False):
            first = key if count == 0 else first
            count += 1
            if count == size:
                yield first, count
                count = 0
        if count:
            yield first, count


@contextlib.contextmanager
def open_lmdb(path: str) -> Iterator[Any]:
    """A read transaction on the LMDB folder; raises DataError if it cannot be read."""
    try:
        import lmdb
    except ImportError as error:
        raise DataError(
            f"{path}: reading LMDB needs the package lmdb; pip install 'raygan[lsun]'"
        ) from error
    try:
        # no lock file: the folder may be read-only, and nobody writes
        with lmdb.open(path, readonly=True, lock=False, readahead=False) as env:
            pages, size = env.info()["last_pgno"] + 1, env.stat()["psize"]
            found = (Path(path) / LMDB_FILE).stat().st_size
            if found < pages * size:  # reading what is missing would kill the process
                raise DataError(
                    f"{path}: {LMDB_FILE} is truncated, {found:,} bytes of {pages * size:,}"
                )
            with env.begin() as transaction:
                yield transaction
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{path}: not a readable LMDB folder ({error})") from error


def cut(parts: Iterable[tuple[str, int, int]], size: int) -> Iterator[tuple[Part, ...]]:
    """Parts (file, first, count) that are best read whole → groups of at most ``size`` images."""
    group: list[Part] = []
    room = size
    for path, start, count in parts:
        if count > room and group:
            yield tuple(group)
            group, room = [], size
        while count > room:  # too large to be read whole
            yield (Part(path, start, start + room),)
            start, count = start + room, count - room
        if not count:
            continue
        if group and group[-1].path == path and group[-1].stop == start:
            group[-1] = Part(path, group[-1].start, start + count)
        else:
            group.append(Part(path, start, start + count))
        room -= count
    if group:
        yield tuple(group)
