"""Where images come from: sources → a prepared, memory-mapped set → batches."""

from raygan.data.dataset import DatasetConfig
from raygan.data.images import ImageSet
from raygan.data.manifest import load
from raygan.data.prepare import prepare

__all__ = ["DatasetConfig", "ImageSet", "load", "prepare"]
