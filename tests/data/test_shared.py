"""Prepared sets in object storage: put there whole, copied once, checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raygan import storage
from raygan.data import DatasetConfig, cache, files, load, making, prepare, shared
from raygan.errors import ConfigError, DataError
from raygan.sweep.cluster import worker
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.preparing import Preparation, prepare_images
from raygan.sweep.study.prepared import PreparedSet

ADDRESS = "s3://bucket/raygan/data"

pytestmark = pytest.mark.cluster  # a server for object storage


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Copies are held until the process ends, which these tests do not."""
    yield
    for folder in list(cache._in_use):
        cache.release(folder)


@pytest.fixture(autouse=True)
def node(tmp_path, monkeypatch) -> Path:
    """The folder of this node for copies."""
    monkeypatch.setenv("RAYGAN_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


def test_a_set_is_prepared_there_and_copied_to_each_node(store, folder, tmp_path, monkeypatch):
    config = DatasetConfig(name="folder", path=str(folder))
    there = prepare(config, ADDRESS)
    alone = prepare(config, tmp_path / "alone")
    assert there == f"{ADDRESS}/{alone.name}"
    # and "", by which pyarrow marks a folder out of which something was deleted
    assert {key.rpartition("/")[2] for key in store.objects} == {
        "000000.arrow",
        "manifest.json",
        "",
    }
    assert (
        store.objects[f"bucket/raygan/data/{alone.name}/manifest.json"]
        == (alone / "manifest.json").read_bytes()
    )
    copied = shared.fetch(there)
    assert load(copied).digest == load(alone).digest
    assert shared.fetch(there) == copied
    monkeypatch.setenv("RAYGAN_CACHE", str(tmp_path / "other node"))
    assert load(shared.fetch(there)).digest == load(alone).digest
    store.requests.clear()
    assert prepare(config, ADDRESS) == there
    assert not [request for request in store.requests if request.startswith("PUT")]


def test_the_manifest_comes_last_and_another_node_goes_on(store, folder, tmp_path, monkeypatch):
    """Without a manifest nothing is used; with the notes of the first, nothing is made again."""
    monkeypatch.setattr(sys.modules["raygan.data.prepare"], "SHARD_BYTES", 1000)
    config = DatasetConfig(name="folder", path=str(folder))
    write = storage.write

    def fail(path, data):
        if path.endswith("manifest.json"):
            raise OSError("503 Slow Down")
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write", fail)
        with pytest.raises(DataError, match=r"cannot be written \(503 Slow Down"):
            prepare(config, ADDRESS)
    assert not [key for key in store.objects if key.endswith("manifest.json")]
    with monkeypatch.context() as patched:
        patched.setattr(making, "_decode", lambda *_: pytest.fail("decoded again"))
        there = prepare(config, ADDRESS)
    whole = prepare(config, tmp_path / "alone")
    assert storage.read(f"{there}/manifest.json", 10**6) == (whole / "manifest.json").read_bytes()
    assert not [key for key in store.objects if key.endswith("00.json")]
    assert len(load(shared.fetch(there))) == 24


def test_shards_of_other_libraries_are_made_again(store, folder, monkeypatch):
    config = DatasetConfig(name="folder", path=str(folder))
    with monkeypatch.context() as patched:
        patched.setattr(storage, "remove", lambda _: None)
        patched.setattr(making, "versions", lambda: {"pillow": "0"})
        there = prepare(config, ADDRESS)
    store.objects = {k: v for k, v in store.objects.items() if not k.endswith("manifest.json")}
    decoded = []
    decode = making._decode
    monkeypatch.setattr(making, "_decode", lambda j, p: decoded.append(p) or decode(j, p))
    assert prepare(config, ADDRESS) == there
    assert len(decoded) == 1


def test_a_shard_that_was_damaged_there_is_refused_by_its_address(store, folder):
    there = prepare(DatasetConfig(name="folder", path=str(folder)), ADDRESS)
    (key,) = (key for key in store.objects if key.endswith(".arrow"))
    data = bytearray(store.objects[key])
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(DataError, match=rf"{there}/000000\.arrow: its checksum .* delete {there} "):
        shared.fetch(there)


def test_a_copy_serves_while_the_storage_is_away(store, folder, monkeypatch):
    def away(path):
        raise DataError(f"{path}: cannot be read (503)")

    there = prepare(DatasetConfig(name="folder", path=str(folder)), ADDRESS)
    copied = shared.fetch(there)
    monkeypatch.setattr(files, "listing", away)
    assert shared.fetch(there) == copied
    cache.release(copied)
    with pytest.raises(DataError, match="cannot be read"):
        shared.fetch(f"{there}-other")


@pytest.mark.parametrize("given", ["0", "-1", "lots", "nan", "1e999"])
def test_the_room_for_copies_is_a_positive_number(monkeypatch, given):
    monkeypatch.setenv("RAYGAN_CACHE_GB", given)
    with pytest.raises(ConfigError, match=r"RAYGAN_CACHE_GB \(=.*\) must be a positive number"):
        shared.fetch(ADDRESS)


def preparation(images: Path, folder: str) -> Preparation:
    return Preparation(dataset={"name": "folder", "path": str(images)}, folder=folder)


def job_on(prepared: PreparedSet) -> Job:
    return Job(trial="a", config={}, folder="", prepared=prepared.folder, digest=prepared.digest)


def test_workers_of_a_sweep_load_what_was_put_there(store, folder, tmp_path, monkeypatch):
    prepared = prepare_images(preparation(folder, ADDRESS))
    assert prepared.folder.startswith(f"{ADDRESS}/folder-")
    assert (prepared.shape, prepared.train) == ("3×8×8", 18)
    assert not (tmp_path / "node").exists()  # nothing is copied to where nothing is trained
    job = job_on(prepared)
    assert len(worker.load_images(job)) == 24
    monkeypatch.setenv("RAYGAN_CACHE", str(tmp_path / "another node"))
    assert len(worker.load_images(job)) == 24
    with pytest.raises(DataError, match="not the images that the sweep began with"):
        worker.load_images(replace(job, digest="another"))


def test_a_node_that_does_not_see_the_folder_says_so(folder, tmp_path):
    job = job_on(prepare_images(preparation(folder, str(tmp_path / "storage"))))
    assert len(worker.load_images(job)) == 24
    with pytest.raises(DataError, match="/of/another/node: not a whole prepared data set"):
        worker.load_images(replace(job, prepared="/of/another/node"))
