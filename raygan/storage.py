"""Small files under a local folder or an object-store address, through pyarrow."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pyarrow import fs

from raygan import local_files, stored
from raygan.errors import ConfigError, RayganError
from raygan.shown import shown

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROBE = ".can-be-written"
_PROBE_BYTES = 2**20
"""As much as a sweep writes at once when it starts."""
_BACKUP = ".bak"


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
        try:
            if "?" in uri or "\0" in uri:
                raise ValueError("it must not hold '?' or NUL; options go into the environment")
            if "://" in uri:
                self._fs, self._root = fs.FileSystem.from_uri(uri)
                self.uri = uri.rstrip("/")
            else:
                self._fs = fs.LocalFileSystem()
                self._root = self.uri = str(Path(uri).expanduser().absolute())
        except (ValueError, OSError, RuntimeError) as error:
            raise ConfigError(
                f"`storage` (={uri!r}) is neither a local path nor an address that can be used "
                f"({error})"
            ) from error
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        self._named = self._root
        """What the user has named: below it, no link is followed."""

    def __truediv__(self, name: str) -> Storage:
        below = Storage(f"{self.uri}/{name}")
        below._named = self._named
        return below

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
        """Write file ``name`` whole or not at all, whoever reads or is killed meanwhile.

        ``durable``: what this has returned from survives a power cut. Object stores always keep it
        so, and show an object when it is complete.
        """
        path = self._path(name)
        if self.is_local:
            local_files.write(path, data, durable=durable)
            return
        self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def write_kept(self, name: str, data: bytes) -> None:
        """Like :meth:`write`, durably, and keep what the file held before beside it (``….bak``)."""
        before = self.read(name)
        if before is not None:
            # copied, not moved: at any time one of the two is whole, and on the disk
            self.write(f"{name}{_BACKUP}", before)
        self.write(name, data, durable=True)

    def read_kept(self, name: str, parse: Callable[[bytes], T], *, mend: bool = False) -> T | None:
        """What ``parse`` makes of file ``name``, or of its backup if the file is damaged or lost.

        None if there is neither. ``mend``: put a backup that was used in the file's place.
        ``parse`` raises ValueError for damaged data, as :func:`raygan.stored.parse` does; raises
        :class:`~raygan.errors.RayganError` if nothing whole is left.
        """
        problem: Exception | None = None
        for candidate in (name, f"{name}{_BACKUP}"):
            data = self.read(candidate, stored.MOST_BYTES + 1)
            if data is None:
                continue
            try:
                found = parse(data)
            except ValueError as error:
                problem = problem or error
                continue
            if candidate != name:
                logger.warning("%s/%s is damaged or lost: its backup is used", self.uri, name)
                if mend:
                    self.write(name, data)
            return found
        if problem is not None:
            raise RayganError(f"{self.uri}/{name}: damaged ({shown(problem, 300)}), "
                               "and it has no whole backup")  # fmt: skip
        return None

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, fs.FileType.Directory)

    def files(self, name: str = "") -> list[str]:
        """Names of the files in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, fs.FileType.File)

    def delete(self, name: str) -> None:
        """Remove file ``name``, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def rename(self, name: str, new_name: str) -> None:
        """Give file ``name`` another name, in the place of any file that has it."""
        self._fs.move(self._path(name), self._path(new_name))

    def _names(self, name: str, kind: fs.FileType) -> list[str]:
        path = self._path(name)
        if self.is_local:
            # links, too: whoever reads or writes there is told
            return local_files.names(path, folders=kind == fs.FileType.Directory)
        found = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == kind)

    def _path(self, name: str) -> str:
        path = f"{self._root}/{name}" if name else self._root
        if ".." in path.removeprefix(self._named).split("/"):
            raise RayganError(f"{shown(path)} leads out of {self._named}")
        if self.is_local:
            local_files.refuse_links(self._named, path)
        return path
