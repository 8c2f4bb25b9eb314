"""Images in a zip archive and in an LMDB database."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple

from raygan import storage
from raygan.data import files
from raygan.data.decode import MAX_BYTES, UnusableError
from raygan.data.sources.pieces import Item
from raygan.errors import DataError

LMDB_FILE = "data.mdb"
_ENCRYPTED = 1


class Entry(NamedTuple):
    """One file in the table of contents of a zip archive."""

    name: str
    start: int
    method: int
    packed: int
    size: int
    crc: int


@dataclass(frozen=True)
class ZipPiece:
    """Entries of a zip archive, which are read without its table of contents."""

    path: str
    entries: tuple[Entry, ...]

    @property
    def count(self) -> int:
        return len(self.entries)

    def read(self) -> Iterator[Item]:
        try:
            with storage.open_file(self.path) as file:
                for entry in self.entries:
                    yield self._item(entry, file)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from error

    def _item(self, entry: Entry, file: BinaryIO) -> Item:
        where = f"{self.path}, {entry.name}"
        if max(entry.size, entry.packed) > MAX_BYTES:
            return where, UnusableError(where, f"has more than {MAX_BYTES:,} bytes")
        file.seek(entry.start)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise DataError(f"{where}: cannot be unpacked (there is no entry at its offset)")
        file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
        data = file.read(entry.packed)
        if entry.method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
            except zlib.error as error:
                return where, UnusableError(where, f"cannot be unpacked ({error})")
        if len(data) != entry.size or zlib.crc32(data) != entry.crc:
            return where, UnusableError(where, "its size or checksum in the archive is wrong")
        return where, data


def zip_entries(path: str, suffixes: tuple[str, ...]) -> tuple[list[Entry], list[str]]:
    """The archive's images, in the order of their names, and the names of its other files.

    Hidden files are in neither.

    Raises :class:`~raygan.errors.DataError` if it cannot be read or needs a password.
    """
    try:
        with storage.open_file(path) as file, zipfile.ZipFile(file) as archive:
            seen = {
                info.filename: info
                for info in archive.infolist()
                if not info.is_dir() and files.is_shown(info.filename)
            }
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError,
            struct.error) as error:  # fmt: skip
        raise DataError(f"{path}: not a readable zip archive ({error})") from error
    infos = {name: info for name, info in seen.items() if name.lower().endswith(suffixes)}
    for info in infos.values():
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{path}, {info.filename}: needs a password; unpack the archive")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{path}, {info.filename}: is packed by method {info.compress_type}; "
                "only stored and deflated images are read: unpack the archive"
            )
    entries = [
        Entry(
            info.filename,
            info.header_offset,
            info.compress_type,
            info.compress_size,
            info.file_size,
            info.CRC,
        )
        for _, info in sorted(infos.items())
    ]
    return entries, [name for name in seen if name not in infos]


@dataclass(frozen=True)
class LmdbPiece:
    """A range of an LMDB database's values, from the key ``first`` on."""

    path: str
    first: bytes
    count: int

    def read(self) -> Iterator[Item]:
        with open_lmdb(self.path) as transaction:
            cursor = transaction.cursor()
            has_entry = cursor.set_range(self.first)
            for _ in range(self.count):
                if not has_entry:
                    raise DataError(f"{self.path}: has changed while it was read")
                name = cursor.key().decode(errors="backslashreplace")
                yield f"{self.path}, {name}", cursor.value()
                has_entry = cursor.next()


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
        file = Path(path) / LMDB_FILE
        stat = file.stat()
        if not S_ISREG(stat.st_mode):  # a pipe would be waited for
            raise DataError(f"{path}: {LMDB_FILE} is not a file; give an LMDB folder")
        stamp = (stat.st_size, stat.st_mtime_ns, os.getpid())
        # a process may open a folder only once, so it stays open for the next piece
        with _lock:
            known, env = _open_lmdb.get(path, (None, None))
            if env is None or known != stamp:
                if env is not None:
                    env.close()
                # without a lock file: the folder may be read-only, and no process writes to it
                env = lmdb.open(path, readonly=True, lock=False, readahead=False)
                _open_lmdb[path] = stamp, env
        pages, size = env.info()["last_pgno"] + 1, env.stat()["psize"]
        if stat.st_size < pages * size:  # reading beyond the end would kill the process
            raise DataError(
                f"{path}: {LMDB_FILE} is truncated, {stat.st_size:,} bytes of {pages * size:,}"
            )
        with env.begin() as transaction:
            yield transaction
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{path}: not a readable LMDB folder ({error})") from error


_open_lmdb: dict[str, tuple[Any, Any]] = {}
_lock = threading.Lock()
