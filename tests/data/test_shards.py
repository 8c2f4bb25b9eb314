"""Shards: whole or refused, whatever their bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raygan.data.shards import COLUMN, MAX_METADATA, open_shard, write_shard
from raygan.errors import DataError

COUNT, SHAPE = 7, (4, 6, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "0.arrow"
    write_shard(path, IMAGES)
    return path


@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 9), *[st.integers(1, 5)] * 2, st.sampled_from([1, 3]))
    )
)
def test_what_is_written_is_read(tmp_path_factory, images):
    path = tmp_path_factory.getbasetemp() / "round.arrow"
    digest, start = write_shard(path, images)
    assert path.read_bytes()[start:].startswith(images.tobytes())
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.array_equal(open_shard(path, len(images), images.shape[1:]).numpy(), images)


def test_any_arrow_reader_opens_it(file):
    with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    assert table.schema.names == [COLUMN]
    assert np.array_equal(table[COLUMN].combine_chunks().to_numpy_ndarray(), IMAGES)


def test_an_array_in_another_order_is_written_as_it_reads(tmp_path):
    write_shard(tmp_path / "a", IMAGES[::-1].transpose(0, 2, 1, 3))
    got = open_shard(tmp_path / "a", COUNT, (6, 4, 3))
    assert np.array_equal(got.numpy(), IMAGES[::-1].transpose(0, 2, 1, 3))


def test_the_file_cannot_be_changed_through_the_tensor(file):
    before = file.read_bytes()
    images = open_shard(file, COUNT, SHAPE)
    images.zero_()
    assert file.read_bytes() == before
    assert np.array_equal(open_shard(file, COUNT, SHAPE).numpy(), IMAGES)


def test_the_pixels_stay_when_the_file_is_deleted(tmp_path):
    write_shard(tmp_path / "a", IMAGES)
    images = open_shard(tmp_path / "a", COUNT, SHAPE)
    (tmp_path / "a").unlink()
    assert np.array_equal(images.numpy(), IMAGES)


def test_no_file_stays_open(file):
    before = len(list(Path("/proc/self/fd").iterdir()))
    some = [open_shard(file, COUNT, SHAPE) for _ in range(20)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert all(np.array_equal(images.numpy(), IMAGES) for images in some)


def test_nothing_but_the_shard_is_left(tmp_path, monkeypatch):
    write_shard(tmp_path / "a", IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "b", IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "images", [IMAGES[0], IMAGES[:0], IMAGES.astype(np.int32)], ids=["one", "none", "int32"]
)
def test_other_arrays_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match=r"must be uint8 \[n, H, W, C\]"):
        write_shard(tmp_path / "a", images)


@pytest.mark.parametrize(
    ("count", "shape"), [(6, SHAPE), (8, SHAPE), (COUNT, (6, 4, 3)), (COUNT, (4, 3, 6)), (0, SHAPE)]
)
def test_what_is_not_as_said_is_refused(file, count, shape):
    with pytest.raises(DataError, match=r"0\.arrow: "):
        open_shard(file, count, shape)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.arrow: .*prepare the data set again"):
        open_shard(tmp_path / "nowhere.arrow", COUNT, SHAPE)


TENSORS = pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES)
LISTS = TENSORS.storage
NULLS = pa.ExtensionArray.from_storage(
    TENSORS.type, pa.array([None, *LISTS.to_pylist()[1:]], LISTS.type)
)
SIGNED = pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES.view(np.int8))
TURNED = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.uint8(), list(SHAPE), permutation=[1, 0, 2]), LISTS
)
OTHERS = {
    "lists": ([LISTS], [COLUMN], {}, 1),
    "nulls": ([NULLS], [COLUMN], {}, 1),
    "signed": ([SIGNED], [COLUMN], {}, 1),
    "turned": ([TURNED], [COLUMN], {}, 1),
    "another name": ([TENSORS], ["images"], {}, 1),
    "two columns": ([TENSORS, pa.array(range(COUNT))], [COLUMN, "label"], {}, 1),
    "two batches": ([TENSORS], [COLUMN], {}, 2),
    "no batch": ([TENSORS], [COLUMN], {}, 0),
    "zstd": ([TENSORS], [COLUMN], {"compression": "zstd"}, 1),
    "lz4": ([TENSORS], [COLUMN], {"compression": "lz4"}, 1),
}


@pytest.mark.parametrize(("columns", "names", "options", "batches"), OTHERS.values(), ids=OTHERS)
def test_other_arrow_files_are_refused(tmp_path, columns, names, options, batches):
    batch = pa.record_batch(columns, names=names)
    path = tmp_path / "other.arrow"
    with pa.ipc.new_file(path, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    with pytest.raises(DataError, match=r"other\.arrow: "):
        open_shard(path, COUNT, SHAPE)


def test_compressed_pixels_of_the_right_size_are_refused(tmp_path):
    """Noise does not shrink: only where the buffer lies tells."""
    images = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    batch = pa.record_batch([column], names=[COLUMN])
    body, half = b"", images.copy()
    half[: len(half) // 2] = 0
    for pixels in (images, half):  # incompressible buffers may be stored as they are
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
        batch = pa.record_batch([column], names=[COLUMN])
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        body = sink.getvalue().to_pybytes()
    path = tmp_path / "zstd.arrow"
    # padded in front of the footer to the size of the whole
    footer = int.from_bytes(body[-10:-6], "little") + 10
    path.write_bytes(body[:-footer] + bytes(half.nbytes + 2000 - len(body)) + body[-footer:])
    with pytest.raises(DataError, match="compressed or lie outside"):
        open_shard(path, 9, (32, 32, 3))


@pytest.mark.parametrize("junk", [b"", b"ARROW1", b"\0" * 4096, b"\x80\x04K\x01." * 200])
def test_other_files_are_refused(tmp_path, junk):
    (tmp_path / "junk").write_bytes(junk)
    with pytest.raises(DataError, match="junk: "):
        open_shard(tmp_path / "junk", COUNT, SHAPE)


def test_a_file_longer_than_its_images_is_refused(tmp_path, file):
    (tmp_path / "long").write_bytes(bytes(MAX_METADATA) + file.read_bytes())
    with pytest.raises(DataError, match=r"long: .* bytes cannot be 7 images"):
        open_shard(tmp_path / "long", COUNT, SHAPE)


def test_every_truncation_is_refused(tmp_path, file):
    whole = file.read_bytes()
    path = tmp_path / "cut"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut: "):
            open_shard(path, COUNT, SHAPE)


FUZZ = """
import random, sys
from pathlib import Path
from raygan.data.shards import open_shard
from raygan.errors import DataError

whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
rng = random.Random(7)
words = [0, 1, 8, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 8, len(whole), 504, 505]
opened = refused = 0
for trial in range(1500):
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        where = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[where] = rng.randrange(256)
        else:
            where &= ~3
            word = rng.choice(words).to_bytes(8, "little")[: rng.choice([4, 8])]
            data[where : where + len(word)] = word
    path.write_bytes(data)
    try:
        images = open_shard(path, 7, (4, 6, 3))
    except DataError as error:
        assert str(path) in str(error)
        refused += 1
    else:
        assert images.shape == (7, 4, 6, 3)
        images.sum()  # every page can be read
        opened += 1
print(opened, refused)
"""


def test_damaged_bytes_crash_nothing(tmp_path, file):
    """In a process of its own: what is feared is a crash of the Arrow reader."""
    run = subprocess.run(
        [sys.executable, "-c", FUZZ, str(file), str(tmp_path / "fuzz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    opened, refused = map(int, run.stdout.split())
    assert opened > 100  # pixels and padding
    assert refused > 100
    assert opened + refused == 1500


@given(st.data())
def test_flipped_bytes_are_refused_or_pixels(tmp_path_factory, file, data):
    whole = bytearray(file.read_bytes())
    flips = st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255))
    for where, mask in data.draw(st.lists(flips, min_size=1, max_size=5)):
        whole[where] ^= mask
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(whole)
    try:
        images = open_shard(path, COUNT, SHAPE)
    except DataError as error:
        assert "flipped: " in str(error)
    else:
        assert images.shape == (COUNT, *SHAPE)
        assert images.dtype == torch.uint8
