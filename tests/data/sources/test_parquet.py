"""Parquet tables of all kinds: which are read, and which are refused before they do harm."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygan.data import DatasetConfig
from raygan.data.sources import find as sources
from raygan.data.sources import footers, thrift
from raygan.data.sources import parquet_reader as tables
from raygan.data.sources.parquet_reader import ParquetPiece, row_groups
from raygan.data.sources.pieces import Rows
from raygan.data.sources.thrift import BINARY, I32, I64, LIST, STRUCT
from raygan.errors import DataError
from tests.object_store import upload

CELLS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def reds(path: Path | str, **fields) -> list[int]:
    """The first value of each image."""
    config = DatasetConfig(name="parquet", path=str(path), **fields)
    return [int(image[0, 0, 0]) for image in sources.read(config)]


def write(path: Path, column: pa.Array, **options) -> Path:
    pq.write_table(pa.table({"label": range(len(column)), "image": column}), path, **options)
    return path


def rows_of(cells: list[tuple[bytes | None, str | None]]) -> pa.Array:
    return pa.array([{"bytes": data, "path": name} for data, name in cells], CELLS)


# what is read


@pytest.mark.parametrize(
    "column",
    [
        lambda cells: pa.array(cells, pa.binary()).dictionary_encode(),
        lambda cells: pa.array(cells, pa.large_binary()),
        lambda cells: pa.array(cells, pa.binary_view()),
        lambda cells: pa.StructArray.from_arrays(
            [pa.array(cells, pa.binary()).dictionary_encode()], ["bytes"]
        ),
        lambda cells: pa.StructArray.from_arrays([pa.array(cells, pa.binary_view())], ["bytes"]),
    ],
)
@pytest.mark.parametrize("dictionary", [True, False])
def test_bytes_of_any_arrow_type_are_read(tmp_path, encode, column, dictionary):
    cells = [encode(value) for value in (5, 6, 5, 5, 7)]
    path = write(tmp_path / "a.parquet", column(cells), use_dictionary=dictionary)
    assert reds(path) == [5, 6, 5, 5, 7]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_pages_of_any_version_and_compression_are_read(tmp_path, encode, version, compression):
    cells = pa.array([encode(value) for value in range(30)])
    options = {"data_page_version": version, "compression": compression, "data_page_size": 200}
    path = write(tmp_path / "a.parquet", cells, write_batch_size=3, row_group_size=11, **options)
    assert reds(path) == list(range(30))


class Loud(pa.ExtensionType):
    """An extension type that notes when Arrow interprets its metadata."""

    heard: list[bytes] = []  # noqa: RUF012 - of the class, as Arrow calls it

    def __init__(self) -> None:
        super().__init__(pa.binary(), "raygan.test")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Loud:
        cls.heard.append(serialized)
        return cls()


@pytest.mark.parametrize("where", ["beside", "around"])
def test_extension_types_are_not_interpreted(tmp_path, encode, where):
    images = pa.array([encode(3), encode(4)])
    loud = pa.ExtensionArray.from_storage(Loud(), images)
    columns = {"image": images, "more": loud} if where == "beside" else {"image": loud}
    pa.register_extension_type(Loud())
    try:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        Loud.heard.clear()
        assert reds(tmp_path) == [3, 4]
        assert not Loud.heard
        pq.ParquetFile(tmp_path / "a.parquet").close()
        assert Loud.heard, "the test would not notice"
    finally:
        pa.unregister_extension_type("raygan.test")


def test_only_the_images_are_looked_at(tmp_path, encode):
    others = {
        "json": pa.array(["{}", "1"], pa.json_()),
        "flag": pa.array([1, None], pa.bool8()),
        "id": pa.array([bytes(16)] * 2, pa.uuid()),
        "deep": pa.array([[[{"a": {"b": [1]}}]], None]),
        "image.bytes": pa.array([b"x", b"y"]),
        "label": pa.array([1, 2]).dictionary_encode(),
    }
    images = pa.array([{"path": "a", "more": [1], "bytes": encode(v)} for v in (8, 9)])
    pq.write_table(pa.table({**others, "image": images}), tmp_path / "a.parquet")
    assert reds(tmp_path) == [8, 9]


# images beside the table


def test_files_that_a_table_names_are_read(tmp_path, encode):
    (tmp_path / "part").mkdir()
    (tmp_path / "a.png").write_bytes(encode(1))
    (tmp_path / "part" / "b ü.png").write_bytes(encode(2))
    cells = rows_of([(None, "a.png"), (encode(9), "none.png"), (None, "part/b ü.png")])
    assert reds(write(tmp_path / "t.parquet", cells)) == [1, 9, 2]
    # all of them; and where the file does not say how many have no bytes
    cells = rows_of([(None, "a.png"), (b"", "part/b ü.png")])
    assert reds(write(tmp_path / "t.parquet", cells)) == [1, 2]
    assert reds(write(tmp_path / "t.parquet", cells, write_statistics=False)) == [1, 2]


@pytest.mark.parametrize(
    "name",
    ["{}/out.png", "../out.png", "a/../../out.png", "s3://bucket/out.png", "file:out.png",
     "link.png", "linked/out.png", "..\\out.png", "./a.png", "//out.png", "out.png?x=y", "a\0.png"],
)  # fmt: skip
def test_files_elsewhere_are_not_read(tmp_path, encode, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out.png").write_bytes(encode(1))
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "linked").symlink_to(tmp_path)
    path = write(folder / "t.parquet", rows_of([(None, name.format(tmp_path))]))
    message = r"t\.parquet, row 0: holds no image bytes, and its path '.*' does not lie in the tab"
    with pytest.raises(DataError, match=message):
        reds(path)


def test_files_that_are_missing_or_none_are_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("gone\x1b.png", "folder.png"):
        path = write(tmp_path / "t.parquet", rows_of([(None, name)]))
        with pytest.raises(DataError, match=r"row 0: .*its path '.*' is no file in") as caught:
            reds(path)
        assert "\x1b" not in str(caught.value)
    for cells in ([(None, None)], [(b"", None)], [(b"", "")]):
        with pytest.raises(DataError, match=r"row 0: holds no image bytes"):
            reds(write(tmp_path / "t.parquet", rows_of(cells)))


# what would take memory


def bomb(path: Path, size: int, rows: int, **options) -> Path:
    """One value of ``size`` bytes in each row, stored once."""
    once = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [bytes(size)])
    options = {"compression": "zstd", "dictionary_pagesize_limit": 2**30, **options}
    return write(path, once, write_statistics=False, **options)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("column", ["image", "path"])
def test_a_page_that_unpacks_to_far_more_than_it_takes_is_refused(
    tmp_path, monkeypatch, dictionary, column
):
    monkeypatch.setattr(tables, "MAX_PAGE", 2**20)
    path = tmp_path / "bomb.parquet"
    if column == "image":
        bomb(path, 2**20, 9, use_dictionary=dictionary)
    else:
        cells = rows_of([(None, "x" * 2**20)] * 9)
        write(path, cells, compression="zstd", use_dictionary=dictionary, write_statistics=False)
    assert path.stat().st_size < 4000
    with pytest.raises(DataError, match=r"bomb\.parquet: a page claims to unpack .* not believed"):
        reds(path)


def test_pages_as_large_as_they_are_in_the_file_are_read(tmp_path, encode, monkeypatch):
    monkeypatch.setattr(tables, "MAX_PAGE", 100)
    noise = random.Random(1).randbytes(2**16)
    path = write(tmp_path / "a.parquet", pa.array([encode(1) + noise, encode(2)]))
    assert reds(path) == [1, 2]


@pytest.mark.parametrize(("page", "rows"), [(20, 64), (2**20, 64), (2**22, 16), (2**30, 1)])
def test_rows_are_read_so_few_at_a_time_that_they_fit(monkeypatch, tmp_path, page, rows):
    monkeypatch.setattr(tables, "_largest_page", lambda *_: page)
    assert tables._rows_at_once(None, "x", [None]) == rows  # type: ignore[arg-type]


def test_an_image_of_too_many_bytes_is_left_out(tmp_path, encode, monkeypatch):
    monkeypatch.setattr(tables, "MAX_BYTES", 1000)
    path = write(tmp_path / "a.parquet", pa.array([encode(1), encode(2) + bytes(1000)]))
    with pytest.raises(DataError, match=r"a\.parquet, row 1: has more than 1,000 bytes"):
        reds(path)


class Counted:
    """A file that counts the bytes that are read of it."""

    def __init__(self, path: Path) -> None:
        self.file, self.bytes, self.closed = path.open("rb"), 0, False
        self.seek, self.tell, self.close = self.file.seek, self.file.tell, self.file.close

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bytes += len(data)
        return data


@pytest.mark.parametrize(("most", "ahead"), [(2**20, False), (2**26, True)])
def test_of_a_long_row_group_no_more_is_read_than_is_needed(
    tmp_path, encode, monkeypatch, most, ahead
):
    """At an address, where short ones are read whole and at once."""
    cells = [encode(index) + bytes(2**15) for index in range(100)]
    options = {"use_dictionary": False, "compression": "none", "data_page_size": 2**18}
    path = write(tmp_path / "a.parquet", pa.array(cells), write_batch_size=8, **options)
    size = path.stat().st_size
    assert size > 3 * 2**20
    monkeypatch.setattr(tables, "_MOST_AHEAD", most)
    monkeypatch.setattr(tables, "_BUFFER", 2**16)
    monkeypatch.setattr(tables, "_BATCH", 8)
    monkeypatch.setattr(tables, "_HEADER", 2**7)
    counted = Counted(path)
    monkeypatch.setattr(tables.storage, "open_file", lambda _: pa.PythonFile(counted, mode="r"))
    address = "memory://a.parquet"
    items = ParquetPiece(address, (Rows(address, 0, 8),)).read()
    assert [data for _, data in items] == cells[:8]
    assert (counted.bytes > size) == ahead
    assert (counted.bytes < size // 4) == (not ahead)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_encodings_whose_size_their_pages_do_not_say_are_refused(
    tmp_path, encode, encoding, version
):
    options = {"use_dictionary": False, "column_encoding": {"image": encoding}}
    path = write(
        tmp_path / "a.parquet", pa.array([encode(1)] * 9), data_page_version=version, **options
    )
    with pytest.raises(DataError, match=r"a\.parquet: its images are stored by encoding \d of Par"):
        reds(path)


MEMORY = """
import resource, sys
from raygan.data.sources.pieces import Rows
from raygan.data.sources.parquet_reader import ParquetPiece, row_groups
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    for _ in ParquetPiece(path, (Rows(path, 0, sum(row_groups(path))),)).read():
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.cluster  # a process of its own
def test_the_memory_for_the_largest_pages_is_bounded(tmp_path, run_python):
    """64 rows of 15 MiB, in a dictionary and in pages of their own: a gigabyte each."""
    size, paths = 15 * 2**20, [tmp_path / "once.parquet", tmp_path / "each.parquet"]
    bomb(paths[0], size, 64)
    schema = pa.schema([("image", pa.binary())])
    options = {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 1}
    with pq.ParquetWriter(paths[1], schema, compression="zstd", **options) as writer:
        for _ in range(8):
            writer.write_table(pa.table({"image": [bytes(size)] * 8}))
    assert sum(path.stat().st_size for path in paths) < 10**6
    run = run_python(MEMORY, *paths)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) < 450


# footers that are made by hand


def file_of(footer: bytes, pages: bytes = b"") -> bytes:
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"


def element(name: bytes, children: int | None = None) -> bytes:
    return thrift.struct(
        (1, I32, None if children else 6), (3, I32, 1), (4, BINARY, name), (5, I32, children)
    )


def footer_of(schema: list[bytes], groups: list[bytes] = [], rows: int = 0) -> bytes:  # noqa: B006
    return thrift.struct(
        (1, I32, 2), (2, LIST, (STRUCT, schema)), (3, I64, rows), (4, LIST, (STRUCT, groups))
    )


def test_a_schema_of_any_depth_is_read_without_recursion(tmp_path):
    """pyarrow, which follows it by recursion, dies of 10,000."""
    deep = [element(b"x", 1)] * 20_000 + [element(b"x")]
    path = tmp_path / "deep.parquet"
    path.write_bytes(file_of(footer_of([element(b"schema", 2), *deep, element(b"image")])))
    assert row_groups(str(path)) == []
    path.write_bytes(file_of(footer_of([element(b"schema", 1), *deep])))
    with pytest.raises(DataError, match=r"deep\.parquet: has no column image or img; it has x"):
        row_groups(str(path))


def group_of(**changes: int | None) -> bytes:
    given = {"kind": 6, "count": 1, "size": 9, "packed": 9, "start": 4, "first": None, **changes}
    meta = thrift.struct(
        (1, I32, given["kind"]), (2, LIST, (I32, [0])), (3, LIST, (BINARY, [b"image"])),
        (4, I32, 0), (5, I64, given["count"]), (6, I64, given["size"]), (7, I64, given["packed"]),
        (9, I64, given["start"]), (11, I64, given["first"]),
    )  # fmt: skip
    chunk = thrift.struct((2, I64, 0), (3, STRUCT, meta))
    return thrift.struct((1, LIST, (STRUCT, [chunk])), (2, I64, 0), (3, I64, 1))


SCHEMA = [element(b"schema", 1), element(b"image")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 3}, "a column lies outside of the file"),
        ({"start": 10**12}, "a column lies outside of the file"),
        ({"start": -5}, "a column lies outside of the file"),
        ({"packed": 1000}, "a column lies outside of the file"),
        ({"packed": -1}, "a column lies outside of the file"),
        ({"first": 1}, "a column lies outside of the file"),
        ({"count": 2**40}, "contradicts that of its row group"),
        ({"kind": 1}, "contradicts that of its row group"),
        ({"size": None}, "missing or encrypted"),
    ],
)
def test_claims_about_a_column_are_checked(tmp_path, changes, message):
    path = tmp_path / "a.parquet"
    path.write_bytes(file_of(footer_of(SCHEMA, [group_of(**changes)], 1), bytes(50)))
    with pytest.raises(DataError, match=rf"a\.parquet: not a readable Parquet file \(.*{message}"):
        row_groups(str(path))


def header_of(kind: int, size: int, packed: int, values: int = 1) -> bytes:
    inner = thrift.struct((1, I32, values), (2, I32, 0), (3, I32, 3), (4, I32, 3))
    field = 7 if kind == 2 else 5
    return thrift.struct((1, I32, kind), (2, I32, size), (3, I32, packed), (field, STRUCT, inner))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            header_of(0, 2**31 - 1, 20),
            "a page claims to unpack 20 bytes of images to 2,147,483,647",
        ),
        (header_of(0, 20, 2**31 - 1), "a page is larger than its column"),
        (header_of(0, -1, 20), "a page is larger than its column"),
        (header_of(0, 20, -20), "a page is larger than its column"),
        (header_of(2, 20, 20, 2**31 - 1), "a dictionary claims more values"),
        (header_of(2, 20, 20, -1), "a dictionary claims more values"),
        (bytes([0x1C]) * 100, "nested too deeply"),
        (b"\x19\xfc\xff\xff\xff\x0f", "ends early"),
        (b"\x25" + b"\xff" * 10, "more than 64 bits"),
        (b"\x05" + b"\xfe\xff\xff\x0f", "a field of number"),
        (b"\x1d", "of the unknown type 13"),
    ],
)
def test_claims_about_a_page_are_checked(tmp_path, header, message):
    pages = header + bytes(60)
    path = tmp_path / "a.parquet"
    group = group_of(packed=len(pages))
    path.write_bytes(file_of(footer_of(SCHEMA, [group], 1), pages))
    with pytest.raises(DataError, match=rf"a\.parquet: .*({message})"):
        list(ParquetPiece(str(path), (Rows(str(path), 0, 1),)).read())


def test_a_footer_of_many_small_structures_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(footers, "MAX_STRUCTURES", 1000)
    path = tmp_path / "a.parquet"
    path.write_bytes(file_of(footer_of(SCHEMA, [b"\0"] * 10**6)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="it has too many structures"):
            row_groups(str(path))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", ["footer", "pages"])
def test_damage_anywhere_is_read_or_a_data_error(tmp_path, encode, part):
    cells = rows_of([(encode(value, (4, 4)), "a.png") for value in range(9)])
    path = write(tmp_path / "a.parquet", cells, row_group_size=4)
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    places = range(len(data) - 8 - length, len(data) - 8) if part == "footer" else range(4, 150)
    draw = random.Random(3)
    read: Callable[[], object] = lambda: list(  # noqa: E731
        ParquetPiece(str(path), (Rows(str(path), 0, sum(row_groups(str(path)))),)).read()
    )
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 1, 3])):
            changed[draw.choice(places)] = draw.choice(
                [0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)]
            )
        path.write_bytes(changed)
        try:
            read()
        except DataError as error:
            assert "a.parquet" in str(error)
            refused += 1
    assert refused > 10


@pytest.mark.cluster  # a server
def test_files_that_a_table_names_are_read_from_object_storage(tmp_path, encode, store):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(1))
    write(folder / "t.parquet", rows_of([(None, "a.png"), (encode(2), "b.png"), (None, "a.png")]))
    upload(store, folder, "bucket/hub")
    assert reds("s3://bucket/hub") == [1, 2, 1]
    write(folder / "t.parquet", rows_of([(None, "gone.png")]))
    upload(store, folder, "bucket/hub")
    with pytest.raises(DataError, match=r"row 0: .*its path 'gone\.png' is no file in the table's"):
        reds("s3://bucket/hub")
