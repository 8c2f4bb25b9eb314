"""Sources in object storage: the same images, and bounded patience with a store that fails."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygan import retries
from raygan.data import DatasetConfig, load, prepare
from raygan.data.sources import find as sources
from raygan.errors import ConfigError, DataError
from raygan.retries import retrying
from tests.object_store import upload

pytestmark = pytest.mark.cluster  # a server for object storage


def read(name: str, path: str, **fields) -> np.ndarray:
    return np.stack(list(sources.read(DatasetConfig(name=name, path=path, **fields))))


def table(path: Path, cells: list[bytes]) -> None:
    rows = [{"bytes": cell, "path": "x"} for cell in cells]
    pq.write_table(pa.table({"image": rows}), path, row_group_size=5)


@pytest.fixture
def parquet(tmp_path, encode) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    for index in range(2):
        table(folder / f"train-{index}.parquet", [encode(12 * index + i) for i in range(12)])
    return folder


def test_a_folder_of_images(store, folder):
    upload(store, folder, "bucket/some images/ä")
    images = read("folder", "s3://bucket/some images/ä/")
    assert np.array_equal(images, read("folder", str(folder)))


@pytest.mark.parametrize(
    "path", ["hub", "hub/train-*.parquet", "hub/**/train-[01].parquet", "h*b/t*.parquet"]
)
def test_parquet(store, parquet, path):
    upload(store, parquet, "bucket/hub")
    assert read("parquet", f"s3://bucket/{path}")[:, 0, 0, 0].tolist() == list(range(24))


def test_one_parquet_file(store, parquet):
    upload(store, parquet, "bucket/hub")
    found = read("parquet", "s3://bucket/hub/train-1.parquet")
    assert found[:, 0, 0, 0].tolist() == list(range(12, 24))


def test_a_zip(store, folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    store.put("bucket/img_align_celeba.zip", (tmp_path / "img_align_celeba.zip").read_bytes())
    images = read("celeba", "s3://bucket/img_align_celeba.zip", crop=4)
    assert np.array_equal(images, read("folder", str(folder), crop=4))


def test_prepared_from_object_storage_is_the_same_set(store, folder, tmp_path):
    upload(store, folder, "bucket/images")
    config = DatasetConfig(name="folder", path="s3://bucket/images")
    where = prepare(config, tmp_path / "cache")
    local = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    assert load(where).digest == load(local).digest
    store.put("bucket/images/class-0/00.png", (folder / "class-0" / "02.png").read_bytes())
    assert prepare(config, tmp_path / "cache") != where


def test_what_is_not_there_is_not_asked_for_again(store):
    with pytest.raises(DataError, match=r"s3://bucket/none: no such file or folder"):
        read("folder", "s3://bucket/none")
    assert len(store.requests) < 8


def test_a_scheme_that_nobody_knows():
    with pytest.raises(ConfigError, match=r"nope://bucket/: neither pyarrow .* nor fsspec"):
        read("folder", "nope://bucket/x")


def test_fsspec_where_pyarrow_has_nothing(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for file in folder.rglob("*.png"):
        memory.pipe(f"/pictures/{file.relative_to(folder).as_posix()}", file.read_bytes())
    assert np.array_equal(read("folder", "memory://pictures"), read("folder", str(folder)))


def test_lmdb_in_object_storage_says_what_to_do(store):
    store.put("bucket/bedroom_train_lmdb/data.mdb", b"x")
    with pytest.raises(DataError, match="copy the folder to a disk"):
        read("lsun", "s3://bucket/bedroom_train_lmdb", size=8)


def test_only_the_errors_of_a_store_are_retried(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)

    def tries(error: Exception, path: str) -> int:
        count = 0

        def action() -> None:
            nonlocal count
            count += 1
            raise error

        with pytest.raises(type(error)):
            retrying(action, path)
        return count

    assert tries(OSError("503"), "s3://a/b") == retries.ATTEMPTS
    assert tries(OSError("503"), "/local") == 1
    assert tries(FileNotFoundError(), "s3://a/b") == 1
    assert tries(OSError(28, "No space left on device"), "s3://a/b") == 1
    assert tries(ValueError(), "s3://a/b") == 1
    with retries.once():
        assert tries(OSError("503"), "s3://a/b") == 1
    assert tries(OSError("503"), "s3://a/b") == retries.ATTEMPTS
