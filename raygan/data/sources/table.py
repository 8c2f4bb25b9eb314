"""The table of all data sources."""

from __future__ import annotations

from raygan.data.sources.celeba import Celeba
from raygan.data.sources.cifar10 import Cifar10
from raygan.data.sources.digits import Digits
from raygan.data.sources.image_folder import Folder
from raygan.data.sources.lsun import Lsun
from raygan.data.sources.parquet import Parquet
from raygan.data.sources.source import DataSource
from raygan.recipe import Table

SOURCES: Table[DataSource] = Table(
    "data source", "dataset.name", DataSource, Digits, Cifar10, Celeba, Lsun, Folder, Parquet
)
