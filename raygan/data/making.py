"""Makes one shard from one piece of a source, on any node."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raygan import recipe, storage
from raygan.addresses import is_address
from raygan.data.dataset import DatasetConfig
from raygan.data.decode import UnusableError
from raygan.data.shards import Written, write_shard
from raygan.data.sources.find import images_of
from raygan.data.sources.pieces import Piece
from raygan.errors import ConfigError, DataError
from raygan.folder import shard_file, shard_note
from raygan.recipe import RecipeFile
from raygan.retries import retrying

_FIT = 257
"""Images whose bytes can be added in uint16 without overflow: 257 · 255 = 2¹⁶ − 1."""
_MOST_NOTED = 2**28
_LIBRARIES = ("numpy", "pillow", "pyarrow", "torch")


@dataclass(frozen=True)
class ShardWork:
    """What all shards of a set have in common."""

    config: DatasetConfig
    shape: tuple[int, int, int]
    folder: str
    """Folder of the set, which all nodes see, or its address in object storage."""
    limit: int
    """Most images of the whole set that may be unusable."""
    recipes: tuple[RecipeFile, ...] = ()
    """The file of the data source, if it is a user's own: processes that decode enter it."""


@dataclass
class Made:
    """A whole shard in the set's folder. A shard without images has no file."""

    index: int
    count: int
    pixels: str
    """SHA-256 of the pixels."""
    sha256: str = ""
    """SHA-256 of the file; empty without a file."""
    start: int = 0
    """Bytes of the file before the pixels."""
    unusable: list[dict[str, str]] = field(default_factory=list)

    @property
    def file(self) -> str:
        return shard_file(self.index)

    @property
    def seen(self) -> int:
        """Images of the source, usable or not."""
        return self.count + len(self.unusable)


def versions() -> dict[str, str]:
    """Versions of the libraries on which the pixels depend."""
    return {name: version(name) for name in _LIBRARIES}


def make(job: ShardWork, numbered: tuple[int, Piece]) -> tuple[Made, npt.NDArray[np.int64]]:
    """Decode a piece into its shard, unless an interrupted preparation has completed that already.

    Returns the shard and the sum of its images, int64 [H, W, C]. Raises
    :class:`~raygan.errors.DataError` naming the file that cannot be read or written.
    """
    index, piece = numbered
    try:
        recipe.ensure(job.recipes)
    except ConfigError as error:  # what the file imports may be installed elsewhere only
        raise DataError(str(error)) from None
    try:
        if (whole := _whole(job, index)) is not None:
            return whole
        images, unusable = retrying(lambda: _decode(job, piece), piece.path)
        made, total = Made(index, len(images), _digest(images), unusable=unusable), _sum(images)
        if len(unusable) > job.limit:
            return made, total  # the caller refuses the set, so the shard is not written
        if made.seen != piece.count:
            raise DataError(f"{piece.path}: has changed while it was read")
        if made.count:
            made.sha256, made.start = _write(job, made.file, images)
        _note(job, made, total)
    except OSError as error:
        raise DataError(
            f"{job.folder}: cannot be written ({error.strerror or error}); incomplete shards are "
            "not used. Free some space, then run the same command: it resumes the preparation"
        ) from error
    return made, total


def digest_of(path: Path) -> str:
    """SHA-256 of a file; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(job: ShardWork, piece: Piece) -> tuple[npt.NDArray[np.uint8], list[dict[str, str]]]:
    images = np.empty((piece.count, *job.shape), np.uint8)
    unusable: list[dict[str, str]] = []
    kept = 0
    for image in images_of(piece, job.config, job.shape):
        if isinstance(image, UnusableError):
            unusable.append({"where": image.where, "reason": image.reason})
        else:
            images[kept] = image
            kept += 1
        if len(unusable) > job.limit:
            break
    return images[:kept], unusable


def _write(job: ShardWork, name: str, images: npt.NDArray[np.uint8]) -> Written:
    if not is_address(job.folder):
        return write_shard(Path(job.folder, name), images)
    with tempfile.TemporaryDirectory() as aside:
        written = write_shard(Path(aside, name), images)
        storage.send(Path(aside, name), f"{job.folder}/{name}")
    return written


_NOTED = ("count", "pixels", "sha256", "start", "unusable")


def _note(job: ShardWork, made: Made, total: npt.NDArray[np.int64]) -> None:
    noted = {name: getattr(made, name) for name in _NOTED}
    noted |= {"total": base64.b64encode(total.tobytes()).decode(), "versions": versions()}
    storage.write(f"{job.folder}/{shard_note(made.index)}", json.dumps(noted).encode())


def _whole(job: ShardWork, index: int) -> tuple[Made, npt.NDArray[np.int64]] | None:
    try:
        note = storage.read(f"{job.folder}/{shard_note(index)}", _MOST_NOTED)
        noted: dict[str, Any] = json.loads(note)
        if noted.pop("versions") != versions():
            return None
        total = np.frombuffer(base64.b64decode(noted.pop("total")), np.int64).reshape(job.shape)
        made = Made(index, **noted)
        # what object storage has taken is whole; who copies it compares the checksum
        here = made.count and not is_address(job.folder)
        if here and digest_of(Path(job.folder, made.file)) != made.sha256:
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # made again
    return made, total


def _digest(images: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.data).hexdigest()


def _sum(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    total = np.zeros(images.shape[1:], np.int64)
    for start in range(0, len(images), _FIT):
        # uint16 is 40 times as fast as int64
        total += np.add.reduce(images[start : start + _FIT], axis=0, dtype=np.uint16)
    return total
