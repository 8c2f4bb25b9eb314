"""CIFAR-10, whole, from a folder of Parquet files in the Hugging Face layout, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from raygan.data import DatasetConfig, load, prepare
from raygan.data.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("RAYGAN_CIFAR10") or ROOT.parent / "shared" / "data" / "cifar10")

pytestmark = [
    pytest.mark.cluster,  # the whole set
    pytest.mark.skipif(
        not (FOLDER / "test.parquet").exists(),
        reason=f"no {FOLDER}/test.parquet: set RAYGAN_CIFAR10 to a folder with train and "
        "test.parquet",
    ),
]


@pytest.mark.parametrize(
    ("pool", "count", "split"), [(False, 50_000, "train"), (True, 60_000, "train+test")]
)
def test_cifar10_is_prepared_whole(tmp_path, pool, count, split):
    where = prepare(DatasetConfig.of(name="cifar10", path=str(FOLDER), pool=pool), tmp_path)
    images, manifest = load(where), read_manifest(where)
    assert len(images) == count
    assert images.shape == (3, 32, 32)
    assert manifest["source"]["split"] == split
    assert manifest["corrupt"] == []
    # as published: 0.4914, 0.4822, 0.4465
    assert manifest["mean"] == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert (len(images.running), len(images.final)) == (200, 2000)
    taken = images.take(torch.arange(0, count, count // 2000)).flatten(1)
    assert len(torch.unique(taken, dim=0)) > 0.99 * len(taken)
