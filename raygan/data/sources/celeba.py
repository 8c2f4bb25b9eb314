"""CelebA: aligned faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygan.data import files
from raygan.data.sources import layouts, leftout, splits
from raygan.data.sources.source import DataSource, Source

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


class Celeba(DataSource):
    """CelebA: img_align_celeba, as a folder or a zip, or Parquet tables; by default all splits, as
    the folder and the zip hold all."""

    name = "celeba"
    has_splits = True
    default_crop = 160  # of 178×218 pixels (arXiv 1704.03971, section 5.1)

    def default_splits(self) -> tuple[str, ...]:
        return (splits.ALL_SPLITS,)

    def find(self, config: DatasetConfig, path: str) -> Source:
        path = layouts.inside(path, "celeba", "img_align_celeba")
        listed = files.listing(path)
        images = layouts.images_among(listed)
        if not images and (archive := layouts.only_zip(path, listed)) is not None:
            return layouts.zip_archive(config, archive, listed)
        if layouts.are_tables(listed, images):
            return layouts.parquet_tables(config, path, listed, [leftout.IMAGES, ".zip file"])
        return layouts.image_files(config, path, listed, images)
