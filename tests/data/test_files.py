"""What is found at a path: the same on a disk and at an address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raygan.data import DatasetConfig, files
from raygan.data.sources import find as sources
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


@pytest.fixture
def pipe(tmp_path, encode) -> Path:
    """A named pipe among a few images; nobody opens its other end."""
    for name in ("a.png", "c.png"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(encode(7))
    made = tmp_path / "images" / "b.png"
    os.mkfifo(made)
    return made


@pytest.fixture
def no_pipe_is_opened(monkeypatch) -> None:
    """A test fails, and does not wait, where a pipe would be opened."""

    def opened(self: Path, *rest: object, **more: object) -> object:
        assert not self.is_fifo(), f"{self} is opened"
        return open(self, *rest, **more)  # noqa: PTH123

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.usefixtures("no_pipe_is_opened")
@pytest.mark.parametrize("glob", ["", "/*.png"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_pipe_among_images_is_left_out(pipe, scheme, glob):
    found = files.listing(f"{scheme}{pipe.parent}{glob}")
    assert [file.name for file in found] == ["a.png", "c.png"]
    config = DatasetConfig(name="folder", path=f"{scheme}{pipe.parent}{glob}")
    assert len(list(sources.read(config))) == 2


@pytest.mark.usefixtures("no_pipe_is_opened")
@pytest.mark.parametrize("name", ["folder", "parquet"])
def test_a_pipe_in_the_place_of_the_images_is_named(pipe, name):
    with pytest.raises(DataError, match=r"b\.png: is neither a file nor a folder, but perhaps a"):
        list(sources.read(DatasetConfig(name=name, path=str(pipe))))


def test_a_pipe_in_the_place_of_an_lmdb_database_is_named(tmp_path, monkeypatch):
    lmdb = pytest.importorskip("lmdb")
    monkeypatch.setattr(lmdb, "open", lambda *_, **__: pytest.fail("it is opened"))
    os.mkfifo(tmp_path / "data.mdb")
    with pytest.raises(DataError, match=r"data\.mdb is not a file"):
        list(sources.read(DatasetConfig(name="lsun", path=str(tmp_path), size=8)))


def test_links_to_files_are_followed(tmp_path, encode):
    (tmp_path / "a.png").write_bytes(encode(7))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").symlink_to(tmp_path / "a.png")
    for path in ("images", "images/*", "images/b.png"):
        assert [file.name for file in files.listing(f"{tmp_path}/{path}")] == ["b.png"]
