"""One image: what is decoded, what becomes of unusual ones, and that damage is an error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from raygan.data.decode import UnusableError, decode
from raygan.errors import DataError
from tests.data.pictures import bomb, chunk, png, png_of, saved


def test_the_crop_is_the_centre():
    pixels = np.zeros((6, 10, 3), np.uint8)
    pixels[2:4, 4:6] = 200
    image = decode(png(pixels), "here", crop=2, size=None)
    assert (image == 200).all()


def grey_of(data: bytes) -> int:
    """The one shade that all pixels of an image have."""
    image = decode(data, "here", crop=None, size=None)
    assert image.shape == (4, 4, 3)
    assert image.dtype == np.uint8
    (shade,) = set(image.ravel().tolist())
    return shade


def shades(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (4, 4), value)


def test_grey_images_become_rgb():
    assert grey_of(saved(shades("L", 77), "PNG")) == 77
    assert grey_of(saved(shades("1", 1), "PNG")) == 255
    assert grey_of(saved(shades("L", 77), "JPEG")) == 77


@pytest.mark.parametrize("value", [0, 255, 77 * 256 + 200, 65535])
def test_of_16_bits_the_upper_8_are_kept(value):
    assert grey_of(png(np.full((4, 4), value, np.uint16))) == value >> 8


def test_16_bits_per_colour():
    row = b"\0" + struct.pack(">3H", 77 * 256 + 200, 78 * 256, 79 * 256 + 255) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = png_of(header, row * 4)
    assert decode(data, "here", crop=None, size=None)[0, 0].tolist() == [77, 78, 79]


@pytest.mark.parametrize(
    ("mode", "value", "shade"),
    [("RGBA", (9, 9, 9, 0), 255), ("RGBA", (9, 9, 9, 255), 9), ("LA", (0, 0), 255), ("LA", (40, 255), 40),
     ("RGBA", (0, 0, 0, 102), 153)],
)  # fmt: skip
def test_what_is_transparent_lies_on_white(mode, value, shade):
    assert grey_of(saved(shades(mode, value), "PNG")) == shade


def test_palettes_are_looked_up_with_their_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 60, 60, 60])
    assert grey_of(saved(image, "PNG")) == 60
    assert grey_of(saved(image, "PNG", transparency=1)) == 255
    assert grey_of(saved(image, "PNG", transparency=b"\xff\x00")) == 255


def test_cmyk_is_converted():
    image = decode(saved(shades("CMYK", (0, 255, 255, 0)), "JPEG"), "here", crop=None, size=None)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [shades("RGB", (value,) * 3) for value in (200, 10, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert grey_of(data) == 200


def test_the_orientation_tag_is_not_looked_at():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    data = saved(Image.new("RGB", (6, 4)), "JPEG", exif=exif)
    assert decode(data, "here", crop=None, size=None).shape == (4, 6, 3)


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing: all black, or all white
    image = decode(png(stripes), "here", crop=None, size=16)
    assert np.abs(image[2:-2, 2:-2].astype(int) - 127).max() <= 20


@pytest.mark.parametrize("size", [None, 4])
def test_an_image_below_the_crop_is_unusable(size):
    with pytest.raises(UnusableError, match=r"here: 6×4 pixels are too few .*crop` \(=6\)"):
        decode(saved(Image.new("RGB", (6, 4)), "PNG"), "here", crop=6, size=size)


def test_an_image_below_the_size_is_enlarged():
    assert decode(saved(Image.new("RGB", (6, 4)), "PNG"), "x", crop=None, size=8).shape == (8, 8, 3)


def test_a_bomb_of_text_beside_the_pixels():
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20)))
    small = bomb(4, 4)
    data = small[:33] + text + small[33:]
    with pytest.raises(UnusableError, match="cannot be decoded"):
        decode(data, "here", crop=None, size=None)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    length=st.floats(0, 1),
)
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_damage_is_decoded_or_a_data_error(encode, kind, changes, length):
    data = bytearray(encode(3, (16, 16), kind))
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: max(1, round(length * len(data)))]
    with contextlib.suppress(DataError):  # and nothing else
        assert decode(bytes(data), "here", crop=None, size=8).shape == (8, 8, 3)


def test_other_formats_are_not_decoded(encode):
    with pytest.raises(DataError, match="here: cannot be decoded as PNG, JPEG, WEBP"):
        decode(encode(1, kind="GIF"), "here", crop=None, size=None)
