"""A piece of a source → a shard, on whatever node that is."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raygan.data import files
from raygan.data.config import DatasetConfig
from raygan.data.decode import UnusableError
from raygan.data.pieces import Piece
from raygan.data.shards import open_shard, write_shard
from raygan.data.sources import images_of
from raygan.errors import DataError

_FIT = 257
"""So many bytes add up to 16 bits at most."""


@dataclass(frozen=True)
class Job:
    """What all shards of a set have in common."""

    config: DatasetConfig
    shape: tuple[int, int, int]
    folder: Path
    limit: int
    """So many images may be unusable, in all shards together."""


@dataclass
class Made:
    """A shard that lies in the set's folder, whole; without images there is no file."""

    index: int
    count: int
    sha256: str
    """Of the file; and of the pixels alone:"""
    pixels: str
    total: npt.NDArray[np.int64]
    """Sum of the images, [H, W, C]."""
    unusable: list[dict[str, str]] = field(default_factory=list)

    @property
    def file(self) -> str:
        return shard_name(self.index)

    @property
    def seen(self) -> int:
        """Images of the source, usable or not."""
        return self.count + len(self.unusable)


def shard_name(index: int) -> str:
    """The file of a set's shard."""
    return f"{index:06}.arrow"


def make(job: Job, numbered: tuple[int, Piece]) -> Made:
    """Decode a piece into its shard, unless a preparation that was interrupted has left it whole.

    Raises :class:`~raygan.errors.DataError` naming the file that cannot be read or written.
    """
    index, piece = numbered
    try:
        if (found := _whole(job, index)) is not None:
            return found
        images, unusable = files.retrying(lambda: _decode(job, piece), piece.path)
        made = Made(index, len(images), "", _digest(images), _sum(images), unusable)
        if len(unusable) > job.limit:
            return made  # not whole, and not needed: this is an error
        if made.seen != piece.count:
            raise DataError(f"{piece.path}: has changed while it was read")
        if made.count:
            made.sha256 = write_shard(job.folder / made.file, images)
        _note(job, made)
    except OSError as error:
        raise DataError(
            f"{job.folder}: cannot be written ({error.strerror or error}); nothing of it is used. "
            "Make room, then prepare again: it goes on with the shards that are whole"
        ) from error
    return made


def note_name(index: int) -> str:
    """The file beside a shard that says it is whole; removed once there is a manifest."""
    return f"{index:06}.json"


def write_aside(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def _decode(job: Job, piece: Piece) -> tuple[npt.NDArray[np.uint8], list[dict[str, str]]]:
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


def _note(job: Job, made: Made) -> None:
    noted = {name: getattr(made, name) for name in ("count", "sha256", "pixels", "unusable")}
    write_aside(job.folder / note_name(made.index), json.dumps(noted))


def _whole(job: Job, index: int) -> Made | None:
    try:
        noted: dict[str, Any] = json.loads((job.folder / note_name(index)).read_bytes())
        made = Made(index, total=np.zeros(job.shape, np.int64), **noted)
        if made.count:
            path = job.folder / made.file
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != made.sha256:
                    return None
            made.total = _sum(open_shard(path, made.count, job.shape).numpy())
    except (OSError, ValueError, TypeError, KeyError, DataError):
        return None  # made again
    return made


def _digest(images: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.data).hexdigest()


def _sum(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    total = np.zeros(images.shape[1:], np.int64)
    for start in range(0, len(images), _FIT):
        # in 16 bits: 40 times as fast as in 64
        total += np.add.reduce(images[start : start + _FIT], axis=0, dtype=np.uint16)
    return total
