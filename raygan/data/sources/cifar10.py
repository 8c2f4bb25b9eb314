"""CIFAR-10: its own batches, or Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from raygan import storage
from raygan.addresses import is_address
from raygan.data import files
from raygan.data.files import File
from raygan.data.sources import layouts, pickles, splits
from raygan.data.sources.pieces import Piece, cut
from raygan.data.sources.source import DataSource, Source, digest_of
from raygan.errors import ConfigError, DataError
from raygan.shown import shown

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


class Cifar10(DataSource):
    """CIFAR-10: the folder cifar-10-batches-py, or Parquet tables; by default the official training
    images."""

    name = "cifar10"
    has_splits = True
    download: bool = False
    """Download it to ``path`` with torchvision if it is missing."""
    pool: bool = False
    """Short for ``split: [train, test]``: pool the official training and test images, as the
    paper's code does, before the held-out sets are drawn."""

    def check(self, config: DatasetConfig) -> None:
        if self.download and config.path and is_address(config.path):
            raise ConfigError(
                f"`dataset.download` needs a local `dataset.path`, not {shown(config.path)}"
            )
        if self.pool and config.split is not None:
            raise ConfigError(
                "`dataset.pool` is short for `split: [train, test]`: remove one of the two"
            )

    def default_splits(self) -> tuple[str, ...]:
        return ("train", "test") if self.pool else ("train",)

    def find(self, config: DatasetConfig, path: str) -> Source:
        if self.download:
            pickles.download(storage.local(path))
        path = layouts.inside(path, pickles.FOLDER)
        listed = files.listing(path)
        if {file.name for file in listed} & set(pickles.TRAIN):
            return _batches(config, path, listed)
        return layouts.parquet_tables(config, path, listed, [f"{pickles.TRAIN[0]} …"])


def _batches(config: DatasetConfig, path: str, listed: list[File]) -> Source:
    by_name = {file.name: file for file in listed}
    official = {"train": pickles.TRAIN, "test": pickles.TEST}
    chosen, split = splits.chosen(config, path, official)
    wanted = [name for part in chosen for name in official[part]]
    if missing := [name for name in wanted if name not in by_name]:
        raise DataError(
            f"{path}: {', '.join(missing)} missing; the download may be incomplete: download it "
            "again"
        )
    batches = [by_name[name] for name in wanted]
    counts = [(file.path, len(pickles.batch(file.path))) for file in batches]

    def cut_batches(size: int) -> Iterator[Piece]:
        parts = ((name, 0, count) for name, count in counts)
        return (pickles.CifarPiece(path, group) for group in cut(parts, size))

    count = sum(count for _, count in counts)
    return Source(pickles.FOLDER, split, digest_of(batches), count, cut_batches, tuple(official))
