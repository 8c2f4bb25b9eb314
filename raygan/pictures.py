"""Pictures that a sweep has stored, opened as PNG only and no larger than raygan writes them.

Whoever can write into a sweep's storage could have put any file there: none of Pillow's other
readers is tried, of which one starts a program, and no header makes much memory be reserved.
"""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from raygan.errors import RayganError
from raygan.shown import shown
from raygan.storage import Storage

MOST_BYTES = 64 * 2**20
"""Bytes of a file that are read."""
MOST_PIXELS = 64 * 2**20
"""Pixels of a picture that are decoded: 192 MiB as RGB."""

_DAMAGE = (
    OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, AttributeError,
    MemoryError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files, by experience."""


class PictureError(RayganError):
    """A stored picture is damaged, no PNG or too large; the message names it, and why."""


def read(storage: Storage, name: str) -> Image.Image | None:
    """The stored PNG ``name`` in RGB, or None if there is none.

    Raises :class:`PictureError` if it cannot be shown, and OSError if it cannot be read.
    """
    data = storage.read(name, MOST_BYTES + 1)
    if data is None:
        return None
    if len(data) > MOST_BYTES:
        raise PictureError(f"{shown(name)} (more than {MOST_BYTES >> 20} MiB)")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
            width, height = opened.size
            if width * height <= MOST_PIXELS:
                return opened.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"{shown(name)} (no whole PNG)") from error
    except _DAMAGE as error:
        raise PictureError(f"{shown(name)} ({shown(error, 200)})") from error
    size, most = f"{width:,} × {height:,} pixels", f"{MOST_PIXELS:,}"
    raise PictureError(f"{shown(name)} ({size}; at most {most} are shown)")
