"""Prepared sets in object storage: put there whole, copied once, checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raygan.data import DatasetConfig, cache, files, load, prepare, shared
from raygan.errors import DataError
from raygan.sweep import trial, worker

ADDRESS = "s3://bucket/raygan/data"


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Copies are held until the process ends, which these tests do not."""
    yield
    for folder in list(cache._in_use):
        cache.release(folder)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(trial, "DATA_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(worker, "DATA_CACHE", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_set_is_prepared_put_there_and_copied_to_another_node(store, folder, tmp_path):
    config = DatasetConfig(name="folder", path=str(folder))
    there = shared.prepare_shared(config, tmp_path / "one", ADDRESS)
    alone = prepare(config, tmp_path / "alone")
    assert there == f"{ADDRESS}/{alone.name}"
    found = {key.rpartition("/")[2] for key in store.objects}
    assert found == {"000000.arrow", "manifest.json"}
    assert shared.fetch(there, tmp_path / "one") == tmp_path / "one" / alone.name
    copied = shared.fetch(there, tmp_path / "other")
    assert load(copied).digest == load(alone).digest
    store.requests.clear()
    assert shared.prepare_shared(config, tmp_path / "third", ADDRESS) == there
    assert not (tmp_path / "third").exists()
    assert not [request for request in store.requests if request.startswith("PUT")]


def test_the_manifest_comes_last_and_a_failure_leaves_none(store, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ATTEMPTS", 2)
    config = DatasetConfig(name="folder", path=str(folder))
    put = shared._put

    def fail(file, address):
        if file.name == "manifest.json":
            raise OSError("503 Slow Down")
        put(file, address)

    with monkeypatch.context() as patched:
        patched.setattr(shared, "_put", fail)
        with pytest.raises(DataError, match=r"manifest\.json: cannot be written \(503 Slow Down"):
            shared.prepare_shared(config, tmp_path / "home", ADDRESS)
    assert not [key for key in store.objects if key.endswith("manifest.json")]
    there = shared.prepare_shared(config, tmp_path / "home", ADDRESS)
    assert len(load(shared.fetch(there, tmp_path / "other"))) == 24


def test_a_shard_that_was_damaged_there_is_refused(store, folder, tmp_path):
    there = shared.prepare_shared(
        DatasetConfig(name="folder", path=str(folder)), tmp_path / "home", ADDRESS
    )
    (key,) = (key for key in store.objects if key.endswith(".arrow"))
    data = bytearray(store.objects[key])
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(DataError, match=r"000000\.arrow: its checksum is not the manifest's"):
        shared.fetch(there, tmp_path / "other")


def test_workers_of_a_sweep_load_what_was_put_there(store, folder, home, tmp_path, monkeypatch):
    dataset = {"name": "folder", "path": str(folder)}
    data = trial.prepare_images(dataset, ADDRESS, [])
    assert data["folder"].startswith(f"{ADDRESS}/folder-")
    job = {"prepared": data["folder"], "dataset": dataset, "digest": data["digest"]}
    assert len(worker.load_images(job)) == 24
    monkeypatch.setattr(worker, "DATA_CACHE", str(tmp_path / "another-node"))
    assert len(worker.load_images(job)) == 24
    with pytest.raises(DataError, match="not the images that the sweep began with"):
        worker.load_images({**job, "digest": "another"})


def test_a_node_without_the_folder_prepares_for_itself(folder, home, tmp_path):
    dataset = {"name": "folder", "path": str(folder)}
    data = trial.prepare_images(dataset, str(tmp_path / "storage"), [])
    job = {"prepared": "/of/another/node", "dataset": dataset, "digest": data["digest"]}
    assert len(worker.load_images(job)) == 24
    assert [entry.name for entry in home.iterdir()] == [Path(data["folder"]).name]
