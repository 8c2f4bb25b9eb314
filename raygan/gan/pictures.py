"""Image grids as PNG."""

from __future__ import annotations

import io
import math

from PIL import Image
from torch import Tensor


def grid_png(images: Tensor, columns: int | None = None, scale_to: int = 512) -> bytes:
    """Tile uint8 images [N, C, H, W] (C = 1 or 3) into one PNG, ``columns`` in a row.

    Small grids are enlarged by a whole factor towards ``scale_to`` pixels of width.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    padded = images.new_zeros(rows * columns, channels, height, width)
    padded[:count] = images
    tiled = (
        padded.view(rows, columns, channels, height, width)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * height, columns * width, channels)
        .numpy()
    )
    picture = Image.fromarray(tiled[:, :, 0] if channels == 1 else tiled)
    factor = max(1, scale_to // picture.width)
    picture = picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
