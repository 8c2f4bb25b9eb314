"""Files on a disk: written whole or not at all, and below a storage folder through no link.

:func:`writing` is the one place where a file is written aside, flushed to the disk and renamed.

A sweep's folder may come from somebody else. A link in it could lead anywhere on this machine, so
that writing through it would replace, and reading through it would publish, files of the user's
that have nothing to do with the sweep. The folder that the user has named may itself be a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

from raygan.errors import RayganError
from raygan.shown import shown

_ASIDE = re.compile(r".+\.[0-9a-f]{32}\.tmp")
"""Names of files that :func:`writing` has not finished."""
_OLD_SECONDS = 4 * 3600.0
"""No write takes so long, even if the clock is set forward by an hour meanwhile: what is left of
one that is older has no owner any more."""


def refuse_links(root: str, path: str) -> None:
    """Raise :class:`~raygan.errors.RayganError` if anything from below ``root`` to ``path`` is a
    link."""
    there = root.rstrip("/")
    for part in filter(None, path.removeprefix(there).split("/")):
        there = f"{there}/{part}"
        try:
            status = os.lstat(there)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISLNK(status.st_mode):
            raise _refusal(there)


def _refusal(path: str) -> RayganError:
    return RayganError(
        f"{shown(path)} is a symbolic link, and raygan follows no links below the storage "
        "folder: replace it by the file or folder itself"
    )


def read(path: str, most: int | None = None) -> bytes | None:
    """The first ``most`` bytes of a file, or all; None if there is none. Raises OSError."""
    # a named pipe would block whoever opens it
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise RayganError(f"{shown(path)} is not a regular file; remove it")
    with os.fdopen(file, "rb") as stream:
        return stream.read(-1 if most is None else most)


@contextlib.contextmanager
def writing(path: str | Path, *, durable: bool = True) -> Iterator[BufferedRandom]:
    """A file to write to and to read back, which takes the place of ``path`` when the block ends.

    Until then, and if the block raises, ``path`` stays as it was: whoever reads it meanwhile, and
    whoever is killed, leaves a whole file. Folders above it are made. ``durable``: after the block,
    the file survives a power cut. Raises OSError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("x+b") as stream:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def write(path: str | Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Put ``data`` in the place of file ``path``, or leave that as it was; raises OSError.

    ``durable``: what this has returned from survives a power cut.
    """
    with writing(path, durable=durable) as stream:
        stream.write(data)


def names(folder: str, *, folders: bool) -> list[str]:
    """Names of the folders in ``folder``, or of the files, sorted; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            kind = os.DirEntry.is_dir if folders else os.DirEntry.is_file
            return sorted(entry.name for entry in entries if kind(entry))
    except FileNotFoundError:
        return []


def remove_leftovers(folder: Path, *, of_one_writer: bool = False) -> None:
    """Remove from ``folder`` what writes of killed processes have left there long ago.

    ``of_one_writer``: nobody else writes to it, so that what has no owner now is removed, too.
    """
    for entry in _entries(folder):
        _remove_if_left(entry, of_one_writer=of_one_writer)


def is_being_written(path: Path) -> bool:
    """Whether :func:`writing` writes to ``path``, a file that it has not finished, in any process.

    It has the file locked, and a lock ends with its process. Without locks, a file is taken for
    being written while it is not old.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:  # it has just been given its name, or somebody else has put it there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return time.time() - os.fstat(file).st_mtime <= _OLD_SECONDS
    finally:
        os.close(file)
    return False


def check_tree(folder: Path) -> None:
    """Remove such leftovers from ``folder`` and all folders in it, and refuse any link there."""
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            if entry.is_symlink():
                raise _refusal(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                _remove_if_left(entry)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _remove_if_left(entry: os.DirEntry[str], *, of_one_writer: bool = False) -> None:
    if not _ASIDE.fullmatch(entry.name):
        return
    try:
        status = entry.stat(follow_symlinks=False)
        left = time.time() - status.st_mtime > _OLD_SECONDS or (
            of_one_writer and not is_being_written(Path(entry.path))
        )
        if stat.S_ISREG(status.st_mode) and left:
            Path(entry.path).unlink()
    except OSError:  # nothing depends on it
        return


def _sync(folder: Path) -> None:
    """Bring renames in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
