"""Readers of folders and Parquet tables; errors name the file."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from raygan.data import DatasetConfig, sources
from raygan.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
CLASSES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(name: str, path: Path, **fields) -> list[np.ndarray]:
    return list(sources.read(DatasetConfig(name=name, path=str(path), **fields)))


def table(column: str, cells: list[bytes | None], *, as_struct: bool = True) -> pa.Table:
    labels = pa.array(range(len(cells)))
    if not as_struct:
        return pa.table({"label": labels, column: pa.array(cells, pa.binary())})
    rows = [{"bytes": cell, "path": "x.png"} for cell in cells]
    return pa.table({column: pa.array(rows, CLASSES), "label": labels})


@pytest.fixture
def parquet(tmp_path, encode) -> Path:
    path = tmp_path / "train.parquet"
    pq.write_table(table("img", [encode(10 * index) for index in range(20)]), path)
    return path


def test_digits_are_all_there():
    images = list(sources.read(DatasetConfig()))
    assert len(images) == 1797
    assert {image.shape for image in images} == {(32, 32, 1)}
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert images[0].min() == 0
    assert images[0].max() > 200


def test_digits_come_in_any_even_size():
    first = next(sources.read(DatasetConfig(size=16)))
    assert first.shape == (16, 16, 1)


def test_a_folder_is_read_in_a_fixed_order_with_its_subfolders(folder):
    images = read("folder", folder)
    assert [image[0, 0, 0] for image in images] == [*range(0, 240, 20), *range(10, 240, 20)]
    assert {image.shape for image in images} == {(8, 8, 3)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("upper", [False, True])
def test_image_formats(tmp_path, encode, kind, upper):
    suffix = kind if upper else kind.lower()
    (tmp_path / f"image.{suffix}").write_bytes(encode(100, (6, 10), kind))
    (image,) = read("folder", tmp_path)
    assert image.shape == (10, 6, 3)
    assert np.abs(image.astype(int) - (100, 155, 7)).max() <= 3  # jpeg is lossy


@pytest.mark.parametrize("column", ["img", "image"])
@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_columns(tmp_path, encode, column, as_struct):
    path = tmp_path / "table.parquet"
    pq.write_table(table(column, [encode(5), encode(6)], as_struct=as_struct), path)
    assert [image[0, 0, 0] for image in read("parquet", path)] == [5, 6]


def test_a_folder_of_parquet_files_is_read_in_order(tmp_path, encode):
    for index in (2, 0, 1):
        pq.write_table(table("img", [encode(index)] * 2), tmp_path / f"{index}.parquet")
    assert [image[0, 0, 0] for image in read("parquet", tmp_path)] == [0, 0, 1, 1, 2, 2]


def test_row_groups_do_not_matter(tmp_path, encode):
    path = tmp_path / "table.parquet"
    pq.write_table(table("img", [encode(i) for i in range(9)]), path, row_group_size=2)
    assert [image[0, 0, 0] for image in read("parquet", path)] == list(range(9))


def test_a_home_folder_may_be_given_by_its_sign(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(read("folder", Path("~/images"))) == 24


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (20, 30)),
        ({"size": 8}, (8, 8)),
        ({"crop": 10}, (10, 10)),
        ({"crop": 10, "size": 4}, (4, 4)),
        ({"size": 40}, (40, 40)),
    ],
)
def test_crop_then_resize(tmp_path, encode, fields, shape):
    (tmp_path / "a.png").write_bytes(encode(9, (30, 20)))
    (image,) = read("folder", tmp_path, **fields)
    assert image.shape == (*shape, 3)
    assert (image == (9, 246, 7)).all()


def test_the_crop_is_the_centre():
    pixels = np.zeros((6, 10, 3), np.uint8)
    pixels[2:4, 4:6] = 200
    image = sources.decode(png(pixels), "here", crop=2, size=None)
    assert (image == 200).all()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_grey_transparent_and_palette_images_become_rgb():
    grey = np.full((4, 4), 77, np.uint8)
    image = sources.decode(png(grey), "here", crop=None, size=None)
    assert image.tolist() == np.full((4, 4, 3), 77).tolist()
    transparent = np.full((4, 4, 4), 77, np.uint8)
    assert sources.decode(png(transparent), "here", crop=None, size=None).shape == (4, 4, 3)


# what goes wrong, and that the error names the file


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        (8_200, "8200×8200 pixels are more than"),
        (10_000, "decompression bomb"),
        (60_000, "decompression bomb"),
    ],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(folder, side, reason):
    (folder / "class-1" / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(DataError, match=rf"class-1/bomb\.png: .*{reason}"):
        read("folder", folder)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_corrupt_image_is_named(folder, encode, kind, damage):
    file = folder / "class-0" / f"corrupt.{kind.lower()}"
    whole = encode(1, (64, 64), kind)
    damaged = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not an image"}
    file.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=rf"class-0/corrupt\.{kind.lower()}.*cannot be decoded"):
        read("folder", folder)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    length=st.floats(0, 1),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_decoded_or_a_data_error(encode, kind, changes, length):
    data = bytearray(encode(3, (16, 16), kind))
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: max(1, round(length * len(data)))]
    with contextlib.suppress(DataError):  # and nothing else
        assert sources.decode(bytes(data), "here", crop=None, size=8).shape == (8, 8, 3)


def test_other_formats_are_not_decoded(encode):
    with pytest.raises(DataError, match="here: cannot be decoded as PNG, JPEG, WEBP"):
        sources.decode(encode(1, kind="GIF"), "here", crop=None, size=None)


@pytest.mark.parametrize("name", ["folder", "parquet"])
def test_a_missing_path_is_named(tmp_path, name):
    with pytest.raises(DataError, match=r"missing: no such file or folder.*dataset\.path"):
        read(name, tmp_path / "missing")


@pytest.mark.parametrize(("name", "suffix"), [("folder", r"\.png"), ("parquet", r"\.parquet")])
def test_an_empty_folder_is_named(tmp_path, name, suffix):
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no .*{suffix}"):
        read(name, tmp_path)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_parquet_file_is_named(parquet, share):
    os.truncate(parquet, int(parquet.stat().st_size * share))
    with pytest.raises(DataError, match=r"train\.parquet: not a readable Parquet file"):
        read("parquet", parquet)


def test_a_damaged_page_is_named(parquet):
    data = bytearray(parquet.read_bytes())
    data[4:400] = bytes(396)
    parquet.write_bytes(data)
    with pytest.raises(DataError, match=r"train\.parquet"):
        read("parquet", parquet)


def test_a_table_without_images_is_named_with_its_columns(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"label": [1], "picture": [b"x"]}), path)
    message = r"table\.parquet: has no column image or img; it has label, picture"
    with pytest.raises(DataError, match=message):
        read("parquet", path)


def test_a_struct_without_bytes_is_named(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"img": pa.array([{"path": "a.png"}])}), path)
    with pytest.raises(DataError, match=r"table\.parquet: column img has no field `bytes`"):
        read("parquet", path)


@pytest.mark.parametrize("column", [["a.png"], [3]])
def test_a_column_of_something_else_is_named(tmp_path, column):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"img": column}), path)
    with pytest.raises(DataError, match=r"table\.parquet, row 0: holds no image bytes"):
        read("parquet", path)


@pytest.mark.parametrize("cell", [None, b"", b"rubbish"])
def test_the_row_of_a_bad_image_is_named(tmp_path, encode, cell):
    path = tmp_path / "table.parquet"
    pq.write_table(table("img", [*[encode(1)] * 1500, cell]), path)
    with pytest.raises(DataError, match=r"table\.parquet, row 1500: "):
        read("parquet", path)


def test_a_crop_larger_than_the_image_is_refused(folder):
    with pytest.raises(DataError, match=r"00\.png: 8×8 pixels are too few .*`dataset\.crop` \(=10"):
        read("folder", folder, crop=10)


def test_pyarrow_is_loaded_only_to_read_parquet(parquet):
    program = (
        "import sys; from raygan.data import DatasetConfig, sources\n"
        f"config = DatasetConfig(name='parquet', path={str(parquet)!r})\n"
        "assert 'pyarrow' not in sys.modules\n"
        "assert len(list(sources.read(config))) == 20\n"
        "assert 'pyarrow' in sys.modules"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=True
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "no-such"}, r"`dataset\.name` \(='no-such'\) must be one of digits, parquet"),
        ({"name": "folder"}, r"`dataset\.path` is missing"),
        ({"name": "folder", "path": "a\0b"}, r"`dataset\.path` holds a NUL"),
        ({"size": 0}, r"`dataset\.size` \(=0\) must be at least 1"),
        ({"size": 31}, r"`dataset\.size` \(=31\) must be even"),
        ({"size": 5000}, r"`dataset\.size` \(=5000\) must be even and at most 4096"),
        ({"crop": -2}, r"`dataset\.crop` \(=-2\)"),
        ({"running": 0}, r"`dataset\.running` \(=0\)"),
        ({"final": True}, r"`dataset\.final` \(=True\)"),
        ({"split_seed": -1}, r"`dataset\.split_seed` \(=-1\)"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(fields, message):
    with pytest.raises(ConfigError, match=message):
        DatasetConfig(**fields)
