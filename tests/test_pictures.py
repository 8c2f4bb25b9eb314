"""Stored pictures that are none, or would take more than a picture may."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import EpsImagePlugin, Image

from raygan import pictures
from raygan.pictures import PictureError
from raygan.storage import Storage

NAME = "trials/wn-000/images/samples-000000010.png"


def encoded(kind: str, mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, (8, 4), 1).save(sink, format=kind)
    return sink.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that has a size and hardly anything else."""

    def chunk(content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(content))
        return struct.pack(">I", len(content) - 4) + content + checksum

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR" + size) + chunk(b"IDAT" + zlib.compress(b"\0"))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 4\n%%EndComments\n%%EOF\n"
DAMAGED = {
    "text": (b"no picture", "no whole PNG"),
    "empty": (b"", "no whole PNG"),
    "eps": (EPS, "no whole PNG"),
    "bmp": (encoded("BMP"), "no whole PNG"),
    "cut": (encoded("PNG")[:-30], "truncated"),
    "header": (header(8, 4), "truncated"),
    "large": (header(10_000, 8_000), r"10,000 × 8,000 pixels; at most 67,108,864 are shown"),
    "larger": (header(20_000, 20_000), "decompression bomb"),
    "largest": (header(2**31 - 1, 2**31 - 1), "decompression bomb"),
}


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path))


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_cannot_be_shown_is_named_with_its_reason(storage, kind, monkeypatch):
    data, reason = DAMAGED[kind]
    storage.write(NAME, data)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program runs"))
    with pytest.raises(PictureError, match=reason) as caught:
        pictures.read(storage, NAME)
    assert str(caught.value).startswith(f"{NAME} (")


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
