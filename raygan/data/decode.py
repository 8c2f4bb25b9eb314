"""Decodes one image to RGB pixels.

- Only PNG, JPEG and WEBP are decoded, whatever the suffix of the file is.
- The image is turned by its EXIF orientation before it is cropped. Damaged EXIF data is ignored.
- The first frame of an animation is used.
- Grey and CMYK images become RGB. The upper 8 of 16 bits are kept.
- Transparent pixels are placed on white. Colour profiles are not applied.
- An image that is damaged, a decompression bomb, a JPEG of far too many scans or smaller than the
  crop raises :class:`UnusableError`.

:data:`DECODING` states these rules for machines. If you change a rule, change it there, too.
"""

from __future__ import annotations

import io
import re

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from raygan.errors import DataError
from raygan.shown import shown

Pixels = npt.NDArray[np.uint8]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".webp",
)  # fmt: skip
"""Suffixes of files that hold one of these formats, in lower case."""
DECODING = {
    "formats": list(IMAGE_FORMATS),
    "orientation": "EXIF",
    "frame": "first",
    "depth": "upper 8 bits",
    "background": "white",
    "colour profile": "not applied",
}
"""The rules of decoding. They are part of the name of a prepared set."""
MAX_PIXELS = 64 * 2**20
"""Images with more pixels are refused as decompression bombs."""
MAX_BYTES = 256 * 2**20
"""Encoded images with more bytes are refused."""
MAX_SCANS = 500
"""JPEG files with more scans are refused: each scan goes over all pixels, and may take a few bytes
only. Progressive files have about ten; libjpeg-turbo's own tests of hostile files stop at 500, too.
"""
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""In a JPEG file, the start of a scan, of another segment, or the end."""
_SCAN, _END = 0xDA, 0xD9
MAX_TEXT = 64 * 2**20
"""Most bytes of the unpacked texts of a PNG file, and of its unpacked colour profile."""
PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT  # by default 1 MiB, which some undamaged files exceed
PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT

_MOST_WHERE = 5000
"""Most characters of a path that are shown; no path has more."""


_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → how the image is turned upright."""


class UnusableError(DataError):
    """One image cannot be used, but others can. ``where``: file or row; ``reason``: why not."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = shown(where, _MOST_WHERE), shown(reason)
        super().__init__(f"{self.where}: {self.reason}")


def decode(data: bytes, where: str, *, crop: int | None, size: int | None) -> Pixels:
    """The RGB pixels of an encoded image, uint8 [H, W, 3].

    The image is cropped at its centre to ``crop``, then resized to ``size`` with antialiasing. If
    ``crop`` is None and ``size`` is not, it is cropped to its shorter side. Raises
    :class:`UnusableError`; ``where`` names the image in its message.
    """
    if not data:
        raise UnusableError(where, "holds no image bytes")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnusableError(
                where,
                f"{image.width}×{image.height} pixels are more than the {MAX_PIXELS} allowed",
            )
        if data.startswith(b"\xff\xd8") and (scans := _scans(data)) > MAX_SCANS:
            raise UnusableError(where, f"{scans:,} scans are more than the {MAX_SCANS} allowed")
        side = crop or (min(image.size) if size else None)
        if side is not None and side > min(image.size):
            raise UnusableError(
                where,
                f"{image.width}×{image.height} pixels are too few for `dataset.crop` (={side})",
            )
        image = _upright(image, _rgb(image))
    except UnusableError:
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise UnusableError(
            where, f"cannot be decoded; its format is not one of {formats}"
        ) from error
    except Exception as error:  # whatever rubbish leads Pillow to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "MAX_TEXT" in reason:  # Pillow's name for the limit
            reason = (
                f"its text or colour profile unpacks to more than {MAX_TEXT // 2**20} MiB; "
                "save it without them"
            )
        raise UnusableError(
            where, f"cannot be decoded as {', '.join(IMAGE_FORMATS)} ({reason})"
        ) from error
    return fit(image, side, size)


def fit(image: Image.Image, side: int | None, size: int | None) -> Pixels:
    """The pixels of ``image``'s centre, ``side`` pixels wide and high, resized to ``size``."""
    if side is not None:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _scans(jpeg: bytes) -> int:
    """How many scans a JPEG file has. What its other segments hold does not count, nor does what
    follows its end."""
    scans, at = 0, 2
    while found := _MARKER.search(jpeg, at):
        kind, at = jpeg[found.start() + 1], found.end()
        if kind == _END:
            break
        scans += kind == _SCAN
        at += int.from_bytes(jpeg[at : at + 2], "big")
    return scans


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would clip values to 255
        grey = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """``pixels`` turned by the EXIF orientation of ``image``, if it has one."""
    try:  # after the image is loaded, since the EXIF data may follow the pixels
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return pixels
    return pixels if turn is None else pixels.transpose(turn)
