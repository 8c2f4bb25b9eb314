"""Preparing: once, whole or not at all; splits that are seeded and disjoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raygan import storage
from raygan.data import DatasetConfig, ImageSet, load, making, prepare
from raygan.data import decoders as parallel
from raygan.data.manifest import read_manifest
from raygan.data.sources import find as sources
from raygan.errors import DataError

MODULE = sys.modules["raygan.data.prepare"]  # the function of this name hides it


def prepared(folder: Path, cache: Path, **fields) -> ImageSet:
    return load(prepare(DatasetConfig(name="folder", path=str(folder), **fields), cache))


def entries(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir())


def pixels(images: ImageSet) -> np.ndarray:
    return torch.cat(list(images.shards)).numpy()


def test_a_prepared_set_holds_the_images_of_its_source(folder, tmp_path):
    images = prepared(folder, tmp_path / "cache")
    expected = list(sources.read(DatasetConfig(name="folder", path=str(folder))))
    assert np.array_equal(pixels(images), np.stack(expected))
    assert images.shape == (3, 8, 8)
    taken = images.take(torch.tensor([3, 0]))
    assert np.array_equal(taken.permute(0, 2, 3, 1).numpy(), np.stack(expected)[[3, 0]])


@pytest.fixture
def small_shards(monkeypatch) -> None:
    """Five images of 8×8 pixels in each."""
    monkeypatch.setattr(MODULE, "SHARD_BYTES", 1000)


def shards(folder: Path) -> list[int]:
    return [shard["count"] for shard in read_manifest(folder)["shards"]]


@pytest.mark.usefixtures("small_shards")
def test_shards_hold_the_images_in_order(folder, tmp_path):
    where = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    assert shards(where) == [5, 5, 5, 5, 4]
    red = pixels(load(where))[:, 0, 0, 0]
    assert red.tolist() == [*range(0, 240, 20), *range(10, 240, 20)]


@pytest.mark.usefixtures("small_shards")
def test_nothing_depends_on_who_makes_which_shard_when(folder, tmp_path):
    def backwards(function, items):
        yield from [function(item) for item in reversed(items)]

    same_sets(folder, tmp_path, parallel.in_turn, backwards)


@pytest.mark.cluster  # new processes
@pytest.mark.usefixtures("small_shards")
def test_two_processes_make_what_one_makes(folder, tmp_path):
    same_sets(folder, tmp_path, parallel.in_turn, parallel.processes(2))


def same_sets(folder, tmp_path, *maps):
    config = DatasetConfig(name="folder", path=str(folder), max_corrupt=0.1)
    (folder / "class-0" / "04.png").write_bytes(b"rubbish")
    found = [prepare(config, tmp_path / f"{i}", map=map_) for i, map_ in enumerate(maps)]
    assert len({where.name for where in found}) == 1
    for file in found[0].iterdir():
        assert {(where / file.name).read_bytes() for where in found} == {file.read_bytes()}
    assert len(read_manifest(found[0])["corrupt"]) == 1


def test_the_manifest_says_what_there_is(folder, tmp_path):
    config = DatasetConfig(name="folder", path=str(folder), size=4, split_seed=3)
    where = prepare(config, tmp_path / "cache")
    manifest = read_manifest(where)
    images = load(where)
    assert manifest["config"]["size"] == 4
    assert manifest["source"]["layout"] == "files"
    assert manifest["source"]["split"] == "all"
    assert manifest["source"]["images"] == 24
    assert manifest["shape"] == [24, 4, 4, 3]
    assert manifest["split_seed"] == 3
    assert manifest["running"] == images.running.tolist()
    assert manifest["mean"] == pytest.approx(pixels(images).mean((0, 1, 2)) / 255)
    assert manifest["versions"].keys() == {"raygan", "numpy", "pillow", "pyarrow", "torch"}
    (shard,) = manifest["shards"]
    assert hashlib.sha256((where / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert entries(where) == ["000000.arrow", "manifest.json"]


def test_another_way_of_decoding_is_another_set(folder, tmp_path, monkeypatch):
    config = DatasetConfig(name="folder", path=str(folder))
    first = prepare(config, tmp_path / "cache")
    assert read_manifest(first)["decoding"]["orientation"] == "EXIF"
    monkeypatch.setattr(MODULE, "DECODING", {**MODULE.DECODING, "orientation": "ignored"})
    assert prepare(config, tmp_path / "cache") != first


def test_a_manifest_that_does_not_say_how_images_were_decoded_is_read(folder, tmp_path):
    where = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    manifest = json.loads((where / "manifest.json").read_text())
    del manifest["decoding"]  # as of versions before
    (where / "manifest.json").write_text(json.dumps(manifest))
    assert len(load(where)) == 24


def test_progress_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "SHARD_BYTES", 8 * 8 * 3 * 10)
    heard = []
    config = DatasetConfig(name="folder", path=str(folder))
    prepare(config, tmp_path / "cache", progress=lambda *done: heard.append(done))
    assert heard == [(10, 24, (8, 8, 3)), (20, 24, (8, 8, 3)), (24, 24, (8, 8, 3))]


def test_a_table_of_long_row_groups_is_said_to_be_slow_once(tmp_path, encode, monkeypatch):
    monkeypatch.setattr(MODULE, "SHARD_BYTES", 8 * 8 * 3 * 2)
    path = tmp_path / "a.parquet"
    rows = pa.table({"image": [encode(index) for index in range(40)]})

    def said(size: int) -> list[str]:
        pq.write_table(rows, path, row_group_size=size)
        lines: list[str] = []
        prepare(DatasetConfig(name="parquet", path=str(path)), tmp_path / "c", say=lines.append)
        return lines

    (line,) = said(9)
    assert line == (
        "row groups: the longest has 9 rows. Each shard of up to 2 images reads its row group "
        "from the start, which takes long; write the table again with at most 2 rows in a group "
        "(pyarrow: row_group_size)"
    )
    assert said(8) == []


def parts(images: ImageSet) -> list[list[int]]:
    train = images.train.at(torch.arange(len(images.train)))
    return [part.tolist() for part in (train, images.running, images.final)]


def test_splits_are_disjoint_and_cover_all(folder, tmp_path):
    train, running, final = parts(prepared(folder, tmp_path, running=5, final=4))
    assert (len(train), len(running), len(final)) == (15, 5, 4)
    assert sorted(train + running + final) == list(range(24))


def test_splits_are_seeded_and_stored(folder, tmp_path):
    one, other = (prepared(folder, tmp_path, split_seed=seed) for seed in (1, 2))
    again = prepared(folder, tmp_path / "elsewhere", split_seed=1)
    assert parts(one) == parts(again)
    assert parts(one) != parts(other)
    assert one.digest == again.digest != other.digest


def test_by_default_at_most_an_eighth_is_held_out(folder, tmp_path):
    images = prepared(folder, tmp_path)
    assert (len(images.running), len(images.final)) == (3, 3)


def test_digits_hold_out_what_the_paper_does_as_far_as_they_go(tmp_path):
    images = load(prepare(DatasetConfig(size=8), tmp_path))
    assert (len(images.running), len(images.final), len(images.train)) == (200, 224, 1373)
    assert sorted(chain(*parts(images))) == list(range(1797))


@pytest.mark.usefixtures("small_shards")
def test_the_baseline_is_that_of_the_training_images(folder, tmp_path):
    images = prepared(folder, tmp_path)
    train, running, _ = parts(images)
    scaled = pixels(images) / 255
    error = scaled[running] - scaled[train].mean(0)
    assert images.baseline == pytest.approx((error**2).mean(), rel=1e-12)
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
    monkeypatch.setattr(MODULE, "make", lambda *_: pytest.fail("decoded again"))
    assert prepare(config, tmp_path / "cache") == first


@pytest.mark.parametrize("fields", [{"size": 4}, {"crop": 6}, {"running": 2}, {"split_seed": 3}])
def test_another_geometry_or_split_is_another_set(folder, tmp_path, fields):
    config = DatasetConfig(name="folder", path=str(folder))
    changed = DatasetConfig(name="folder", path=str(folder), **fields)
    assert prepare(config, tmp_path / "cache") != prepare(changed, tmp_path / "cache")


@pytest.mark.usefixtures("small_shards")
def test_two_that_prepare_at_once_do_not_collide(folder, tmp_path):
    meet, found = threading.Barrier(3, timeout=60), []
    config = DatasetConfig(name="folder", path=str(folder))

    def together(function, items):
        for item in items:
            meet.wait()
            yield function(item)

    threads = [
        threading.Thread(
            target=lambda: found.append(prepare(config, tmp_path / "cache", map=together))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert entries(tmp_path / "cache") == [found[0].name]
    assert entries(found[0]) == [*(f"{i:06}.arrow" for i in range(5)), "manifest.json"]
    assert len(load(found[0])) == 24


class Interruption(BaseException):
    """As Ctrl-C would: no exception that code may catch."""


def interrupted(config: DatasetConfig, cache: Path) -> Path:
    """Prepare until three shards are there; the folder."""

    def some(function, items):
        yield from map(function, items[:3])
        raise Interruption

    with pytest.raises(Interruption):
        prepare(config, cache, map=some)
    (folder,) = cache.iterdir()
    return folder


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["none", "shard", "note", "shard is gone", "note is rubbish"])
def test_an_interrupted_prepare_goes_on_with_the_shards_that_are_whole(
    folder, tmp_path, monkeypatch, damage
):
    config = DatasetConfig(name="folder", path=str(folder))
    whole = prepare(config, tmp_path / "elsewhere")
    where = interrupted(config, tmp_path / "cache")
    with pytest.raises(DataError, match=r"not a whole prepared data set.*delete"):
        load(where)
    if damage == "shard":
        data = bytearray((where / "000001.arrow").read_bytes())
        data[len(data) // 2] ^= 1
        (where / "000001.arrow").write_bytes(data)
    elif damage == "shard is gone":
        (where / "000001.arrow").unlink()
    elif damage != "none":
        (where / "000001.json").write_text("" if damage == "note" else '{"count": 5}')
    decoded = []
    decode = making._decode
    monkeypatch.setattr(making, "_decode", lambda j, p: decoded.append(p.files[0]) or decode(j, p))
    assert prepare(config, tmp_path / "cache") == where
    assert len(decoded) == (2 if damage == "none" else 3)
    assert (where / "manifest.json").read_text() == (whole / "manifest.json").read_text()
    assert entries(where) == entries(whole)


KILLED = """
import os, sys
from pathlib import Path
from raygan.data import DatasetConfig, prepare
sys.modules["raygan.data.prepare"].SHARD_BYTES = 1000
def told(done, total, shape):
    print(done, flush=True)
    if done > 10:
        os.kill(os.getpid(), 9)
prepare(DatasetConfig(name="folder", path=sys.argv[1]), Path(sys.argv[2]), progress=told)
"""


@pytest.mark.cluster  # a new process
@pytest.mark.usefixtures("small_shards")
def test_a_killed_prepare_is_not_taken_for_a_set(folder, tmp_path, run_python):
    run = run_python(KILLED, folder, tmp_path / "cache")
    assert run.returncode == -9
    config = DatasetConfig(name="folder", path=str(folder))
    where = prepare(config, tmp_path / "cache")
    whole = prepare(config, tmp_path / "elsewhere")
    assert (where / "manifest.json").read_text() == (whole / "manifest.json").read_text()


FULL = """
import resource, signal, sys
from pathlib import Path
from raygan.data import DatasetConfig, prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
prepare(DatasetConfig(name="folder", path=sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.cluster  # a new process
def test_a_disk_that_takes_no_more_is_a_clear_error(folder, tmp_path, run_python):
    run = run_python(FULL, folder, tmp_path / "cache")
    assert "DataError" in run.stderr
    assert (
        "cannot be written (File too large); incomplete shards are not used. Free some space"
        in run.stderr
    )
    (where,) = (tmp_path / "cache").iterdir()
    assert entries(where) == []
    assert len(prepared(folder, tmp_path / "cache")) == 24


def test_a_disk_without_room_is_an_error_before_anything_is_decoded(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=4000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(MODULE, "make", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        DataError, match=r"take 4,608 bytes, and the disk has 4,000 bytes left; make room"
    ):
        prepared(folder, tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/folder-\w+: cannot be made"):
        prepared(folder, tmp_path / "file")


# images that cannot be used


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damaged", [["class-0/04.png"], ["class-0/00.png"], [
    f"class-0/{i:02}.png" for i in range(0, 10, 2)]])  # fmt: skip
def test_unusable_images_are_left_out_and_named(folder, tmp_path, damaged):
    before = pixels(prepared(folder, tmp_path / "before"))
    for name in damaged:
        (folder / name).write_bytes(b"rubbish")
    config = DatasetConfig(name="folder", path=str(folder), max_corrupt=0.25)
    where = prepare(config, tmp_path / "cache")
    corrupt = read_manifest(where)["corrupt"]
    assert [image["where"] for image in corrupt] == [str(folder / name) for name in damaged]
    assert all("cannot be decoded" in image["reason"] for image in corrupt)
    kept = [i for i, file in enumerate(sorted(folder.rglob("*.png")))
            if str(file.relative_to(folder)) not in damaged]  # fmt: skip
    assert np.array_equal(pixels(load(where)), before[kept])
    assert sum(shards(where)) == 24 - len(damaged)
    whole = prepared(folder, tmp_path / "again", max_corrupt=0.5)
    assert whole.digest == load(where).digest


def test_more_unusable_images_than_allowed_are_an_error_that_names_the_first(folder, tmp_path):
    names = [f"class-1/{i:02}.png" for i in (1, 3, 5, 7, 9)]
    for name in names:
        (folder / name).write_bytes(b"")
    message = (
        r"of 24 images 5 or more cannot be used, and `dataset\.max_corrupt` \(=0\.17\) allows 4: "
        r".*class-1/01\.png: holds no image bytes; .*class-1/03\.png: .*class-1/05\.png: .*…$"
    )
    with pytest.raises(DataError, match=message):
        prepared(folder, tmp_path / "cache", max_corrupt=0.17)
    assert len(prepared(folder, tmp_path / "cache", max_corrupt=0.21)) == 19


def test_by_default_one_in_a_thousand_may_be_unusable(tmp_path, encode):
    (tmp_path / "images").mkdir()
    for index in range(1000):
        (tmp_path / "images" / f"{index:04}.png").write_bytes(encode(index % 250, (2, 2)))
    (tmp_path / "images" / "0500.png").write_bytes(b"rubbish")
    assert len(prepared(tmp_path / "images", tmp_path / "cache")) == 999
    (tmp_path / "images" / "0600.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="2 or more cannot be used"):
        prepared(tmp_path / "images", tmp_path / "cache")


@pytest.mark.usefixtures("small_shards")
def test_a_shard_may_be_left_without_images(folder, tmp_path):
    for index in range(10, 20, 2):
        (folder / "class-0" / f"{index:02}.png").write_bytes(b"")
    where = prepare(DatasetConfig(name="folder", path=str(folder), max_corrupt=0.5), tmp_path)
    assert shards(where) == [5, 5, 5, 4]
    assert len(load(where)) == 19


def test_nothing_but_unusable_images(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(40):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of the first images can be used: .*0\.png: cannot"):
        prepared(tmp_path / "images", tmp_path / "cache", max_corrupt=1.0)
    with pytest.raises(DataError, match="0 images are too few"):
        prepared(tmp_path / "images", tmp_path / "cache", max_corrupt=1.0, size=8)


def test_images_of_different_sizes_are_refused_with_the_remedy(folder, tmp_path, encode):
    (folder / "class-0" / "04.png").write_bytes(encode(1, (10, 8)))
    message = r"04\.png: 10×8 pixels, but the first image has 8×8; set `dataset\.size`"
    with pytest.raises(DataError, match=message):
        prepared(folder, tmp_path / "cache")
    assert prepared(folder, tmp_path / "cache", size=8).shape == (3, 8, 8)
    assert len(prepared(folder, tmp_path / "cache", max_corrupt=0.05)) == 23


def test_a_hostile_table_is_named_before_anything_is_made(tmp_path, encode):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(DataError, match=r"x\.parquet: not a readable Parquet file"):
        prepare(DatasetConfig(name="parquet", path=str(tmp_path)), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("fields", [{"running": 24}, {"running": 12, "final": 12}, {"final": 100}])
def test_too_few_images_are_refused_with_the_numbers(folder, tmp_path, fields):
    with pytest.raises(DataError, match=r"24 images are too few: .*none would be left") as caught:
        prepared(folder, tmp_path / "cache", **fields)
    assert all(
        f"`dataset.{name}` (={value})" in str(caught.value) for name, value in fields.items()
    )


@pytest.mark.parametrize(("count", "are"), [(1, "1 image is"), (3, "3 images are")])
def test_a_set_too_small_for_the_default_split_says_how_many_it_takes(tmp_path, encode, count, are):
    (tmp_path / "images").mkdir()
    for index in range(count):
        (tmp_path / "images" / f"{index}.png").write_bytes(encode(index))
    message = (
        f"{tmp_path}/images: {are} too few: by default an eighth of them is held out for each of "
        "`dataset.running` and `dataset.final`, which takes at least 8 images. Add images, or set "
        "both keys to 1, for which 3 images are enough"
    )
    with pytest.raises(DataError, match=f"^{message}$"):
        prepared(tmp_path / "images", tmp_path / "cache")


def test_three_images_are_enough_if_the_split_is_given(tmp_path, encode):
    (tmp_path / "images").mkdir()
    for index in range(3):
        (tmp_path / "images" / f"{index}.png").write_bytes(encode(index))
    assert len(prepared(tmp_path / "images", tmp_path / "cache", running=1, final=1)) == 3


@pytest.mark.parametrize("name", ["manifest.json", "000000.arrow"])
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
    with pytest.raises(DataError, match=rf"{where.name}.*prepare (it|the data set) again"):
        load(where)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1 is not 2"),
        ({"shape": [24, 8, 8, 1]}, "not a whole shard"),
        ({"shape": [23, 8, 8, 3]}, "its shards hold 24 images, its shape says 23"),
        ({"shape": [24, 8, 8, -3]}, "its shape is"),
        ({"shape": [24, 8, 8, True]}, "its shape is"),
        ({"shards": [{"file": "../000000.arrow", "count": 24, "sha256": ""}]}, "its shards are"),
        ({"shards": [{"file": "/etc/passwd", "count": 24, "sha256": ""}]}, "its shards are"),
        ({"shards": {"a": 1}}, "not a whole prepared data set"),
        ({"running": []}, "one of its splits is empty"),
        ({"running": [24]}, "not distinct images of the set"),
        ({"running": [1, 1]}, "not distinct images"),
        ({"running": [1], "final": [2, 1]}, "not distinct images"),
        ({"baseline": float("nan")}, "baseline"),
        ({"digest": 5}, "digest"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(folder, tmp_path, change, message):
    where = prepare(DatasetConfig(name="folder", path=str(folder)), tmp_path / "cache")
    manifest = json.loads((where / "manifest.json").read_text())
    (where / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError, match=rf"{where.name}.*{message}"):
        load(where)


def test_writing_to_a_loaded_set_does_not_reach_the_file(folder, tmp_path):
    cache = tmp_path / "cache"
    images = prepared(folder, cache)
    images.shards[0].zero_()
    assert pixels(prepared(folder, cache)).any()


@pytest.mark.parametrize("count", [1, 257, 258, 600])
def test_sums_do_not_overflow(count):
    assert (
        making._sum(np.full((count, 2, 2, 3), 255, np.uint8)).tolist()
        == [[[255 * count] * 3] * 2] * 2
    )


def test_a_set_with_more_unusable_images_than_now_allowed_is_not_used(folder, tmp_path):
    (folder / "class-1" / "01.png").write_bytes(b"")
    config = DatasetConfig(name="folder", path=str(folder), max_corrupt=0.5)
    where = prepare(config, tmp_path / "cache")
    assert prepare(replace(config, max_corrupt=0.1), tmp_path / "cache") == where
    with pytest.raises(DataError, match=r"`dataset\.max_corrupt` \(=0\.01\) allows 0: .*01\.png"):
        prepare(replace(config, max_corrupt=0.01), tmp_path / "cache")


@pytest.mark.parametrize("damage", ["shard", "manifest"])
def test_a_damaged_set_is_prepared_again(folder, tmp_path, damage):
    config = DatasetConfig(name="folder", path=str(folder))
    where = prepare(config, tmp_path / "cache")
    digest = load(where).digest
    if damage == "shard":
        os.truncate(where / "000000.arrow", 1000)
    else:
        (where / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="prepare"):
        load(where)
    assert prepare(config, tmp_path / "cache") == where
    assert load(where).digest == digest


def test_what_a_killed_preparation_wrote_aside_is_swept(folder, tmp_path):
    config = DatasetConfig(name="folder", path=str(folder))
    where = prepare(config, tmp_path / "cache")
    (where / "manifest.json").unlink()
    old, new = (f"000000.arrow.{digit * 32}.tmp" for digit in "ab")
    for name, age in ((old, 18_000), (new, 0), (".bashrc", 18_000)):
        (where / name).write_bytes(b"half")
        os.utime(where / name, (time.time() - age,) * 2)
    prepare(config, tmp_path / "cache")
    assert sorted(entries(where)) == sorted([new, ".bashrc", "000000.arrow", "manifest.json"])


def test_a_link_in_the_place_of_a_set_is_refused_and_nothing_behind_it_touched(folder, tmp_path):
    config = DatasetConfig(name="folder", path=str(folder))
    where = prepare(config, tmp_path / "cache")
    shutil.rmtree(where)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    os.utime(home / ".bashrc", (1, 1))
    where.symlink_to(home)
    with pytest.raises(DataError, match="symbolic link"):
        prepare(config, tmp_path / "cache")
    assert [path.name for path in home.iterdir()] == [".bashrc"]


def test_a_set_that_cannot_be_read_now_is_not_prepared_again(folder, tmp_path, monkeypatch):
    config = DatasetConfig(name="folder", path=str(folder))
    where = prepare(config, tmp_path / "cache")
    read = storage.read

    def away(path, limit):
        if path == f"{where}/manifest.json":
            raise OSError("503 Slow Down")
        return read(path, limit)

    monkeypatch.setattr(storage, "read", away)
    monkeypatch.setattr(MODULE, "make", lambda *_: pytest.fail("decoded again"))
    with pytest.raises(DataError, match="503 Slow Down"):
        prepare(config, tmp_path / "cache")
