"""Files that are not read: counted, said and stored; and what to do if nothing can be read."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raygan.data import DatasetConfig, prepare
from raygan.data.manifest import read_manifest
from raygan.data.sources import find as sources
from raygan.data.sources import leftout
from raygan.errors import ConfigError, DataError
from tests.data.pictures import saved


def count(name: str, path: Path, **fields) -> int:
    return len(list(sources.read(DatasetConfig.of(name=name, path=str(path), **fields))))


def refusal(name: str, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        sources.find(DatasetConfig(name=name, path=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "JIF", "jfi", "pjpeg", "pjp", "APNG", "Jpeg"])
def test_suffixes_that_hold_jpeg_or_png(tmp_path, encode, suffix):
    kind = "PNG" if suffix == "APNG" else "JPEG"
    (tmp_path / f"a.{suffix}").write_bytes(encode(1, kind=kind))
    assert count("folder", tmp_path) == 1


@pytest.fixture
def mixed(tmp_path) -> Path:
    """8 PNG files among files that are not read, some of them images."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for index in range(8):
        (folder / f"{index}.{'PNG' if index % 2 else 'png'}").write_bytes(
            saved(Image.new("L", (2, 2)), "PNG")
        )
    for name in ("a.TIFF", "b.tiff", "c.bmp", "d.gif", "notes.txt", "LICENSE", "old.tar.gz"):
        (folder / name).write_bytes(b"x")
    return folder


def test_files_that_are_left_out_are_said_and_stored(mixed, tmp_path):
    said: list[str] = []
    config = DatasetConfig(name="folder", path=str(mixed))
    where = prepare(config, tmp_path / "data", say=said.append)
    assert said == [
        "files left out, by suffix: 2 .tiff, 1 (no suffix), 1 .bmp, 1 .gif, 1 .txt, 1 .tar.gz"
    ]
    assert read_manifest(where)["source"]["left_out"] == {
        ".tiff": 2, "(no suffix)": 1, ".bmp": 1, ".gif": 1, ".txt": 1, ".tar.gz": 1,
    }  # fmt: skip


def test_the_same_in_a_zip(mixed, tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.mkdir("mixed")
        archive.writestr("__MACOSX/mixed/._0.png", b"Mac OS X")
        archive.writestr("mixed/.hidden.tiff", b"x")
        for file in mixed.iterdir():
            archive.write(file, f"mixed/{file.name}")
    source = sources.find(DatasetConfig(name="folder", path=str(tmp_path / "one.zip")))
    plain = sources.find(DatasetConfig(name="folder", path=str(mixed)))
    assert source.count == plain.count == 8
    assert source.left_out == plain.left_out


def test_what_lies_beside_a_zip_and_beside_tables(tmp_path, encode):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.png", encode(1))
        archive.writestr("a.txt", b"")
    (tmp_path / "list.txt").write_text("")
    found = sources.find(DatasetConfig(name="folder", path=str(tmp_path)))
    assert found.left_out == {".txt": 2}
    pq.write_table(pa.table({"image": [encode(1)]}), tmp_path / "a.parquet")
    found = sources.find(DatasetConfig(name="parquet", path=str(tmp_path)))
    assert found.left_out == {".zip": 1, ".txt": 1}


def test_hidden_files_are_not_counted(folder):
    for name in (".DS_Store", ".git/config.txt", "__MACOSX/a.tiff"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    assert sources.find(DatasetConfig(name="folder", path=str(folder))).left_out == {".txt": 1}


def test_nothing_is_said_if_nothing_is_left_out(folder):
    (folder / "README.txt").unlink()
    assert sources.find(DatasetConfig(name="folder", path=str(folder))).described() == []
    assert sources.find(DatasetConfig()).described() == []


def test_the_list_of_suffixes_is_bounded_and_has_no_control_characters():
    names = [f"a.{index}" for index in range(50)] + ["b.0"] + [f"c.\x1b{'x' * 200}"] * 3
    counts = leftout.counted(names)
    assert len(counts) == 11
    assert counts["(other suffixes)"] == 54 - 3 - 2 - 8
    first = next(iter(counts))
    assert first.startswith(r".\x1bxxx")
    assert len(first) < 60


# nothing that can be read


def test_an_empty_folder(tmp_path):
    assert refusal("folder", tmp_path) == (
        f"{tmp_path}: holds no PNG, JPEG or WEBP file (.png, .jpg, .webp …), no .zip file; "
        "it holds no files"
    )


@pytest.mark.parametrize("name", ["folder", "celeba", "lsun", "cifar10", "parquet"])
def test_a_folder_of_other_files_says_what_it_holds(tmp_path, name):
    for file in ("a.tiff", "b.tiff", "c.txt"):
        (tmp_path / file).write_text("")
    assert "; it holds 2 .tiff, 1 .txt" in refusal(name, tmp_path)


def test_the_other_source_is_named(tmp_path, folder, encode):
    assert refusal("parquet", folder).endswith("images are read by `dataset.name: folder`")
    pq.write_table(pa.table({"image": [encode(1)]}), tmp_path / "a.parquet")
    assert refusal("folder", tmp_path / "a.parquet").endswith("by `dataset.name: parquet`")


@pytest.mark.parametrize("name", ["folder", "celeba"])
def test_several_zips(tmp_path, name):
    (tmp_path / "two").mkdir()
    for file in ("img_align_celeba.zip", "img_celeba.zip"):
        with zipfile.ZipFile(tmp_path / "two" / file, "w") as archive:
            archive.writestr("a.png", b"")
    assert refusal(name, tmp_path / "two") == (
        f"{tmp_path}/two: holds 2 zip files and no images beside them: give the path of one in "
        "`dataset.path`, or unpack them (img_align_celeba.zip, img_celeba.zip)"
    )


def test_a_zip_without_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.gif", b"")
    assert "a.zip: holds no PNG, JPEG or WEBP" in (said := refusal("folder", tmp_path / "a.zip"))
    assert said.endswith("it holds 1 .gif")


@pytest.mark.parametrize("name", ["folder", "celeba", "lsun", "cifar10", "parquet"])
@pytest.mark.parametrize("file", ["shard 0.tar", "cifar-10-python.tar.gz", "a.TGZ"])
@pytest.mark.parametrize("inside", [False, True])
def test_an_archive_that_is_not_read_says_how_to_unpack_it(tmp_path, name, file, inside):
    (tmp_path / "wds").mkdir()
    (tmp_path / "wds" / file).write_text("")
    said = refusal(name, tmp_path / "wds" if inside else tmp_path / "wds" / file)
    target = f"{tmp_path}/wds/unpacked"
    quoted = f"'{tmp_path}/wds/{file}'" if " " in file else f"{tmp_path}/wds/{file}"
    assert said.endswith(
        f". Unpack it (mkdir -p {target} && tar -xf {quoted} -C {target}), then set "
        f"`dataset.path` to {target}"
    )


@pytest.mark.cluster  # new processes
def test_the_command_unpacks_what_is_then_read(tmp_path, folder):
    (tmp_path / "wds").mkdir()
    for part in ("0", "1"):
        with tarfile.open(tmp_path / "wds" / f"a {part}.tar.gz", "w:gz") as archive:
            archive.add(folder / f"class-{part}", arcname=f"class-{part}")
    said = refusal("folder", tmp_path / "wds")
    assert "and likewise the other 1)" in said
    command = said.partition("(mkdir")[2].partition(", and likewise")[0]
    subprocess.run(f"mkdir{command}", shell=True, check=True)
    assert count("folder", Path(said.rpartition(" to ")[2])) == 12


# names and addresses from outside


def test_control_characters_of_file_names_are_shown(folder):
    (folder / "class-0" / "a\x1b]0\n.png").write_bytes(b"rubbish")
    message = r"class-0/a\\x1b\]0\\n\.png: cannot be decoded"
    with pytest.raises(DataError, match=message):
        count("folder", folder)
    (folder / "b\x1b.parquet").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"b\\x1b\.parquet: not a readable Parquet file"):
        count("parquet", folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://key:secret@bucket/images", r"`dataset\.path` .*holds a user, a password or a key"),
        ("zip://a::s3://bucket/a.zip", r"`dataset\.path` .*joins several addresses"),
    ],
)
def test_an_address_with_a_secret_is_refused(path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        DatasetConfig(name="folder", path=path)
    assert "secret@" not in str(caught.value)
