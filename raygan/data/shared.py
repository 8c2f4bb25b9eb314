"""Prepared sets in object storage: put there once, copied to each node that trains on them."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from raygan.data import cache, files
from raygan.data.config import DatasetConfig
from raygan.data.prepare import MANIFEST, folder_name, is_prepared, prepare, read_manifest
from raygan.errors import DataError

_CHUNK = 2**23


def prepare_shared(config: DatasetConfig, home: Path, address: str, **options: Any) -> str:
    """The address below ``address`` with ``config``'s images.

    If they are not there, they are prepared in ``home``, a folder of this node, and put there.
    ``options`` are those of :func:`~raygan.data.prepare.prepare`.
    """
    there = f"{address}/{folder_name(config)}"
    try:
        if not files.exists(f"{there}/{MANIFEST}"):
            publish(prepare(config, home, **options), there)
    except OSError as error:
        raise DataError(f"{there}: cannot be reached ({error})") from error
    return there


def publish(folder: Path, address: str) -> None:
    """Put a prepared set to ``address``, its manifest last: without it nothing is used.

    Raises :class:`~raygan.errors.DataError` if the storage does not take it, after some attempts.
    """
    names = [shard["file"] for shard in read_manifest(folder)["shards"]]
    for name in (*names, MANIFEST):
        try:
            files.retrying(partial(_put, folder / name, f"{address}/{name}"), address)
        except OSError as error:
            raise DataError(
                f"{address}/{name}: cannot be written ({error}); nothing of it is used. "
                "The same command again goes on"
            ) from error


def _put(file: Path, address: str) -> None:
    found, path = files.located(address)
    (there,) = found.get_file_info([path])
    if there.is_file and there.size == file.stat().st_size and file.name != MANIFEST:
        return  # by an attempt before; whoever copies it compares its checksum
    with file.open("rb") as source, found.open_output_stream(path) as target:
        shutil.copyfileobj(source, target, _CHUNK)


def fetch(address: str, home: Path) -> Path:
    """The folder of this node with the set at ``address``: prepared here, or copied once."""
    folder = home / address.rpartition("/")[2]
    if is_prepared(folder):
        return folder
    return cache.localize(address, home / "copies", check=verify)


def verify(folder: Path) -> None:
    """Compare the checksums of all shards; raises DataError naming one that is not right."""
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["file"]
        try:
            with path.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").hexdigest() == shard["sha256"]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if not right:
            raise DataError(
                f"{path}: its checksum is not the manifest's; delete {folder} to prepare it again"
            )
