"""Row 10: object storage answers 503 while images are prepared."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygan import retries, storage
from raygan.data import DatasetConfig, load, prepare
from raygan.data.manifest import read_manifest
from raygan.errors import DataError
from tests.data.conftest import encoded
from tests.object_store import upload


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for index in range(24):
        (tmp_path / "images" / f"{index:02}.png").write_bytes(encoded(index))
    return tmp_path / "images"


@pytest.fixture
def parquet(tmp_path) -> Path:
    (tmp_path / "hub").mkdir()
    rows = [{"bytes": encoded(index), "path": "x"} for index in range(24)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "hub" / "a.parquet", row_group_size=5)
    return tmp_path / "hub"


def test_a_store_that_fails_for_a_while_is_asked_again(store, folder, parquet, tmp_path):
    upload(store, folder, "bucket/images")
    upload(store, parquet, "bucket/hub")
    for name, path in (("folder", "images"), ("parquet", "hub")):
        store.failures = 6
        where = prepare(DatasetConfig(name=name, path=f"s3://bucket/{path}"), tmp_path / "cache")
        assert store.failures == 0
        assert len(load(where)) == 24
        assert read_manifest(where)["corrupt"] == []


@pytest.mark.parametrize("good", [0, 20])
def test_patience_ends_with_a_clear_error(store, folder, tmp_path, good, monkeypatch):
    upload(store, folder, "bucket/images")
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    config = DatasetConfig(name="folder", path="s3://bucket/images", size=8)
    opened = storage.open_file
    calls = iter(range(10**6))

    def fail_later(path):
        if next(calls) == good:
            store.failures = 10**6
        return opened(path)

    monkeypatch.setattr(storage, "open_file", fail_later)
    with pytest.raises(DataError, match=r"s3://bucket/images.*: cannot be read \(.*503"):
        prepare(config, tmp_path / "cache")
    for found in (tmp_path / "cache").glob("*"):
        assert not (found / "manifest.json").exists()
