"""Preparing: once, whole or not at all; splits that are seeded and disjoint."""

from __future__ import annotations

import json
import os
import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from raygan.data import DatasetConfig, ImageSet, load, prepare, sources
from raygan.data.images import mean_image_loss
from raygan.errors import DataError


def prepared(folder: Path, cache: Path, **fields) -> ImageSet:
    return load(prepare(DatasetConfig(name="folder", path=str(folder), **fields), cache))


def entries(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir())


def test_a_prepared_set_holds_the_images_of_its_source(folder, tmp_path):
    images = prepared(folder, tmp_path / "cache")
    expected = list(sources.read(DatasetConfig(name="folder", path=str(folder))))
    assert images.pixels.dtype == torch.uint8
    assert np.array_equal(images.pixels.numpy(), np.stack(expected))
    assert images.shape == (3, 8, 8)
    assert images.resident(torch.device("cpu")) is images


def test_taken_images_are_channels_last_in_memory(folder, tmp_path):
    images = prepared(folder, tmp_path / "cache")
    taken = images.take(torch.tensor([3, 0]))
    assert taken.shape == (2, 3, 8, 8)
    assert taken.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(taken[0].permute(1, 2, 0), images.pixels[3])


def parts(images: ImageSet) -> list[list[int]]:
    return [part.tolist() for part in (images.train, images.running, images.final)]


def test_splits_are_disjoint_and_cover_all(folder, tmp_path):
    train, running, final = parts(prepared(folder, tmp_path, running=5, final=4))
    assert (len(train), len(running), len(final)) == (15, 5, 4)
    assert sorted(train + running + final) == list(range(24))


def test_splits_are_seeded_and_stored(folder, tmp_path):
    one, other = (prepared(folder, tmp_path, split_seed=seed) for seed in (1, 2))
    again = prepared(folder, tmp_path / "elsewhere", split_seed=1)
    assert parts(one) == parts(again)
    assert parts(one) != parts(other)
    assert one.digest == other.digest  # the same images


def test_by_default_at_most_an_eighth_is_held_out(folder, tmp_path):
    images = prepared(folder, tmp_path)
    assert (len(images.running), len(images.final)) == (3, 3)


def test_digits_hold_out_what_the_paper_does_as_far_as_they_go(tmp_path):
    images = load(prepare(DatasetConfig(size=8), tmp_path))
    assert (len(images.running), len(images.final), len(images.train)) == (200, 224, 1373)
    assert sorted(chain(*parts(images))) == list(range(1797))


def test_the_baseline_is_that_of_the_training_images(folder, tmp_path):
    images = prepared(folder, tmp_path)
    assert images.baseline == mean_image_loss(images.pixels, images.train, images.running)
    assert images.baseline > 0


def test_the_digest_is_stable_and_changes_with_the_content(folder, tmp_path, encode):
    first = prepared(folder, tmp_path / "a").digest
    assert prepared(folder, tmp_path / "b").digest == first
    (folder / "class-0" / "00.png").write_bytes(encode(1))
    assert prepared(folder, tmp_path / "a").digest != first


def test_the_digest_changes_with_the_shape_of_the_same_bytes(tmp_path, encode):
    digests = set()
    for size in ((4, 16), (16, 4)):
        root = tmp_path / f"{size}"
        root.mkdir()
        for index in range(4):
            (root / f"{index}.png").write_bytes(encode(9, size))
        digests.add(prepared(root, tmp_path / "cache", running=1, final=1).digest)
    assert len(digests) == 2


def test_the_digest_does_not_depend_on_the_names_of_the_files(folder, tmp_path):
    first = prepared(folder, tmp_path / "cache").digest
    folder.rename(folder.with_name("moved"))
    assert prepared(folder.with_name("moved"), tmp_path / "cache").digest == first


def test_what_is_prepared_is_used_again(folder, tmp_path, monkeypatch):
    config = DatasetConfig(name="folder", path=str(folder))
    first = prepare(config, tmp_path / "cache")
    monkeypatch.setattr(sources, "read", lambda _: pytest.fail("decoded again"))
    assert prepare(config, tmp_path / "cache") == first


@pytest.mark.parametrize("fields", [{"size": 4}, {"crop": 6}, {"running": 2}, {"split_seed": 3}])
def test_another_geometry_or_split_is_another_set(folder, tmp_path, fields):
    config = DatasetConfig(name="folder", path=str(folder))
    changed = DatasetConfig(name="folder", path=str(folder), **fields)
    assert prepare(config, tmp_path / "cache") != prepare(changed, tmp_path / "cache")


def test_two_that_prepare_at_once_do_not_collide(folder, tmp_path, monkeypatch):
    meet, read, found = threading.Barrier(3, timeout=60), sources.read, []

    def read_together(config):
        meet.wait()
        yield from read(config)
        meet.wait()

    monkeypatch.setattr(sources, "read", read_together)
    config = DatasetConfig(name="folder", path=str(folder))
    threads = [
        threading.Thread(target=lambda: found.append(prepare(config, tmp_path / "cache")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert entries(tmp_path / "cache") == [found[0].name]
    assert len(load(found[0]).pixels) == 24


class Interruption(BaseException):
    """As Ctrl-C would: no exception that code may catch."""


def test_an_interrupted_prepare_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    config, read = DatasetConfig(name="folder", path=str(folder)), sources.read

    def read_half(config):
        for index, image in enumerate(read(config)):
            if index == 10:
                raise Interruption
            yield image

    with monkeypatch.context() as patched:
        patched.setattr(sources, "read", read_half)
        with pytest.raises(Interruption):
            prepare(config, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert len(load(prepare(config, tmp_path / "cache")).pixels) == 24


def test_leftovers_of_a_killed_prepare_are_not_taken_for_a_set(folder, tmp_path):
    config = DatasetConfig(name="folder", path=str(folder))
    whole = prepare(config, tmp_path / "cache")
    aside = whole.with_name(f".{whole.name}-killed")
    whole.rename(aside)
    (aside / "manifest.json").unlink()
    assert len(load(prepare(config, tmp_path / "cache")).pixels) == 24


def test_images_of_different_sizes_are_refused_with_the_remedy(folder, tmp_path, encode):
    (folder / "class-0" / "04.png").write_bytes(encode(1, (10, 8)))
    message = r"image 2 of .*images has 10×8 pixels, those before it 8×8; set `dataset\.size`"
    with pytest.raises(DataError, match=message):
        prepared(folder, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert prepared(folder, tmp_path / "cache", size=8).shape == (3, 8, 8)


@pytest.mark.parametrize("fields", [{"running": 24}, {"running": 12, "final": 12}, {"final": 100}])
def test_too_few_images_are_refused_with_the_numbers(folder, tmp_path, fields):
    with pytest.raises(DataError, match="24 images are too few") as caught:
        prepared(folder, tmp_path / "cache", **fields)
    assert all(
        f"`dataset.{name}` (={value})" in str(caught.value) for name, value in fields.items()
    )


def test_a_single_image_is_too_few(tmp_path, encode):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode(1))
    with pytest.raises(DataError, match="1 images are too few"):
        prepared(tmp_path / "images", tmp_path / "cache")


@pytest.mark.parametrize("name", ["manifest.json", "images.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "rubbish"])
def test_a_damaged_set_is_refused_with_the_remedy(folder, tmp_path, name, damage):
    where = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    file = where / name
    if damage == "missing":
        file.unlink()
    elif damage == "rubbish":
        file.write_bytes(b"\xff\x00rubbish")
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 200)
    with pytest.raises(DataError, match=rf"{where.name}.*delete"):
        load(where)


@pytest.mark.parametrize("shape", [[24, 8, 8, 1], [23, 8, 8, 3]])
def test_a_manifest_that_says_otherwise_is_refused(folder, tmp_path, shape):
    where = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    manifest = json.loads((where / "manifest.json").read_text())
    (where / "manifest.json").write_text(json.dumps({**manifest, "shape": shape}))
    with pytest.raises(DataError, match="not what its manifest says"):
        load(where)


def test_writing_to_a_loaded_set_does_not_reach_the_file(folder, tmp_path):
    cache = tmp_path / "cache"
    images = prepared(folder, cache)
    images.pixels.zero_()
    assert prepared(folder, cache).pixels.any()
