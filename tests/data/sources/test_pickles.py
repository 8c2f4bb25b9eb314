"""CIFAR batches that are made to harm: refused at once, in little memory, and nothing is called."""

from __future__ import annotations

import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from raygan.data.sources import pickles
from raygan.errors import DataError

NESTED = b"h\x00h\x00\x86q\x00" * 60
"""A tuple of the same tuple twice, 60 levels deep: to print, hash or compare it takes for ever."""
NUMBER = b"K\x01q\x00"
FROMBUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
ENCODE = b"c_codecs\nencode\n"
ROW = b"T" + struct.pack("<I", 3072) + bytes(3072)
SHAPE = b"K\x01M\x00\x0c\x86"


def batch(data: bytes) -> bytes:
    """A batch whose value of ``data`` these instructions make; 0 of the memo is a nested tuple."""
    return b"\x80\x05" + NUMBER + NESTED + b"}U\x04data" + data + b"s."


def read(tmp_path: Path, data: bytes) -> np.ndarray:
    path = tmp_path / "data_batch_1"
    path.write_bytes(data)
    return pickles.batch(str(path))


def state(
    shape: bytes = SHAPE, dtype: bytes = DTYPE, fortran: bytes = b"K\x00", raw: bytes = ROW
) -> bytes:
    return RECONSTRUCT + b"(K\x01" + shape + dtype + fortran + raw + b"tb"


def buffer(
    raw: bytes = ROW, dtype: bytes = DTYPE, shape: bytes = SHAPE, order: bytes = b"U\x01C"
) -> bytes:
    return FROMBUFFER + b"(" + raw + dtype + shape + order + b"tR"


@pytest.fixture
def small(monkeypatch) -> None:
    """Memory for a file is taken before it is read: no more than 4 MiB here."""
    monkeypatch.setattr(pickles, "MAX_BATCH", 4 * 2**20)


def memory_of_refusing(tmp_path: Path, data: bytes) -> int:
    """Bytes that were taken at most."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="not a batch"):
            read(tmp_path, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [state(), buffer(), state(fortran=b"\x89")])
def test_the_batches_of_these_tests_are_read(tmp_path, data):
    assert read(tmp_path, batch(data)).shape == (1, 32, 32, 3)


X = b"h\x00"
OF_X = b"cnumpy\ndtype\nh\x00K\x00K\x01\x87R"


@pytest.mark.parametrize(
    "data",
    [
        X,
        state(dtype=OF_X),
        state(dtype=X),
        state(shape=X),
        state(shape=X + b"M\x00\x0c\x86"),
        state(fortran=X),
        state(raw=X),
        state(raw=ENCODE + b"U\x01ah\x00\x86R"),
        state(raw=ENCODE + b"h\x00h\x00\x86R"),
        RECONSTRUCT + X + b"b",
        buffer(raw=X),
        buffer(dtype=OF_X),
        buffer(shape=X),
        buffer(order=X),
        FROMBUFFER + X + b"R",
        X + X + b"R",
        X + X + b"b",
        b"h\x00h\x00\x93",  # as a name
        b"}h\x00K\x01s",  # as a key
        b"](h\x00K\x01u",
        b"(h\x00K\x01d",
        b"\x8f(h\x00\x90",  # in a set
        b"(h\x00\x91",
        b"(h\x00h\x00o",
        X + b"Q",
        b"c" + b"a" * 10**6 + b"\nb\n",
    ],
)
def test_nested_tuples_are_neither_printed_nor_hashed_nor_compared(tmp_path, data):
    with pytest.raises(DataError, match=r"data_batch_1: not a batch of CIFAR-10 \(") as caught:
        read(tmp_path, batch(data))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "data",
    [
        buffer(raw=b"\x8a\x06\x00\x00\x00\x00\x00\x01"),  # bytes(2**40)
        b"\x96" + (2**40).to_bytes(8, "little"),  # a bytearray of that size
        b"\x8e" + (2**40).to_bytes(8, "little"),
        b"r\xff\xff\xff\xff",
        state(shape=b"\x8a\x06\x00\x00\x00\x00\x00\x01M\x00\x0c\x86"),
        state(shape=b"J\xff\xff\xff\xffM\x00\x0c\x86"),
        state(shape=b"\x8b\x00\x08\x00\x00" + b"\x7f" * 2048 + b"M\x00\x0c\x86"),
    ],
)
def test_no_memory_is_taken_for_what_a_batch_claims(tmp_path, data, small):
    assert memory_of_refusing(tmp_path, batch(data)) < 5 * 2**20


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        (b"X", ENCODE + b"h\x02X\x06\x00\x00\x00latin1\x86R"),
        (b"B", b"cnumpy\ndtype\nh\x02K\x00K\x01\x87R"),
    ],
)
def test_text_is_not_copied_each_time_it_is_named(tmp_path, kind, again, small):
    """A hundred copies of a megabyte would be asked for in a few kilobytes."""
    text = kind + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x02"
    assert memory_of_refusing(tmp_path, batch(b"(" + text + again * 100 + b"t")) < 20 * 2**20


def test_the_number_of_instructions_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 1000)
    assert len(read(tmp_path, pickle.dumps({b"data": np.zeros((5, 3072), np.uint8)}, 2))) == 5
    with pytest.raises(DataError, match="it has more than 1,000 instructions"):
        read(tmp_path, batch(b"]" * 1000))


PARTS = [
    *(X, NUMBER, ROW, SHAPE, DTYPE, FROMBUFFER, ENCODE, RECONSTRUCT, b"U\x04data", b"U\x06latin1"),
    *(b"(", b")", b"t", b"l", b"d", b"}", b"]", b"a", b"e", b"s", b"u", b"b", b"R", b"\x93"),
    *(b"\x85", b"\x86", b"\x87", b"\x94", b"N", b"\x88", b"\x89", b"q\x00", b"0", b"2", b"\x81"),
    *(b"\x8f", b"\x90", b"\x91", b"\x97", b"\x98", b"\x92", b"o", b"Q", b"G" + bytes(8)),
]


def test_random_instructions_are_refused_or_images(tmp_path):
    draw = random.Random(5)
    refused = 0
    for _ in range(250):
        parts = [draw.choice(PARTS) for _ in range(draw.randrange(30))]
        good = [b"(", *(SHAPE, DTYPE, b"K\x00", ROW), b"t", b"b"]
        if draw.random() < 0.5:  # near a batch that is read
            parts = [RECONSTRUCT, b"(", b"K\x01", *good[1:]]
            parts[draw.randrange(len(parts))] = draw.choice(PARTS)
        try:
            images = read(tmp_path, batch(b"".join(parts)))
        except DataError as error:
            assert len(str(error)) < 1000
            refused += 1
        else:
            assert images.dtype == np.uint8
    assert 100 < refused < 250


def faking(monkeypatch, *, at_the_end) -> None:
    """torchvision, without the network; when it has downloaded, ``at_the_end`` is called."""

    def fake(where: str, download: bool) -> None:
        batches = Path(where) / pickles.FOLDER
        batches.mkdir()
        (batches / "data_batch_1").write_bytes(b"mine")
        at_the_end()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fake)


def test_a_download_that_another_process_has_finished_first_is_no_error(tmp_path, monkeypatch):
    root = tmp_path / "cifar"
    file = root / pickles.FOLDER / "data_batch_1"

    def other() -> None:
        file.parent.mkdir()
        file.write_bytes(b"of the other")

    faking(monkeypatch, at_the_end=other)
    pickles.download(root)
    assert file.read_bytes() == b"of the other"
    assert [entry.name for entry in root.iterdir()] == [pickles.FOLDER]


def test_a_file_in_the_place_of_the_download_is_an_error(tmp_path, monkeypatch):
    root = tmp_path / "cifar"
    faking(monkeypatch, at_the_end=lambda: (root / pickles.FOLDER).write_bytes(b"a file"))
    with pytest.raises(DataError, match=r"cifar: CIFAR-10 cannot be downloaded to it"):
        pickles.download(root)
