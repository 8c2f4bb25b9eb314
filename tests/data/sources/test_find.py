"""Readers of folders and Parquet tables; errors name the file."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raygan.data import DatasetConfig
from raygan.data.decode import decode
from raygan.data.sources import find as sources
from raygan.data.sources import parquet_reader as tables
from raygan.errors import ConfigError, DataError
from tests.data.pictures import bomb

ROOT = Path(__file__).resolve().parents[3]
CLASSES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(name: str, path: Path, **fields) -> list[np.ndarray]:
    return list(sources.read(DatasetConfig.of(name=name, path=str(path), **fields)))


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


# what goes wrong, and that the error names the file


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        (8_200, "8200×8200 pixels are more than"),
        (10_000, "10000×10000 pixels are more than"),
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
    reason = "holds no image bytes" if damage == "empty" else "cannot be decoded"
    with pytest.raises(DataError, match=rf"class-0/corrupt\.{kind.lower()}: {reason}"):
        read("folder", folder)


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


@pytest.mark.parametrize(
    ("column", "kind"), [(["a.png"], "string"), ([3], "int64"), ([[b"x"]], "list")]
)
def test_a_column_of_something_else_is_named(tmp_path, column, kind):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"img": column}), path)
    with pytest.raises(DataError, match=rf"table\.parquet: column img holds {kind}.*, not image"):
        read("parquet", path)


@pytest.mark.parametrize("cell", [None, b"", b"rubbish"])
def test_the_row_of_a_bad_image_is_named(tmp_path, encode, cell):
    path = tmp_path / "table.parquet"
    pq.write_table(table("img", [*[encode(1)] * 1500, cell]), path)
    with pytest.raises(DataError, match=r"table\.parquet, row 1500: "):
        read("parquet", path)


def test_a_footer_that_claims_more_than_the_file_has_is_named(parquet):
    data = parquet.read_bytes()
    parquet.write_bytes(data[:-8] + struct.pack("<I", 2**31) + b"PAR1")
    with pytest.raises(DataError, match=r"train\.parquet: .*its footer claims 2,147,483,648 bytes"):
        read("parquet", parquet)


def varint(value: int) -> bytes:
    """A whole number as Parquet's footer has it."""
    value, out = value << 1, b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize("claimed", [2**40, 2**62, 10**5])
def test_absurd_row_groups_are_named(tmp_path, encode, claimed):
    path, rows = tmp_path / "table.parquet", 12345
    pq.write_table(table("img", [encode(1)] * rows), path)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    pages, footer = data[: -8 - length], data[-8 - length : -8]
    footer = footer.replace(varint(rows), varint(claimed))
    path.write_bytes(pages + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=r"table\.parquet"):
        read("parquet", path)


@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.sampled_from([1.0, 0.999, 0.5]),
)
@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_damage_to_a_table_is_read_or_a_data_error(tmp_path, encode, changes, length):
    path = tmp_path / "table.parquet"
    pq.write_table(table("img", [encode(i, (4, 4)) for i in range(20)]), path)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[round(place * (len(data) - 1))] = value
    path.write_bytes(data[: round(length * len(data))])
    with contextlib.suppress(DataError):  # and nothing else
        read("parquet", path)


def test_a_glob_takes_what_it_matches(tmp_path, encode):
    for name in ("train-0", "train-1", "test-0"):
        (tmp_path / name).mkdir()
        pq.write_table(table("img", [encode(int(name[-1]))]), tmp_path / name / "x.parquet")
    found = read("parquet", tmp_path / "train-*" / "*.parquet")
    assert [image[0, 0, 0] for image in found] == [0, 1]
    with pytest.raises(DataError, match=r"val-\*: no such file or folder"):
        read("parquet", tmp_path / "val-*")


def test_hidden_files_are_left_out(folder):
    (folder / "class-0" / "._00.png").write_bytes(b"of another system")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "a.png").write_bytes(b"small")
    assert len(read("folder", folder)) == 24


@pytest.mark.parametrize("rows", [[9], [4, 4, 1], [1] * 9, [2, 7], [7, 2]])
@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_pieces_are_the_source_whatever_their_size(tmp_path, encode, rows, size):
    first = 0
    for index, count in enumerate(rows):
        cells = [encode(first + i) for i in range(count)]
        pq.write_table(table("img", cells), tmp_path / f"{index}.parquet", row_group_size=3)
        first += count
    source = sources.find(DatasetConfig(name="parquet", path=str(tmp_path)))
    pieces = list(source.cut(size))
    assert max(piece.count for piece in pieces) <= size
    found = [decode(data, "x", crop=None, size=None) for p in pieces for _, data in p.read()]
    assert [image[0, 0, 0] for image in found] == list(range(9))
    assert source.count == sum(piece.count for piece in pieces) == 9


def test_a_crop_larger_than_the_image_is_refused(folder):
    with pytest.raises(DataError, match=r"00\.png: 8×8 pixels are too few .*`dataset\.crop` \(=10"):
        read("folder", folder, crop=10)


@pytest.mark.cluster  # a process of its own
def test_pyarrow_is_loaded_only_to_read_parquet(parquet):
    program = (
        "import sys; from raygan.data import DatasetConfig\nfrom raygan.data.sources import find as sources\n"
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
        ({"name": "no-such"}, r"`dataset\.name` \(='no-such'\) must be one of digits, cifar10"),
        ({"pool": True}, r"`dataset\.pool` applies to `name: cifar10` only, not to digits"),
        ({"download": True}, r"`dataset\.download` applies to `name: cifar10`"),
        (
            {"name": "cifar10", "path": "s3://b/c", "download": True},
            r"needs a local `dataset\.path`",
        ),
        ({"max_corrupt": 1.5}, r"`dataset\.max_corrupt` \(=1\.5\) must be between 0 and 1"),
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
        DatasetConfig.of(**fields)


def test_rows_are_read_few_at_a_time_if_they_may_be_large(parquet, monkeypatch):
    expected = read("parquet", parquet)
    monkeypatch.setattr(tables, "_MOST_AT_ONCE", 1)
    assert np.array_equal(read("parquet", parquet), expected)


def test_a_footer_full_of_schema_keys_takes_no_time(parquet):
    """Each key was once followed to the footer's end: hours for a megabyte of them."""
    data = parquet.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8] + b"ARROW:schema" * 2**16
    parquet.write_bytes(data[: -8 - length] + footer + struct.pack("<I", len(footer)) + b"PAR1")
    started = time.process_time()
    with contextlib.suppress(DataError):
        read("parquet", parquet)
    assert time.process_time() - started < 5


def test_links_to_folders_are_followed_and_circles_end(folder):
    alone = len(read("folder", folder))
    (folder / "class-2").symlink_to(folder.with_name("elsewhere"))
    (folder / "circle").symlink_to(folder)
    (folder.with_name("elsewhere")).mkdir()
    (folder / "class-0" / "00.png").rename(folder.with_name("elsewhere") / "00.png")
    assert len(read("folder", folder)) == alone


def test_a_path_that_no_disk_takes_is_named():
    with pytest.raises(DataError, match=r"/aaa.*: cannot be read .*too long"):
        read("celeba", Path("/" + 300 * "a"))
