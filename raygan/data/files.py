"""Files of a source: on a local disk, or in object storage through pyarrow (or fsspec)."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import Any, BinaryIO, TypeVar, cast

from raygan.addresses import is_address as is_address
from raygan.errors import ConfigError, DataError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT = 0.5
"""Seconds before the second attempt to reach object storage; doubled each time."""
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EISDIR, errno.ENOTDIR}
_WILD = frozenset("*?[")
_CHUNK = 2**23


@dataclass(frozen=True)
class File:
    """A file below a source's root; ``name`` is relative to that, ``stamp`` its time in ns."""

    path: str
    name: str
    size: int
    stamp: int


def retrying(action: Callable[[], T], path: str = "") -> T:
    """``action()``; if object storage at the address ``path`` does not answer, some more times.

    What asking again would not change is raised at once: a missing file, a full disk, any error
    of a local path.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (OSError, DataError) as error:
            cause = error.__cause__ if isinstance(error, DataError) else error
            again = isinstance(cause, OSError) and not isinstance(
                cause, FileNotFoundError | PermissionError | IsADirectoryError
            )
            if not again or not is_address(path) or attempt == ATTEMPTS - 1:
                raise
            if isinstance(cause, OSError) and cause.errno in _FINAL:
                raise
        time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


def local(path: str) -> Path:
    """A local path, its ``~`` expanded; raises DataError if there is no such user."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}") from error


@functools.lru_cache(maxsize=16)
def filesystem(address: str) -> tuple[Any, str]:
    """pyarrow's file system of an address and the path in it.

    Raises :class:`~raygan.errors.ConfigError` if neither pyarrow nor fsspec has one.
    """
    from pyarrow import fs

    try:  # it may have to ask the storage where a bucket is
        opened = retrying(lambda: fs.FileSystem.from_uri(address), address)
        return cast("tuple[Any, str]", opened)
    except ValueError as error:  # pyarrow's words for what it does not know
        problem = error
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path
    except (ImportError, ValueError, OSError) as error:
        raise ConfigError(
            f"{address}: neither pyarrow ({problem}) nor fsspec ({error}) can open it"
        ) from error


def located(address: str) -> tuple[Any, str]:
    """:func:`filesystem` once per scheme and bucket, however many files are opened."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if "?" in key:  # options of the file system
        return filesystem(address)
    found, root = filesystem(f"{scheme}://{bucket}/")
    return found, f"{root.rstrip('/')}/{key}".rstrip("/") or "/"


def listing(path: str) -> list[File]:
    """The files below the folder ``path``, or ``path`` itself, or what it matches as a glob.

    Ordered by the parts of their names; hidden ones are left out. Raises
    :class:`~raygan.errors.DataError` if there is nothing at ``path``.
    """
    try:
        if is_address(path):
            found = retrying(lambda: _remote_listing(path), path)
        else:
            found = _local_listing(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder; check `dataset.path`") from error
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    kept = [file for file in found if is_shown(file.name)]
    return sorted(kept, key=lambda file: PurePosixPath(file.name).parts)


def is_shown(name: str) -> bool:
    """Whether no part of ``name`` is hidden, nor macOS's own."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _local_listing(path: str) -> list[File]:
    root = local(path)
    if not root.exists() and _WILD & set(path):
        names = sorted(glob.glob(str(root), recursive=True))  # noqa: PTH207 - of an absolute path
        if not names:
            raise FileNotFoundError(path)
        base = _before_wild(str(root))
        entries = (_entry(name, name.removeprefix(f"{base}/")) for name in names)
        return [file for file in entries if file is not None]
    if not root.is_dir():
        stat = root.stat()
        return [File(str(root), root.name, stat.st_size, stat.st_mtime_ns)]
    found: list[File] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise error

    for folder, inner, names in os.walk(root, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # links may lead in a circle
            inner.clear()
            continue
        seen.add(real)
        inside = Path(folder).relative_to(root).as_posix()
        for name in names:
            relative = name if inside == "." else f"{inside}/{name}"
            if (file := _entry(f"{folder}/{name}", relative)) is not None:
                found.append(file)
    return found


def _entry(path: str, name: str) -> File | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a Path per file costs more than the call
    except FileNotFoundError:  # a dangling link, or gone meanwhile
        return None
    if S_ISDIR(stat.st_mode):  # that a glob matches
        return None
    return File(path, name, stat.st_size, stat.st_mtime_ns)


def _before_wild(path: str) -> str:
    """The folder below which the files that the glob ``path`` matches lie; else ``path``."""
    wild = next((i for i, char in enumerate(path) if char in _WILD), None)
    return path if wild is None else path[:wild].rpartition("/")[0]


def _remote_listing(address: str) -> list[File]:
    from pyarrow import fs

    address = address.rstrip("/")
    base = _before_wild(address)
    found, path = located(base)
    prefix = base.removesuffix(path)  # scheme

    def file(info: Any, name: str) -> File:
        return File(f"{prefix}{info.path}", name, info.size or 0, info.mtime_ns or 0)

    (root,) = found.get_file_info([path])
    if root.type == fs.FileType.File:
        return [file(root, root.base_name)]
    if root.type != fs.FileType.Directory:
        raise FileNotFoundError(address)
    infos = found.get_file_info(fs.FileSelector(path, recursive=True))
    files = [
        file(info, info.path.removeprefix(path).lstrip("/"))
        for info in infos
        if info.type == fs.FileType.File
    ]
    if base == address:
        return files
    files = [f for f in files if fnmatchcase(f.path, address.replace("/**/", "/*"))]
    if not files:
        raise FileNotFoundError(address)
    return files


def read(path: str, limit: int) -> bytes:
    """The file's bytes; raises OSError, or ValueError if there are more than ``limit``."""

    def attempt() -> bytes:
        with open_file(path) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"more than {limit:,} bytes")
        return data

    return retrying(attempt, path)


def write(path: str, data: bytes) -> None:
    """Write a small file, whole or not at all; raises OSError."""
    if is_address(path):
        retrying(lambda: _put(data, path), path)
        return
    target = Path(path)
    aside = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)


def send(file: Path, address: str) -> None:
    """Put a local file to an address; raises OSError."""
    retrying(lambda: _put(file, address), address)


def _put(data: bytes | Path, address: str) -> None:
    found, inside = located(address)
    with found.open_output_stream(inside) as target:
        if isinstance(data, bytes):
            target.write(data)
        else:
            with data.open("rb") as source:
                shutil.copyfileobj(source, target, _CHUNK)


def remove(path: str) -> None:
    """Remove a file, if it is there; raises OSError."""
    if not is_address(path):
        Path(path).unlink(missing_ok=True)
        return
    found, inside = located(path)

    def attempt() -> None:
        with contextlib.suppress(FileNotFoundError):
            found.delete_file(inside)

    retrying(attempt, path)


def open_file(path: str) -> BinaryIO:
    """The file at ``path``, open for reading at any place."""
    if not is_address(path):
        return Path(path).open("rb")
    found, inside = located(path)
    return cast("BinaryIO", found.open_input_file(inside))


def exists(path: str) -> bool:
    """Whether there is a file or folder at ``path``.

    Raises :class:`~raygan.errors.DataError` if that cannot be found out.
    """

    def attempt() -> bool:
        from pyarrow import fs

        found, inside = located(path)
        (info,) = found.get_file_info([inside])
        return bool(info.type != fs.FileType.NotFound)

    try:
        return retrying(attempt, path) if is_address(path) else local(path).exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
