"""Small files under a local folder or an object-store address, through pyarrow."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pyarrow import fs

from raygan.errors import ConfigError, RayganError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROBE = ".can-be-written"
_PROBE_BYTES = 2**16
"""A full disk still takes a file of no bytes."""
_BACKUP = ".bak"


class Storage:
    """A root under which a sweep keeps what it must not lose.

    ``uri`` is a local path or an address such as ``s3://bucket/prefix``. Raises
    :class:`~raygan.errors.ConfigError` if pyarrow has no file system for it.
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

    def __truediv__(self, name: str) -> Storage:
        return Storage(f"{self.uri}/{name}")

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

    def probe(self) -> None:
        """Make the root and write to it; raises OSError if that cannot be."""
        self.write(_PROBE, bytes(_PROBE_BYTES))
        self.delete(_PROBE)

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """The contents of file ``name``, or their first ``most`` bytes; None if there is none."""
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read(most))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write file ``name`` whole or not at all, whoever reads or crashes meanwhile."""
        path = self._path(name)
        self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
        # object stores show an object when it is complete; a local file is renamed
        aside = f"{path}.{uuid.uuid4().hex}.tmp" if self.is_local else path
        with self._fs.open_output_stream(aside) as stream:
            stream.write(data)
        if aside != path:
            self._fs.move(aside, path)

    def write_kept(self, name: str, data: bytes) -> None:
        """Like :meth:`write`, and keep what the file held before beside it (``….bak``)."""
        path = self._path(name)
        if self._fs.get_file_info(path).type == fs.FileType.File:
            # copied, not moved: at any time one of the two is whole
            self._fs.copy_file(path, f"{path}{_BACKUP}")
        self.write(name, data)

    def read_kept(self, name: str, parse: Callable[[bytes], T], *, mend: bool = False) -> T | None:
        """What ``parse`` makes of file ``name``, or of its backup if the file is damaged or lost.

        None if there is neither. ``mend``: put a backup that was used in the file's place.
        ``parse`` may raise any ValueError, TypeError, KeyError or
        AttributeError for damaged data; raises :class:`~raygan.errors.RayganError` if nothing
        whole is left.
        """
        problem: Exception | None = None
        for candidate in (name, f"{name}{_BACKUP}"):
            data = self.read(candidate)
            if data is None:
                continue
            try:
                found = parse(data)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                problem = problem or error
                continue
            if candidate != name:
                logger.warning("%s/%s is damaged or lost: its backup is used", self.uri, name)
                if mend:
                    self.write(name, data)
            return found
        if problem is not None:
            raise RayganError(f"{self.uri}/{name}: damaged ({problem}), and it has no whole backup")
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
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        found = self._fs.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == kind)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root
