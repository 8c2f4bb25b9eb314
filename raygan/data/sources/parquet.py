"""Parquet tables of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygan.data import files
from raygan.data.sources import layouts
from raygan.data.sources.source import DataSource, Source

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


class Parquet(DataSource):
    """Tables in the Hugging Face layout: a file, a folder or a glob."""

    name = "parquet"
    has_splits = True

    def find(self, config: DatasetConfig, path: str) -> Source:
        return layouts.parquet_tables(config, path, files.listing(path))
