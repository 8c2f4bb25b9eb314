"""Published splits: told by the names of files and folders, chosen, and said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygan.data import DatasetConfig, prepare
from raygan.data.manifest import read_manifest
from raygan.data.sources import find as sources
from raygan.data.sources import pickles, splits
from raygan.errors import ConfigError, DataError
from raygan.sweep.spec.sweep_spec import load as load_spec


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001-0a1b2c.parquet", "validation"),
        ("data/Unlabelled-00003-of-00010.parquet", "unlabelled"),
        ("default/test/0000.parquet", "test"),
        ("train/part-00000-of-00002.parquet", "train"),
        ("TEST.parquet", "test"),
        ("val_2.parquet", "validation"),
        ("dev/x.parquet", "validation"),
        ("eval.parquet", "test"),
        ("trainer.parquet", ""),
        ("0000.parquet", ""),
        ("images.parquet", ""),
    ],
)
def test_the_split_of_a_table(name, split):
    assert splits.of_table(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/dog/1.png", "train"),
        ("pictures/Val/1.png", "validation"),
        ("test/train/1.png", "test"),
        ("train.png", ""),
        ("trains/1.png", ""),
    ],
)
def test_the_split_of_an_image_is_that_of_its_folder(name, split):
    assert splits.of_folder(name) == split


@pytest.fixture
def hub(tmp_path, encode) -> Path:
    """Parquet files of three splits with 9, 2 and 1 images, whose first shades are 0, 100, 200."""
    for split, shade, count in (("train", 0, 9), ("validation", 100, 2), ("test", 200, 1)):
        cells = [encode(shade + index, (2, 2)) for index in range(count)]
        path = tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": cells}), path)
    return tmp_path / "hub"


TRAIN, VALIDATION, TEST = [*range(9)], [100, 101], [200]


def shades(name: str, path: Path, **fields) -> list[int]:
    images = sources.read(DatasetConfig.of(name=name, path=str(path), **fields))
    return [int(image[0, 0, 0]) for image in images]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (None, TRAIN),
        ("train", TRAIN),
        ("validation", VALIDATION),
        ("val", VALIDATION),
        ("Test", TEST),
        (["train", "validation"], TRAIN + VALIDATION),
        (["test", "train"], TEST + TRAIN),
        ("all", TEST + TRAIN + VALIDATION),  # in the order of the files' names
    ],
)
def test_a_split_is_chosen(hub, split, expected):
    assert shades("parquet", hub, split=split) == expected


def test_the_split_is_said_and_stored(hub, tmp_path):
    said: list[str] = []
    where = prepare(
        DatasetConfig(name="parquet", path=str(hub)), tmp_path / "data", say=said.append
    )
    assert said == ["split: train of test, train, validation; `dataset.split` chooses others"]
    source = read_manifest(where)["source"]
    assert source["split"] == "train"
    assert source["splits"] == ["test", "train", "validation"]
    assert source["images"] == 9
    both = DatasetConfig(name="parquet", path=str(hub), split=["train", "test"])
    assert prepare(both, tmp_path / "data") != where


def test_a_split_that_is_not_there_is_refused_with_those_that_are(hub):
    message = (
        r"has no split dev2; it has test, train, validation\. Set `dataset\.split` to one .*`all`"
    )
    with pytest.raises(DataError, match=message):
        shades("parquet", hub, split="dev2")


def test_files_of_no_split_are_all_used_by_default(hub, encode):
    pq.write_table(pa.table({"image": [encode(50)]}), hub / "extra.parquet")
    assert shades("parquet", hub) == [*TEST, *TRAIN, *VALIDATION, 50]
    assert shades("parquet", hub, split="train") == TRAIN
    source = sources.find(DatasetConfig(name="parquet", path=str(hub)))
    assert source.split == "all"
    (line,) = source.described()
    assert line.startswith("split: all of test, train, validation, (files of no split); ")


def test_one_file_is_used_whatever_it_is_called(hub):
    assert shades("parquet", hub / "data" / "test-00000-of-00001.parquet") == TEST
    assert sources.find(DatasetConfig(name="parquet", path=f"{hub}/data/t*")).splits == (
        "test",
        "train",
    )


def test_folders_that_a_glob_matches_tell_the_split(tmp_path, encode):
    for index, split in enumerate(("test", "train")):
        (tmp_path / split).mkdir()
        pq.write_table(pa.table({"image": [encode(index)]}), tmp_path / split / "0000.parquet")
    assert shades("parquet", tmp_path / "t*" / "*.parquet") == [1]


@pytest.fixture
def halves(folder) -> Path:
    """The folder of images, its two folders called by splits."""
    (folder / "class-0").rename(folder / "train")
    (folder / "class-1").rename(folder / "test")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_folders_of_images_are_splits_too(halves, packed):
    if packed:
        halves = Path(shutil.make_archive(str(halves.with_name("packed")), "zip", halves))
    even, odd = [*range(0, 240, 20)], [*range(10, 240, 20)]
    assert shades("folder", halves) == even
    assert shades("folder", halves, split="test") == odd
    assert shades("folder", halves, split="all") == odd + even
    assert shades("celeba", halves, crop=8) == odd + even  # its folder and its zip hold all


def test_a_class_called_train_among_others_is_no_split(halves):
    (halves / "test").rename(halves / "ship")
    assert len(shades("folder", halves)) == 24


def test_images_without_splits(folder):
    with pytest.raises(DataError, match="has no split train; none of its files or folders is"):
        shades("folder", folder, split="train")
    assert len(shades("folder", folder, split="all")) == 24


def test_the_batches_of_cifar10_are_splits(tmp_path, monkeypatch):
    for name in (*pickles.TRAIN, *pickles.TEST):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(pickles, "batch", lambda path: [path])

    def names(**fields) -> list[str]:
        source = sources.find(DatasetConfig.of(name="cifar10", path=str(tmp_path), **fields))
        return [Path(part.path).name for piece in source.cut(10) for part in piece.parts]

    assert names() == list(pickles.TRAIN)
    assert names(split="test") == list(pickles.TEST)
    assert names(split="all") == names(pool=True) == [*pickles.TRAIN, *pickles.TEST]
    with pytest.raises(DataError, match="has no split validation; it has train, test"):
        names(split="validation")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "train"}, "digits has no splits"),
        ({"name": "cifar10", "path": "x", "split": "train", "pool": True}, "remove one of"),
        ({"name": "parquet", "path": "x", "split": ""}, r"`dataset\.split` \(=''\) must name"),
        ({"name": "parquet", "path": "x", "split": []}, r"`dataset\.split` \(=\[\]\) must name"),
        ({"name": "parquet", "path": "x", "split": ["all", "test"]}, "must be `all` alone"),
    ],
)
def test_a_wrong_split_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        DatasetConfig.of(**fields)


@pytest.mark.parametrize(
    ("split", "expected"), [("train", ("train",)), ("[train, test]", ("train", "test"))]
)
def test_a_sweep_names_a_split_or_several(tmp_path, split, expected):
    (tmp_path / "a.yaml").write_text("name: a\ndataset: {name: parquet, path: x}\n")
    spec = load_spec(tmp_path / "a.yaml", [f"dataset.split={split}"])
    (config,) = spec.datasets().values()
    assert config.splits() == expected


@pytest.mark.parametrize("split", ["3", "[1]", "{a: 1}"])
def test_what_is_no_split_is_refused_in_one_line(tmp_path, split):
    (tmp_path / "a.yaml").write_text(
        f"name: a\ndataset: {{name: parquet, path: x, split: {split}}}\n"
    )
    message = r"a\.yaml:2: `dataset\.split`[^\n]*: input should be a valid string[^\n]*$"
    with pytest.raises(ConfigError, match=message):
        load_spec(tmp_path / "a.yaml")
