"""Pictures of evaluations: all are written, and those that cannot be shown are named."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from types import SimpleNamespace

import pytest
import torch
from PIL import EpsImagePlugin, Image

from raygan import pictures, retries
from raygan.folder import PICTURES, picture_file
from raygan.gan.picture_grid import grid_webp
from raygan.pictures import Album, PictureError
from raygan.storage import Storage

NAME = "trials/wn-000/images/samples-000000010.png"
WEBP = "trials/wn-000/images/samples-000000010.webp"


def encoded(kind: str, mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (8, 4), 1).save(sink, format=kind)
    return sink.getvalue()


def chunk(content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(content))
    return struct.pack(">I", len(content) - 4) + content + checksum


def without_palette() -> bytes:
    """A PNG whose pixels are numbers of colours that it does not have; one is transparent."""
    size = struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        map(chunk, [b"IHDR" + size, b"tRNS\0", b"IDAT" + zlib.compress(bytes(6)), b"IEND"])
    )


def header(width: int, height: int) -> bytes:
    """A PNG that has a size and hardly anything else."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR" + size) + chunk(b"IDAT" + zlib.compress(b"\0"))


def webp(width: int = 8, height: int = 4, lossless: bool = False) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), 1).save(sink, format="WEBP", lossless=lossless)
    return sink.getvalue()


def large_webp(width: int, height: int) -> bytes:
    """A small WebP whose header says that it is large."""
    return webp()[:26] + struct.pack("<HH", width, height) + webp()[30:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 4\n%%EndComments\n%%EOF\n"
DAMAGED = {
    "text": (b"no picture", "no whole PNG"),
    "empty": (b"", "no whole PNG"),
    "eps": (EPS, "no whole PNG"),
    "bmp": (encoded("BMP"), "no whole PNG"),
    "cut": (encoded("PNG")[:-30], "truncated"),
    "header": (header(8, 4), "truncated"),
    "palette": (without_palette(), "AssertionError"),
    "large": (header(10_000, 8_000), r"10,000 × 8,000 pixels; at most 67,108,864 are shown"),
    "larger": (header(20_000, 20_000), "decompression bomb"),
    "largest": (header(2**31 - 1, 2**31 - 1), "decompression bomb"),
}


DAMAGED_WEBP = {
    "text": (b"no picture", "no whole WebP"),
    "empty": (b"", "no whole WebP"),
    "eps": (EPS, "no whole WebP"),
    "png": (encoded("PNG"), "no whole WebP"),
    "lossless": (webp(lossless=True), "no whole WebP"),  # raygan writes none
    "cut": (webp()[:-10], "no whole WebP"),
    "large": (large_webp(10_000, 8_000), r"10,000 × 8,000 pixels; at most 67,108,864 are shown"),
}


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        *((NAME, *DAMAGED[kind]) for kind in DAMAGED),
        *((WEBP, *DAMAGED_WEBP[kind]) for kind in DAMAGED_WEBP),
    ],
    ids=[*DAMAGED, *(f"webp-{kind}" for kind in DAMAGED_WEBP)],
)
def test_what_cannot_be_shown_is_named_with_its_reason(storage, name, data, reason, monkeypatch):
    storage.write(name, data)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program runs"))
    with pytest.raises(PictureError, match=reason) as caught:
        pictures.read(storage, name)
    assert str(caught.value).startswith(f"{name} (")


def test_of_a_webp_with_a_large_header_no_memory_is_reserved(storage, monkeypatch):
    storage.write(WEBP, large_webp(16_383, 16_383))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it is opened"))
    with pytest.raises(PictureError, match="16,383 × 16,383 pixels"):
        pictures.read(storage, WEBP)


def test_a_webp_is_handed_over_as_it_is_stored_if_it_is_whole(storage):
    assert pictures.read_webp(storage, WEBP) is None
    storage.write(WEBP, webp())
    assert pictures.read_webp(storage, WEBP) == webp()
    storage.write(WEBP, webp()[:-1])
    with pytest.raises(PictureError, match="no whole WebP"):
        pictures.read_webp(storage, WEBP)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_can_be_read_again(storage, channels):
    images = torch.randint(0, 256, (4, channels, 16, 16), dtype=torch.uint8)
    storage.write(WEBP, grid_webp(images))
    found = pictures.read(storage, WEBP)
    assert (found.mode, found.width) == ("RGB", found.height)


def test_pictures_of_both_versions_are_found_and_webp_is_preferred(storage):
    assert pictures.stored(storage, "wn-000") == {}
    for name, content in (
        (NAME, encoded("PNG")),
        (WEBP, webp(16)),
        (NAME.replace("010.png", "020.png"), encoded("PNG")),
        (WEBP.replace("samples-000000010", "reconstructions-000000005"), webp()),
    ):
        storage.write(name, content)
    home = "trials/wn-000/images"
    assert list(pictures.stored(storage, "wn-000").items()) == [
        (5, {"reconstructions": f"{home}/reconstructions-000000005.webp"}),
        (10, {"samples": WEBP}),
        (20, {"samples": f"{home}/samples-000000020.png"}),
    ]
    widths = {
        step: picture and picture.width
        for step in (10, 20, 30)
        for picture in [pictures.read_evaluation(storage, "wn-000", "samples", step)]
    }
    assert widths == {10: 16, 20: 8, 30: None}


def evaluation(step: int) -> SimpleNamespace:
    images = torch.full((4, 1, 16, 16), step, dtype=torch.uint8)
    return SimpleNamespace(step=step, samples=images, reconstructions=images)


class Away(Storage):
    """It is away until ``back`` is set."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.back, self.tried = threading.Event(), threading.Event()
        self.written: list[str] = []

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        self.tried.set()
        if not self.back.is_set():
            raise OSError("it does not answer")
        super().write(name, data, durable=durable)
        self.written.append(name)


@pytest.fixture
def away(tmp_path, monkeypatch) -> Away:
    monkeypatch.setattr(retries, "SHORTEST_PATIENCE", 0.02)
    monkeypatch.setattr(retries, "LONGEST_PATIENCE", 0.02)
    return Away(str(tmp_path))


def test_no_picture_is_left_out_while_the_storage_is_away(away):
    album = Album(away)
    for step in range(1, 13):
        album.put(evaluation(step))
    album._encoding.wait()
    given = [evaluation(step).samples for step in range(1, 13)]
    encoded = [grid for each in given for grid in (grid_webp(each), grid_webp(each, columns=8))]
    assert album._bytes == sum(map(len, encoded))
    assert away.tried.wait(60)
    assert away.written == []
    away.back.set()
    album.wait()
    assert away.written == [picture_file(kind, step) for step in range(1, 13) for kind in PICTURES]
    assert album._bytes == 0


def test_the_training_waits_when_too_many_bytes_wait_and_says_so(away, capfd):
    most = 2 * 4 * 16 * 16 + 1
    album, done = Album(away, most), threading.Event()

    def train() -> None:
        for step in range(1, 11):
            album.put(evaluation(step))
        done.set()

    training = threading.Thread(target=train)
    training.start()
    assert away.tried.wait(60)
    album._encoding.wait()
    assert album._bytes <= most
    assert not done.is_set()
    away.back.set()
    training.join(60)
    assert done.is_set()
    album.wait()
    assert len(away.written) == 20
    assert "the training waits until pictures are written" in capfd.readouterr().out


def test_an_evaluation_larger_than_all_that_may_wait_is_written(away):
    away.back.set()
    album = Album(away, most=1)
    for step in (1, 2):
        album.put(evaluation(step))
    album.wait()
    assert len(away.written) == 4


def test_an_error_is_the_owners_and_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr("raygan.gan.picture_grid.grid_webp", lambda *_, **__: 1 / 0)
    album = Album(Storage(str(tmp_path)), most=1)
    album.put(evaluation(1))
    with pytest.raises(ZeroDivisionError):
        album.wait()
    assert album._bytes == 0


def test_a_file_is_read_no_further_than_a_picture_may_be_long(storage, monkeypatch):
    storage.write(NAME, encoded("PNG") + b"\0" * (2 << 20))
    assert len(storage.read(NAME, 100)) == 100
    monkeypatch.setattr(pictures, "MOST_BYTES", 1 << 20)
    with pytest.raises(PictureError, match="more than 1 MiB"):
        pictures.read(storage, NAME)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_is_read_as_rgb(storage, mode):
    storage.write(NAME, encoded("PNG", mode))
    found = pictures.read(storage, NAME)
    assert (found.mode, found.size) == ("RGB", (8, 4))
    assert pictures.read(storage, "trials/other.png") is None
