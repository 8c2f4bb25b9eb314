"""What a data source is, and what it finds at a path; the base of a user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from raygan import storage
from raygan.data import files
from raygan.data.decode import Pixels, UnusableError
from raygan.data.files import File
from raygan.data.sources import leftout, splits
from raygan.data.sources.pieces import Item, Piece, ranges
from raygan.errors import DataError
from raygan.recipe import Recipe, Scalar, blamed, file_of
from raygan.retries import retrying

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig

_SAMPLED = 8
_SAMPLE = 64 * 2**10
"""Bytes at each end of so many files that tell contents apart where names and sizes do not."""


@dataclass(frozen=True)
class Source:
    """The images at the path of a configuration."""

    layout: str
    """How the images lie: digits, files, zip, parquet, lmdb, cifar-10-batches-py, or the name of a
    user's own data source."""
    split: str
    """Which part of the published set: all, train or train+test …"""
    digest: str
    """Of names, sizes, times and samples of its files; not of where they lie."""
    count: int
    """Images, usable or not."""
    cut: Callable[[int], Iterator[Piece]]
    """Cuts it into pieces of at most so many images, always the same way."""
    splits: tuple[str, ...] = (splits.UNNAMED,)
    """The splits at the path, whether they are read or not."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Files that are not read, by suffix; none of those that a layout always has."""
    longest_group: int = 0
    """Most images of one group of rows, which each piece of it reads from its start; 0: pieces are
    read alone."""

    def described(self) -> list[str]:
        """What was not taken of what lies there, as lines for people."""
        lines = []
        if len(self.splits) > 1:
            lines.append(
                f"split: {self.split} of {splits.listed(self.splits)}; "
                "`dataset.split` chooses others"
            )
        if self.left_out:
            lines.append(f"files left out, by suffix: {leftout.described(self.left_out)}")
        return lines


class DataSource(Recipe):
    """Where images come from.

    A user's own says how many images lie at a path (:meth:`count`) and reads a range of them
    (:meth:`read`). Both must say the same whenever they are asked, in any process.
    """

    reserved = (
        "name", "path", "split", "crop", "size", "running", "final", "split_seed", "max_corrupt",
        "parameters", "label", "train",
    )  # fmt: skip
    needs_path: ClassVar[bool] = True
    """Whether `dataset.path` must be given."""
    has_splits: ClassVar[bool] = False
    """Whether `dataset.split` may be given."""
    channels: ClassVar[int] = 3
    """3: colour; 1: grey. Encoded images are converted."""
    default_crop: ClassVar[int | None] = None
    """Side of the centre crop if `dataset.crop` is not given; None: no crop."""
    known_count: ClassVar[int | None] = None
    """How many images there are, if that is known before they are looked for."""

    def count(self, path: str) -> int:  # noqa: ARG002
        """How many images lie at ``path``; raises :class:`~raygan.errors.DataError`."""
        raise self._lacks("count")

    def read(
        self,
        path: str,  # noqa: ARG002
        start: int,  # noqa: ARG002
        stop: int,  # noqa: ARG002
    ) -> Iterable[bytes | Pixels]:
        """Images ``start`` to ``stop - 1`` of those at ``path``, in order: the bytes of a PNG, JPEG
        or WEBP file each, or uint8 pixels [H, W, 3] or [H, W]."""
        raise self._lacks("read")

    def _lacks(self, method: str) -> DataError:
        return DataError(f"the data source {self.name} has no `{method}`; define this method")

    def digest(self, path: str) -> str:
        """A text that changes whenever the images at ``path`` do: by default of the names, sizes
        and times of the files there, and of samples of their bytes."""
        return digest_of(files.listing(path)) if path else ""

    def counted(self, path: str) -> int:
        """:meth:`count`, which must be a number; raises :class:`~raygan.errors.DataError`."""
        count = self.count(path)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise DataError(f"the data source {self.name} counts {count!r} images; return a number")
        return count

    def check(self, config: DatasetConfig) -> None:
        """Raise :class:`~raygan.errors.ConfigError` if the keys do not fit together."""

    def default_splits(self) -> tuple[str, ...]:
        """The splits that are used if `dataset.split` is not given; none: the files decide."""
        return ()

    def sides(self, crop: int | None, size: int | None) -> tuple[int | None, int | None]:
        """Sides of the centre crop and of the images, if `dataset.crop` and `dataset.size` are
        these; None: no crop; the side of the crop."""
        return self.default_crop if crop is None else crop, size

    def find(self, config: DatasetConfig, path: str) -> Source:  # noqa: ARG002
        """What lies at ``path``: that of ``config``, absolute; empty if there is none.

        Raises :class:`~raygan.errors.DataError` naming what is missing or damaged.
        """
        with blamed(DataError):
            count, seen = self.counted(path), self.digest(path)
        own = file_of(type(self))
        values = asdict(self)
        described = [seen, values, own.digest if own else ""]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

        def cut(size: int) -> Iterator[Piece]:
            for start, stop in ranges(count, size):
                yield OwnPiece(path, start, stop, self.name, values)

        return Source(self.name, splits.ALL_SPLITS, digest, count, cut)


@dataclass(frozen=True)
class OwnPiece:
    """A range of the images of a user's own data source. Where it is read, the source's file must
    have been entered (:func:`raygan.recipe.ensure`)."""

    path: str
    start: int
    stop: int
    name: str
    parameters: dict[str, Scalar]

    @property
    def count(self) -> int:
        return self.stop - self.start

    def read(self) -> Iterator[Item]:
        source: DataSource = DataSource.table.make(self.name, self.parameters)
        number = self.start
        with blamed(DataError):
            for data in source.read(self.path, self.start, self.stop):
                if number == self.stop:
                    raise self._returned("more")
                where = f"{self.path or self.name}, image {number}"
                yield where, _checked(data, where, source.channels)
                number += 1
        if number != self.stop:
            raise self._returned(f"{number - self.start}")

    def _returned(self, many: str) -> DataError:
        return DataError(
            f"{self.path or self.name}: the data source {self.name} was asked for images "
            f"{self.start} to {self.stop - 1} and returned {many}, not {self.count}; `read` must "
            "return these and no others"
        )


def _checked(data: object, where: str, channels: int) -> bytes | Pixels | UnusableError:
    if isinstance(data, bytes):
        return data
    if isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.size:
        if data.ndim == 2:
            data = data[:, :, None]
        if data.ndim == 3 and data.shape[2] == 1 and channels == 3:
            data = data.repeat(3, axis=2)
        if data.ndim == 3 and data.shape[2] == channels:
            return np.ascontiguousarray(data)
    given = type(data).__name__
    if isinstance(data, np.ndarray):
        given = f"{data.dtype} {list(data.shape)}"
    wanted = "[H, W, 3] or [H, W]" if channels == 3 else "[H, W]"
    return UnusableError(
        where, f"the data source returns {given}, which is neither bytes nor uint8 pixels {wanted}"
    )


def digest_of(listed: list[File]) -> str:
    """Changes whenever the files do, but not with the folder that they lie in."""
    digest = hashlib.sha256()
    for file in listed:
        digest.update(json.dumps([file.name, file.size, file.stamp]).encode())
    step = max(1, len(listed) // _SAMPLED)
    for file in listed[::step][:_SAMPLED]:
        try:
            digest.update(retrying(partial(_ends, file), file.path))
        except OSError as error:
            raise DataError(f"{file.path}: cannot be read ({error})") from error
    return digest.hexdigest()


def _ends(file: File) -> bytes:
    with storage.open_file(file.path) as opened:
        start = opened.read(_SAMPLE)
        opened.seek(max(0, file.size - _SAMPLE))
        return start + opened.read(_SAMPLE)
