"""Files of a source: what is found at a folder, a file or a glob, local or in object storage."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

from raygan import storage
from raygan.addresses import is_address
from raygan.errors import ConfigError, DataError
from raygan.retries import retrying

_WILD = frozenset("*?[")


@dataclass(frozen=True)
class File:
    """A file below a source's root; ``name`` is relative to that, ``stamp`` its time in ns."""

    path: str
    name: str
    size: int
    stamp: int


def listing(path: str) -> list[File]:
    """The files below the folder ``path``, or ``path`` itself, or what it matches as a glob.

    In a glob, ``*``, ``?`` and ``[…]`` match within one part of a path; the part ``**`` matches any
    number of folders and, at the end, all files below. What lies at ``path`` itself is no glob. The
    files are ordered by the parts of their names; hidden ones, pipes and the like are left out.
    Raises :class:`~raygan.errors.DataError` if there is nothing at ``path``.
    """
    try:
        if is_address(path):
            every = retrying(lambda: _remote_listing(path), path)
        else:
            every = _local_listing(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder; check `dataset.path`") from error
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    kept = [file for file in every if is_shown(file.name)]
    return sorted(kept, key=lambda file: PurePosixPath(file.name).parts)


def is_shown(name: str) -> bool:
    """Whether no part of ``name`` is hidden, nor macOS's own."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _local_listing(path: str) -> list[File]:
    root = storage.local(path)
    if not root.exists() and _WILD & set(path):
        # a set, since two `**` find a file several times
        names = sorted(set(glob.glob(str(root), recursive=True)))  # noqa: PTH207 - it is absolute
        if not names:
            raise FileNotFoundError(path)
        base = _before_wild(str(root))
        entries = (_entry(name, name.removeprefix(f"{base}/")) for name in names)
        return [file for file in entries if file is not None]
    if not root.is_dir():
        stat = root.stat()
        if not S_ISREG(stat.st_mode):
            raise DataError(
                f"{path}: is neither a file nor a folder, but perhaps a pipe; give a folder, a "
                "file or a glob in `dataset.path`"
            )
        return [File(str(root), root.name, stat.st_size, stat.st_mtime_ns)]
    every: list[File] = []
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
                every.append(file)
    return every


def _entry(path: str, name: str) -> File | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a Path per file costs more than the call
    except FileNotFoundError:  # a dangling link, or gone meanwhile
        return None
    if not S_ISREG(stat.st_mode):  # a folder that a glob matches; a pipe would be waited for
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
    if base != address and "?" not in address and storage.exists(address):
        base = address
    filesystem, path = storage.located(base)
    prefix = base.removesuffix(path)  # scheme

    def file(info: Any, name: str) -> File:
        return File(f"{prefix}{info.path}", name, info.size or 0, info.mtime_ns or 0)

    (root,) = filesystem.get_file_info([path])
    if root.type == fs.FileType.File:
        return [file(root, root.base_name)]
    if root.type != fs.FileType.Directory:
        raise FileNotFoundError(address)
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = [
        file(info, info.path.removeprefix(path).lstrip("/"))
        for info in infos
        if info.type == fs.FileType.File
    ]
    if base == address:
        return files
    pattern = address.removeprefix(base).strip("/").split("/")
    files = [file for file in files if _matches(file.name.split("/"), pattern)]
    if not files:
        raise FileNotFoundError(address)
    return files


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether the glob ``pattern`` takes a file, as on a disk; both are given part by part."""
    if not parts or not pattern:
        return not parts and not pattern
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def exists(path: str) -> bool:
    """Whether there is a file or folder at ``path``.

    Raises :class:`~raygan.errors.DataError` if that cannot be found out.
    """
    try:
        return storage.exists(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
