"""One encoded image → pixels: what is decoded, and what becomes of unusual images.

Only PNG, JPEG and WEBP are decoded, whatever a file is called. An image is turned as its EXIF
orientation says, before it is cropped; damaged EXIF data is ignored. Of an animation the first
frame is taken; grey and CMYK images become RGB; of 16 bits the upper 8 are kept; transparent
pixels are laid on white; colour profiles are not applied. An image that cannot be used (damaged, a
decompression bomb, smaller than the crop) raises :class:`UnusableError`. :data:`DECODING` states
these rules for machines: whoever changes a rule changes that, too.
"""

from __future__ import annotations

import io
import struct
import zlib

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
"""How images become pixels. Prepared sets are named by it, among other things."""
MAX_PIXELS = 64 * 2**20
"""Images of more pixels are taken for decompression bombs."""
MAX_BYTES = 256 * 2**20
"""Encoded images of more bytes are not read."""
MAX_TEXT = 64 * 2**20
"""Bytes of the texts, and of the colour profile, of a PNG file, unpacked; more is an error."""
PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT  # by default 1 MiB, which sound files exceed
PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT

_MOST_WHERE = 5000
"""Characters of a path that are shown: more than a path has."""
_DAMAGE = (
    OSError, ValueError, SyntaxError, ArithmeticError, LookupError,
    TypeError, AttributeError, MemoryError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files, by experience."""


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
    """One image cannot be used; others can. ``where`` it lies and the ``reason``, as shown."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = shown(where, _MOST_WHERE), shown(reason)
        super().__init__(f"{self.where}: {self.reason}")


def decode(data: bytes, where: str, *, crop: int | None, size: int | None) -> Pixels:
    """The image's RGB pixels, uint8 [H, W, 3]: cropped at the centre to ``crop`` (None: to the
    shorter side if there is a ``size``), then resized to ``size``, antialiased."""
    if not data:
        raise UnusableError(where, "holds no image bytes")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise UnusableError(
                where,
                f"{image.width}×{image.height} pixels are more than the {MAX_PIXELS} allowed",
            )
        side = crop or (min(image.size) if size else None)
        if side is not None and side > min(image.size):
            raise UnusableError(
                where,
                f"{image.width}×{image.height} pixels are too few for `dataset.crop` (={side})",
            )
        image = _upright(image, _rgb(image))
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise UnusableError(
            where, f"cannot be decoded; its format is not one of {formats}"
        ) from error
    except _DAMAGE as error:
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


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would cut off what is above 255
        grey = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """``pixels``, made of ``image``, turned as the orientation in the EXIF data says, if any."""
    try:  # once the image is loaded: the data may follow the pixels
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGE:
        return pixels
    return pixels if turn is None else pixels.transpose(turn)
