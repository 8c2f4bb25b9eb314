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
from PIL import Image, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from raygan.data import decode as decoding
from raygan.data.decode import MAX_SCANS, MAX_TEXT, UnusableError, decode
from raygan.errors import DataError
from tests.data.pictures import chunk, png, png_of, saved


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


QUARTERS = np.array([[10, 90], [170, 250]], np.uint8)
"""The shades of an upright image: above left and right, below left and right."""
AS_STORED = {
    1: QUARTERS,
    2: QUARTERS[:, ::-1],
    3: QUARTERS[::-1, ::-1],
    4: QUARTERS[::-1],
    5: QUARTERS.T,
    6: np.rot90(QUARTERS),  # to be turned by 90° clockwise
    7: np.rot90(QUARTERS, 2).T,
    8: np.rot90(QUARTERS, -1),
}
"""EXIF orientation → how a camera stores that image."""


def photograph(orientation: object, kind: str) -> bytes:
    """16×16 pixels with this orientation in the EXIF data."""
    stored = AS_STORED.get(orientation, QUARTERS).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}[kind]
    return saved(Image.fromarray(stored), kind, exif=exif, **options)


def quarters(data: bytes) -> list[int]:
    image = decode(data, "here", crop=12, size=None)
    return image[[2, 2, 9, 9], [2, 9, 2, 9], 0].tolist()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [*AS_STORED, 0, 9])
def test_images_are_turned_as_their_exif_orientation_says(kind, orientation):
    assert quarters(photograph(orientation, kind)) == pytest.approx(QUARTERS.ravel(), abs=4)


def test_images_are_turned_before_they_are_cropped():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    stored = np.arange(5 * 8, dtype=np.uint8).reshape(5, 8)
    data = saved(Image.fromarray(stored), "PNG", exif=exif)
    assert decode(data, "here", crop=None, size=None).shape == (8, 5, 3)
    upright = png(np.rot90(stored, -1).copy())
    turned, plain = (decode(each, "here", crop=4, size=None) for each in (data, upright))
    assert np.array_equal(turned, plain)


def test_the_exif_data_of_a_png_may_follow_its_pixels():
    image = photograph(6, "PNG")
    start = image.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(image[start : start + 4], "big")
    late = image[:start] + image[stop:-12] + image[start:stop] + image[-12:]
    assert quarters(late) == pytest.approx(QUARTERS.ravel(), abs=4)


@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    length=st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore")  # Pillow's, as where images are prepared
def test_damaged_exif_data_does_not_make_an_image_unusable(changes, length):
    whole = Image.Exif()
    whole[0x0112], whole[0x010E] = 6, "a description"
    exif = bytearray(whole.tobytes())
    for place, value in changes:
        exif[place % len(exif)] = value
    damaged = bytes(exif[: max(1, round(length * len(exif)))])
    small = png(np.full((4, 4), 7, np.uint8))
    data = small[:33] + chunk(b"eXIf", damaged.removeprefix(b"Exif\0\0")) + small[33:]
    assert grey_of(data) == 7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_a_photograph_with_damaged_exif_data(exif):
    image = Image.fromarray(np.full((4, 4), 7, np.uint8))
    assert grey_of(saved(image, "JPEG", exif=exif)) == 7
    text = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nno hex")
    small = png(np.full((4, 4), 7, np.uint8))
    assert grey_of(small[:33] + text + small[33:]) == 7


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


def with_text(kind: bytes, size: int) -> bytes:
    """A PNG file whose chunk ``kind`` unpacks to ``size`` bytes."""
    packed = zlib.compress(bytes(size), 1)
    head = {b"zTXt": b"Comment\0\0", b"iCCP": b"profile\0\0", b"iTXt": b"Comment\0\1\0\0\0"}[kind]
    small = png(np.full((4, 4, 3), 7, np.uint8))
    return small[:33] + chunk(kind, head + packed) + small[33:]


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_much_text_beside_the_pixels(kind):
    assert grey_of(with_text(kind, 3 * 2**20)) == 7


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_of_text_beside_the_pixels(kind, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**20)  # the same, and faster
    reason = "its text or colour profile unpacks to more than 64 MiB; save it without"
    with pytest.raises(UnusableError, match=f"here: cannot be decoded as .*{reason}"):
        decode(with_text(kind, 2 * 2**20), "here", crop=None, size=None)


def test_the_text_of_a_png_file_is_bounded():
    assert PngImagePlugin.MAX_TEXT_CHUNK == PngImagePlugin.MAX_TEXT_MEMORY == MAX_TEXT


def test_control_characters_of_a_name_are_shown():
    with pytest.raises(UnusableError, match=r"a\\x1b\[2Jb\.png: holds no image bytes") as caught:
        decode(b"", "a\x1b[2Jb.png", crop=None, size=None)
    assert caught.value.where == r"a\x1b[2Jb.png"


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


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(content) + 2) + content


def progressive(scans: int) -> bytes:
    """A grey JPEG of 8×8 pixels, of so many scans."""
    head = [
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0"),
        segment(0xC4, b"\x10\1" + bytes(15) + b"\0"),
    ]
    scan = segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f"
    return b"\xff\xd8" + b"".join(head) + scan * scans + b"\xff\xd9"


def test_a_jpeg_of_too_many_scans_is_not_decoded(monkeypatch):
    assert grey_of_8(progressive(MAX_SCANS)) == 128
    monkeypatch.setattr(JpegImageFile, "load", lambda *_: pytest.fail("it is decoded"))
    with pytest.raises(UnusableError, match="here: 501 scans are more than the 500 allowed"):
        decode(progressive(MAX_SCANS + 1), "here", crop=None, size=None)


@pytest.mark.parametrize("place", [2, -2, None])
def test_what_looks_like_a_scan_elsewhere_in_a_jpeg_does_not_count(place):
    data, many = progressive(3), b"\xff\xda\0\2" * (MAX_SCANS + 1)
    place = len(data) if place is None else place
    hidden = many if place == len(data) else segment(0xFE, many)
    assert grey_of_8(data[:place] + hidden + data[place:]) == 128


def grey_of_8(data: bytes) -> int:
    (shade,) = set(decode(data, "here", crop=None, size=None).ravel().tolist())
    return shade


def test_the_scans_of_a_jpeg_with_restarts_are_counted(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = saved(Image.fromarray(pixels), "JPEG", restart_marker_blocks=1, progressive=True)
    assert data.count(b"\xff\xd0") > 1
    assert 2 < decoding._scans(data) == data.count(b"\xff\xda") < 20


def test_a_palette_without_its_colours_is_unusable():
    header = struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)
    with pytest.raises(UnusableError, match=r"here: cannot be decoded .*\(AssertionError\)"):
        decode(png_of(header, bytes(5) * 4), "here", crop=None, size=None)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, AssertionError, MemoryError])
def test_whatever_pillow_raises_an_image_is_unusable(monkeypatch, error):
    def load(*_: object) -> None:
        raise error("odd")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(UnusableError, match=r"here: cannot be decoded .*\(odd\)"):
        decode(png(np.zeros((4, 4, 3), np.uint8)), "here", crop=None, size=None)


def test_an_interruption_is_not_taken_for_damage(monkeypatch):
    def load(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(KeyboardInterrupt):
        decode(png(np.zeros((4, 4, 3), np.uint8)), "here", crop=None, size=None)


def test_other_formats_are_not_decoded(encode):
    with pytest.raises(
        DataError, match="here: cannot be decoded; its format is not one of PNG, JPEG, WEBP"
    ):
        decode(encode(1, kind="GIF"), "here", crop=None, size=None)
