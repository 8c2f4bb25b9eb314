"""LSUN: rooms, as an LMDB database or as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from raygan.addresses import is_address
from raygan.data import files
from raygan.data.sources import archives, layouts, leftout, splits
from raygan.data.sources.pieces import Piece
from raygan.data.sources.source import DataSource, Source, digest_of
from raygan.errors import DataError

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


class Lsun(DataSource):
    """LSUN: an LMDB folder, a folder of image files, or Parquet tables."""

    name = "lsun"
    has_splits = True

    def find(self, config: DatasetConfig, path: str) -> Source:
        path = layouts.inside(path, "bedroom_train_lmdb")
        if files.exists(f"{path}/{archives.LMDB_FILE}"):
            return _lmdb(config, path)
        listed = files.listing(path)
        images = layouts.images_among(listed)
        if layouts.are_tables(listed, images):
            beside = [archives.LMDB_FILE, leftout.IMAGES]
            return layouts.parquet_tables(config, path, listed, beside)
        return layouts.image_files(config, path, listed, images)


def _lmdb(config: DatasetConfig, path: str) -> Source:
    if is_address(path):
        raise DataError(
            f"{path}: LMDB maps a local file into memory; copy the folder to a disk, or keep the "
            "images as files or Parquet in object storage"
        )
    _, split = splits.chosen(config, path, [splits.UNNAMED])
    database = [file for file in files.listing(path) if file.name == archives.LMDB_FILE]
    with archives.open_lmdb(path) as transaction:
        count = transaction.stat()["entries"]
    if not count:
        raise DataError(f"{path}: holds no images")

    def cut_lmdb(size: int) -> Iterator[Piece]:
        for first, number in archives.lmdb_keys(path, size):
            yield archives.LmdbPiece(path, first, number)

    return Source("lmdb", split, digest_of(database), count, cut_lmdb)
