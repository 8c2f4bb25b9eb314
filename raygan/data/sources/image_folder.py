"""Image files in folders, or a zip of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygan.data import files
from raygan.data.sources import layouts
from raygan.data.sources.source import DataSource, Source

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


class Folder(DataSource):
    """PNG, JPEG or WEBP files (.png, .jpg, .jpeg, .jpe, .jfif, .webp …), nested, or a zip of
    them. Images are turned as their EXIF orientation says."""

    name = "folder"
    has_splits = True

    def find(self, config: DatasetConfig, path: str) -> Source:
        listed = files.listing(path)
        images = layouts.images_among(listed)
        if not images and (archive := layouts.only_zip(path, listed)) is not None:
            return layouts.zip_archive(config, archive, listed)
        return layouts.image_files(config, path, listed, images)
