"""One encoded image → pixels: what is decoded, and what becomes of unusual images.

Only PNG, JPEG and WEBP are decoded, whatever a file is called. Of an animation the first frame is
taken; grey and CMYK images become RGB; of 16 bits the upper 8 are kept; what is transparent lies
on white; orientation tags and colour profiles are not looked at. An image that cannot be used
(damaged, a decompression bomb, smaller than the crop) raises :class:`UnusableError`.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from raygan.errors import DataError

Pixels = npt.NDArray[np.uint8]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 64 * 2**20
"""Images of more pixels are taken for decompression bombs."""
MAX_BYTES = 256 * 2**20
"""Encoded images of more bytes are not read."""

_DAMAGE = (
    OSError, ValueError, SyntaxError, ArithmeticError, LookupError,
    TypeError, AttributeError, MemoryError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files, by experience."""


class UnusableError(DataError):
    """One image cannot be used; others can. ``where`` it lies and the ``reason``."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


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
        image = _rgb(image)
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise UnusableError(where, f"cannot be decoded as {formats} (it is none)") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
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
