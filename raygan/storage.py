"""Small files under a local folder or an object-store address, through pyarrow."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pyarrow import fs

from raygan.errors import ConfigError

_PROBE = ".can-be-written"


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
    def local(self) -> Path:
        """The folder; only for local storage."""
        if not self.is_local:
            raise ValueError(f"{self.uri} is not a local folder")
        return Path(self._root)

    def probe(self) -> None:
        """Make the root and write to it; raises OSError if that cannot be."""
        self.write(_PROBE, b"")
        self._fs.delete_file(self._path(_PROBE))

    def read(self, name: str) -> bytes | None:
        """The contents of file ``name``, or None if there is none."""
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write file ``name`` whole or not at all, whoever reads or crashes meanwhile."""
        path = self._path(name)
        self._fs.create_dir(str(PurePosixPath(path).parent), recursive=True)
        # object stores show an object when it is complete; a local file is renamed
        aside = f"{path}.{os.getpid()}.tmp" if self.is_local else path
        with self._fs.open_output_stream(aside) as stream:
            stream.write(data)
        if aside != path:
            self._fs.move(aside, path)

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, fs.FileType.Directory)

    def files(self, name: str = "") -> list[str]:
        """Names of the files in folder ``name``, sorted; none if it does not exist."""
        return self._names(name, fs.FileType.File)

    def rename(self, name: str, new_name: str) -> None:
        """Give file ``name`` another name, in the place of any file that has it."""
        self._fs.move(self._path(name), self._path(new_name))

    def _names(self, name: str, kind: fs.FileType) -> list[str]:
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        found = self._fs.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == kind)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root
