"""CIFAR-10 from a folder of Parquet files in the Hugging Face layout, where there is one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from raygan.data import DatasetConfig, sources

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("RAYGAN_CIFAR10") or ROOT.parent / "shared" / "data" / "cifar10")
FILE = FOLDER / "test.parquet"


@pytest.mark.skipif(
    not FILE.exists(), reason=f"no {FILE}: set RAYGAN_CIFAR10 to a folder with test.parquet"
)
def test_cifar10_is_read():
    config = DatasetConfig(name="parquet", path=str(FILE))
    images = np.stack(list(itertools.islice(sources.read(config), 2000)))
    assert images.shape == (2000, 32, 32, 3)
    assert images.dtype == np.uint8
    # the published means of CIFAR-10's channels are 0.491, 0.482 and 0.447
    assert images.mean((0, 1, 2)) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=0.02)
    assert len(np.unique(images.reshape(2000, -1), axis=0)) > 1990
