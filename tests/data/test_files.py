"""What is found at a path: the same on a disk and at an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygan.data import files
from raygan.errors import DataError

NAMES = (
    "train-a.parquet", "train-b.parquet", "x1", ".hidden.parquet", "old/train-b.parquet",
    "old/x.parquet", "old/older/train-c.parquet", "train-old/x.parquet", "train-old/deep/x.parquet",
    ".cache/train-d.parquet", "a[1]/train-e.parquet", "a1/train-f.parquet",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.parquet", ["train-a.parquet", "train-b.parquet"]),
        ("train-*", ["train-a.parquet", "train-b.parquet"]),
        ("train-?.parquet", ["train-a.parquet", "train-b.parquet"]),
        ("train-[ac].parquet", ["train-a.parquet"]),
        ("train-*/*", ["train-old/x.parquet"]),
        ("*/*/*", ["old/older/train-c.parquet", "train-old/deep/x.parquet"]),
        ("*/**/x.parquet", ["old/x.parquet", "train-old/deep/x.parquet", "train-old/x.parquet"]),
        (
            "**/train-?.parquet",
            ["a1/train-f.parquet", "a[1]/train-e.parquet", "old/older/train-c.parquet",
             "old/train-b.parquet", "train-a.parquet", "train-b.parquet"],
        ),
        ("old/**", ["older/train-c.parquet", "train-b.parquet", "x.parquet"]),
        ("[o]ld/**/**/*c.parquet", ["old/older/train-c.parquet"]),
        ("x*/**", None),
        ("a[1]", ["train-e.parquet"]),
        ("a[1]/*", ["a1/train-f.parquet"]),
        ("a[1]/../*.zip", None),
    ],
)  # fmt: skip
def test_a_glob_takes_the_same_files_on_a_disk_and_at_an_address(root, pattern, names):
    for path in (f"{root}/{pattern}", f"file://{root}/{pattern}"):
        if names is None:
            with pytest.raises(DataError, match="no such file or folder"):
                files.listing(path)
        else:
            assert [file.name for file in files.listing(path)] == names
