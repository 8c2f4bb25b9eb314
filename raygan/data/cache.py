"""Local copies of prepared sets from object storage: one per node, shared by its processes."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raygan import local_files, storage
from raygan.data import files
from raygan.errors import DataError
from raygan.retries import retrying
from raygan.shown import shown

CAP_BYTES = 500 * 2**30
"""Default limit of the bytes of all copies on a node."""

_AT_ONCE = 8
_CHUNK = 2**23
_ROOT = 0
_USED = ".used"
_NEXT = 10**9  # some file systems keep whole seconds
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# stays open until this process ends, since the process may have mapped the files
_in_use: dict[Path, BinaryIO] = {}


def localize(
    uri: str,
    cache: Path,
    cap_bytes: int = CAP_BYTES,
    *,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """A folder under ``cache`` with a copy of the folder at ``uri``; copied if it is not there.

    The first process of the node copies; the others wait. The copy gets its name when it is
    complete and ``check``, which raises if it is wrong, has accepted it. It is not evicted until
    this process ends. To keep ``cache`` below ``cap_bytes``, copies that no process uses are
    deleted, the least recently used first.

    ``cache`` must be on a disk of the node, since its locks work on one machine only. Only this
    user may write to it, since checksums are compared when a set is copied, not at each use. Raises
    :class:`~raygan.errors.DataError` if other users can write to ``cache``, if the files cannot be
    read, or if there is not enough room.
    """
    _make_private(cache)
    try:
        wanted = files.listing(uri)
    except DataError:
        if (copied := _last_copy(uri, cache)) is None:
            raise
        return copied  # storage cannot be reached: the newest copy will do
    folder = cache / _key(uri, wanted)
    _use(folder)
    if folder.is_dir():
        return folder
    with _locked(cache / ".lock"):  # one copy at a time: two would share the same network
        if not folder.is_dir():  # no other process has copied it while this one waited
            _sweep(cache)
            _make_room(cache, sum(file.size for file in wanted), cap_bytes, uri)
            _copy(uri, wanted, folder, check)
    return folder


def release(folder: Path) -> None:
    """Allow a folder that :func:`localize` returned to be evicted before this process ends."""
    marker = _in_use.pop(folder, None)
    if marker is not None:
        marker.close()


def _make_private(cache: Path) -> None:
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        user, link, folder = os.geteuid(), cache.lstat(), cache.stat()
        # a link of another user could be changed at any time
        owner = folder.st_uid if link.st_uid in (user, _ROOT) else link.st_uid
        if owner == user and not folder.st_mode & stat.S_IWOTH:
            if folder.st_mode & stat.S_IWGRP:
                cache.chmod(stat.S_IMODE(folder.st_mode) & ~stat.S_IWGRP)
            return
    except OSError as error:
        raise DataError(
            f"{shown(cache)}: cannot be used for copies of prepared images ({shown(error)}); "
            "set RAYGAN_CACHE to another folder"
        ) from error
    why = f"belongs to the user {owner}" if owner != user else "can be written to by all users"
    raise DataError(
        f"{shown(cache)}: {why}, who could replace the images; set RAYGAN_CACHE to a folder that "
        "does not exist yet: it is created with access for you alone"
    )


def _key(uri: str, wanted: list[files.File]) -> str:
    """The name of the copy; it changes with the files at ``uri``."""
    described = repr((uri, [(file.name, file.size, file.stamp) for file in wanted]))
    return f"{_name(uri)}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def _name(uri: str) -> str:
    """How the names of all copies of ``uri`` start; different for each address."""
    last = uri.rstrip("/").rpartition("/")[2].partition("?")[0]
    return f"{last[:64]}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


def _last_copy(uri: str, cache: Path) -> Path | None:
    copies = [path for path in cache.glob(f"{glob.escape(_name(uri))}-*") if path.is_dir()]
    for folder in sorted(copies, key=_last_use, reverse=True):
        _use(folder)
        if folder.is_dir():  # not evicted meanwhile
            return folder
    return None


def _marker(folder: Path) -> Path:
    """A file that each process locks while it uses ``folder``.

    It is never deleted: a process may be about to lock it.
    """
    return folder.with_name(f".{folder.name}{_USED}")


def _last_use(folder: Path) -> int:
    """The number of its last use: uses are counted in the markers' times, since a clock may be
    set."""
    return _marker(folder).stat().st_mtime_ns


def _use(folder: Path) -> None:
    """Keep ``folder`` from being evicted from now on, even if it does not exist yet."""
    if folder not in _in_use:
        marker = _marker(folder).open("ab")
        fcntl.flock(marker, fcntl.LOCK_SH)  # waits while it is evicted
        if _in_use.setdefault(folder, marker) is not marker:  # another thread was faster
            marker.close()
    last = max(marker.stat().st_mtime_ns for marker in folder.parent.glob(f".*{_USED}"))
    os.utime(_marker(folder), ns=(last + _NEXT, last + _NEXT))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(cache: Path) -> None:
    """Delete what processes left behind that were killed while copying or deleting."""
    for rest in cache.glob(".*.aside"):
        shutil.rmtree(rest, ignore_errors=True)


def _make_room(cache: Path, size: int, cap_bytes: int, uri: str) -> None:
    if size > cap_bytes:
        raise DataError(
            f"{uri}: {size:,} bytes exceed the limit of this node's cache of prepared images "
            f"({cap_bytes:,} in {cache}); make room, raise RAYGAN_CACHE_GB, or set RAYGAN_CACHE to "
            "another folder"
        )
    folders = [path for path in cache.iterdir() if path.is_dir() and _marker(path).exists()]
    sizes = {path: _size(path) for path in folders}
    # nor more than the disk holds
    cap_bytes = min(cap_bytes, shutil.disk_usage(cache).free + sum(sizes.values()))
    for folder in sorted(folders, key=_last_use):
        if sum(sizes.values()) + size <= cap_bytes:
            return
        if _evict(folder):
            del sizes[folder]
    if sum(sizes.values()) + size > cap_bytes:
        raise DataError(
            f"{uri}: {size:,} bytes do not fit beside the {sum(sizes.values()):,} that other "
            f"processes of this node use (limit: {cap_bytes:,} in {cache}); raise "
            "RAYGAN_CACHE_GB, or "
            "wait until those processes end"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _evict(folder: Path) -> bool:
    """Delete ``folder`` unless a process uses it."""
    with _marker(folder).open("ab") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        aside = _aside(folder)
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{uuid.uuid4().hex}.aside")


def _copy(
    uri: str, wanted: list[files.File], folder: Path, check: Callable[[Path], None] | None
) -> None:
    aside = _aside(folder)
    aside.mkdir()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda file: _copy_file(file, aside / file.name), wanted):
                pass
        if check is not None:
            check(aside)
        aside.rename(folder)
    except OSError as error:
        full = error.errno in _FULL
        reason = f"{folder.parent} is full" if full else "cannot be copied to this node"
        raise DataError(f"{uri}: {reason} ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_file(file: files.File, target: Path) -> None:
    def attempt() -> None:
        # a name without its bytes would be taken for a whole copy
        with storage.open_file(file.path) as source, local_files.writing(target) as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            if (size := copy.tell()) != file.size:
                raise OSError(f"{file.path}: {size:,} bytes were received instead of {file.size:,}")

    retrying(attempt, file.path)
