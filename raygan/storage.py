"""The one way to files at a local path or at an address, for sweeps and for images.

The functions open, read, write and find single files. :class:`Storage` is a root below which a
sweep keeps what it must not lose. An address is opened through pyarrow, or through fsspec where
pyarrow has no file system for it; both are loaded with the first address. How a file gets onto a
disk whole is in :mod:`raygan.local_files`, how often storage is asked again in
:mod:`raygan.retries`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from raygan import local_files
from raygan.addresses import bucket_of, is_address
from raygan.errors import ConfigError, RayganError
from raygan.retries import retrying
from raygan.shown import shown

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

MOST_BYTES = 64 * 2**20
"""Bytes of a stored file that are read; 100,000 evaluations of a trial take about as many."""
_CHUNK = 2**23
_PROBE = ".can-be-written"
_PROBE_BYTES = 2**20
"""As much as a sweep writes at once when it starts."""
_BACKUP = ".bak"
_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
"""pyarrow's names of object storage: a folder is there as soon as a file in it is."""
THREADS_LOCAL, THREADS_REMOTE = 4, 64
"""Files that are read or written at once: on a disk they share its speed, at an address each
of them waits for its own answer."""


def local(path: str | Path) -> Path:
    """A local path, absolute and with its ``~`` expanded.

    Raises :class:`~raygan.errors.ConfigError` if there is no such user.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from error


@functools.lru_cache(maxsize=16)
def filesystem(address: str) -> tuple[Any, str]:
    """pyarrow's file system of an address and the path in it.

    Raises :class:`~raygan.errors.ConfigError` if neither pyarrow nor fsspec has one.
    """
    import pyarrow
    from pyarrow import fs

    uri = address
    if uri.startswith("s3://"):  # a small file is one request then, and not three
        uri += f"{'&' if '?' in uri else '?'}allow_delayed_open=true"
    pyarrow.set_io_thread_count(max(pyarrow.io_thread_count(), THREADS_REMOTE))
    try:  # it may have to ask the storage where a bucket is
        opened = retrying(lambda: fs.FileSystem.from_uri(uri), address)
        return cast("tuple[Any, str]", opened)
    except ValueError as error:  # pyarrow's words for what it does not know
        problem = error
    try:
        import fsspec

        opened, path = fsspec.core.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(opened)), path
    except (ImportError, ValueError, OSError) as error:
        raise ConfigError(
            f"{address}: neither pyarrow ({problem}) nor fsspec ({error}) can open it"
        ) from error


def located(address: str) -> tuple[Any, str]:
    """:func:`filesystem` once per bucket, however many files are opened."""
    bucket, key = bucket_of(address)
    if "?" in key:  # options of the file system
        return filesystem(address)
    opened, root = filesystem(bucket)
    return opened, f"{root.rstrip('/')}/{key}".rstrip("/") or "/"


def open_file(path: str) -> BinaryIO:
    """The file at ``path``, open for reading at any place; raises OSError."""
    if not is_address(path):
        return Path(path).open("rb")
    opened, inside = located(path)
    return cast("BinaryIO", opened.open_input_file(inside))


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
    """Write a file, whole or not at all, that survives a power cut; raises OSError."""
    if is_address(path):
        retrying(lambda: _put(*located(path), data), path)
    else:
        local_files.write(path, data, durable=True)


def send(file: Path, address: str) -> None:
    """Put a local file to an address; raises OSError."""
    retrying(lambda: _put(*located(address), file), address)


def _put(filesystem: Any, path: str, data: bytes | Path) -> None:
    if filesystem.type_name not in _WITHOUT_FOLDERS:
        filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
    with filesystem.open_output_stream(path) as target:
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
    retrying(lambda: _delete(*located(path)), path)


def _delete(filesystem: Any, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


def exists(path: str) -> bool:
    """Whether there is a file or folder at ``path``; raises OSError if that cannot be found out."""

    def attempt() -> bool:
        from pyarrow import fs

        opened, inside = located(path)
        (info,) = opened.get_file_info([inside])
        return bool(info.type != fs.FileType.NotFound)

    return retrying(attempt, path) if is_address(path) else local(path).exists()


@contextlib.contextmanager
def usable(storage: Storage) -> Iterator[None]:
    """Within the block, what the storage does not do is a :class:`~raygan.errors.ConfigError`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"`storage` (={storage.uri!r}) cannot be written or read ({error}): make room there or "
            "mend its permissions, or give another place"
        ) from error


class Storage:
    """A root under which a sweep keeps what it must not lose.

    ``uri`` is a local path or an address such as ``s3://bucket/prefix``. Raises
    :class:`~raygan.errors.ConfigError` if pyarrow has no file system for it.

    Every method raises OSError if the storage does not do what it asks, and
    :class:`~raygan.errors.RayganError` for a name that leads through a symbolic link below the
    folder ``uri``, or out of it.
    """

    def __init__(self, uri: str) -> None:
        self._fs: Any = None
        """pyarrow's file system of an address."""
        try:
            if "?" in uri or "\0" in uri:
                raise ValueError("it must not hold '?' or NUL; options go into the environment")
            if is_address(uri):
                self._fs, self._root = filesystem(uri)
                self.uri = uri.rstrip("/")
                if self._fs.type_name.startswith("py::"):
                    raise ValueError("pyarrow itself has no file system for it")
            else:
                self._root = self.uri = str(local(uri))
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"`storage` (={uri!r}) is neither a local path nor an address that can be used "
                f"({error})"
            ) from error
        self.is_local = self._fs is None or self._fs.type_name == "local"
        self._named = self._root
        """What the user has named: below it, no link is followed."""

    def __truediv__(self, name: str) -> Storage:
        below = copy.copy(self)
        below.uri, below._root = f"{self.uri}/{name}", f"{self._root}/{name}"
        return below

    @property
    def threads(self) -> int:
        """How many files to read or write at once."""
        return THREADS_LOCAL if self.is_local else THREADS_REMOTE

    def map(self, do: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        """What ``do``, which reads or writes here, returns for each of ``items``, in their order.

        It is done for :attr:`threads` of them at once. Raises what ``do`` raises for the first item
        that it raises for; items that have not begun then are left out.
        """
        with ThreadPoolExecutor(self.threads, thread_name_prefix="storage") as pool:
            return list(pool.map(do, items))

    @property
    def name(self) -> str:
        """The last part of the address: in a sweep's storage, the sweep's name."""
        return PurePosixPath(self._root).name

    @property
    def parent(self) -> str:
        """The address without its last part."""
        return self.uri.rpartition("/")[0]

    @property
    def local(self) -> Path:
        """The folder; only for local storage."""
        if not self.is_local:
            raise ValueError(f"{self.uri} is not a local folder")
        return Path(self._root)

    def probe(self, size: int = _PROBE_BYTES) -> None:
        """Make the root and write ``size`` bytes to it, so that a full disk is found, too; raises
        OSError if that cannot be."""
        try:
            self.write(_PROBE, os.urandom(size), durable=True)
        finally:
            self.delete(_PROBE)
        if self.is_local:
            local_files.remove_leftovers(self.local)

    def check_tree(self) -> None:
        """Refuse any symbolic link below the root, and remove what writes of killed processes have
        left there; raises RayganError."""
        if self.is_local:
            self._path("")
            local_files.check_tree(self.local)

    def refuse_link(self, name: str) -> None:
        """Raise RayganError if ``name`` leads through a link; for what others write there."""
        self._path(name)

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """The contents of file ``name``, or their first ``most`` bytes; None if there is none."""
        path = self._path(name)
        if self.is_local:
            return local_files.read(path, most)
        try:
            with self._fs.open_input_stream(path) as stream:
                return bytes(stream.read(most))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Write file ``name`` whole or not at all: readers see the old content or all of the new
        one.

        This holds even if the process is killed. ``durable``: after the return, the file survives a
        power cut; object storage always ensures that.
        """
        path = self._path(name)
        if self.is_local:
            local_files.write(path, data, durable=durable)
            return
        _put(self._fs, path, data)

    def write_kept(self, name: str, data: bytes) -> None:
        """Like :meth:`write`, durably, and keep what the file held before beside it (``….bak``)."""
        before = self.read(name)
        if before is not None:
            # copied, not moved: at any time one of the two is whole, and on the disk
            self.write(f"{name}{_BACKUP}", before)
        self.write(name, data, durable=True)

    def write_twice(self, name: str, data: bytes) -> None:
        """Like :meth:`write`, durably, and the same to its backup, in two requests."""
        self.write(name, data, durable=True)
        self.write(f"{name}{_BACKUP}", data)

    def read_kept(self, name: str, parse: Callable[[bytes], T], *, mend: bool = False) -> T | None:
        """What ``parse`` makes of file ``name``, or of its backup if the file is damaged or lost.

        None if there is neither. ``mend``: put a backup that was used in the file's place.
        ``parse`` raises ValueError for damaged data, as :func:`raygan.stored.parse` does; raises
        :class:`~raygan.errors.RayganError` if nothing whole is left.
        """
        problem: Exception | None = None
        for candidate in (name, f"{name}{_BACKUP}"):
            data = self.read(candidate, MOST_BYTES + 1)
            if data is None:
                continue
            try:
                content = parse(data)
            except ValueError as error:
                problem = problem or error
                continue
            if candidate != name:
                logger.warning("%s/%s is damaged or lost: its backup is used", self.uri, name)
                if mend:
                    self.write(name, data)
            return content
        if problem is not None:
            raise RayganError(f"{self.uri}/{name}: damaged ({shown(problem, 300)}), "
                               "and it has no whole backup")  # fmt: skip
        return None

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, folders=True)

    def files(self, name: str = "") -> list[str]:
        """Names of the files in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, folders=False)

    def delete(self, name: str) -> None:
        """Remove file ``name``, if there is one."""
        path = self._path(name)
        if self.is_local:
            Path(path).unlink(missing_ok=True)
        else:
            _delete(self._fs, path)

    def delete_folder(self, name: str) -> None:
        """Remove folder ``name`` with all that is in it, if there is one."""
        path = self._path(name)
        with contextlib.suppress(FileNotFoundError):
            if self.is_local:
                shutil.rmtree(path)
            else:
                self._fs.delete_dir(path)

    def rename(self, name: str, new_name: str) -> None:
        """Give file ``name`` another name, in the place of any file that has it."""
        path, new_path = self._path(name), self._path(new_name)
        if self.is_local:
            Path(path).replace(new_path)
        else:
            self._fs.move(path, new_path)

    def _names(self, name: str, *, folders: bool) -> list[str]:
        path = self._path(name)
        if self.is_local:
            # links, too: whoever reads or writes there is told
            return local_files.names(path, folders=folders)
        from pyarrow import fs

        kind = fs.FileType.Directory if folders else fs.FileType.File
        listed = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in listed if info.type == kind)

    def _path(self, name: str) -> str:
        path = f"{self._root}/{name}" if name else self._root
        if ".." in path.removeprefix(self._named).split("/"):
            raise RayganError(f"{shown(path)} leads out of {self._named}")
        if self.is_local:
            local_files.refuse_links(self._named, path)
        return path
