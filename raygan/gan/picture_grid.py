"""Image grids as PNG, and as WebP of a bounded width."""

from __future__ import annotations

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GAP, GAP_GREY = 1, 96
"""Pixels between tiles, and their shade."""
MOST_WIDTH = 1288
"""Pixels of a WebP's width: 8 tiles of 160 pixels at full size. A wider one is made smaller."""
_QUALITY = 85


def grid_png(images: Tensor, columns: int | None = None, scale_to: int = 512) -> bytes:
    """Tile uint8 images [N, C, H, W] (C = 1 or 3) into one PNG, ``columns`` in a row.

    Small grids are enlarged by a whole factor towards ``scale_to`` pixels of width.
    """
    buffer = io.BytesIO()
    _enlarged(_grid(images, columns), scale_to).save(buffer, format="PNG")
    return buffer.getvalue()


def grid_webp(images: Tensor, columns: int | None = None) -> bytes:
    """The same as WebP of at most :data:`MOST_WIDTH` pixels of width.

    Small grids are enlarged by a whole factor towards half of that: WebP has one colour for 2 × 2
    pixels.
    """
    picture = _enlarged(_grid(images, columns), MOST_WIDTH // 2)
    if picture.width > MOST_WIDTH:
        height = max(1, round(picture.height * MOST_WIDTH / picture.width))
        picture = picture.resize((MOST_WIDTH, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=0)
    return buffer.getvalue()


def _grid(images: Tensor, columns: int | None) -> Image.Image:
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    padded = F.pad(images, (0, GAP, 0, GAP), value=GAP_GREY)
    count, channels, height, width = padded.shape
    tiles = padded.new_full((rows * columns, channels, height, width), GAP_GREY)
    tiles[:count] = padded
    tiled = (
        tiles.view(rows, columns, channels, height, width)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * height, columns * width, channels)[:-GAP, :-GAP]
        .numpy()
    )
    return Image.fromarray(tiled[:, :, 0] if channels == 1 else tiled)


def _enlarged(picture: Image.Image, width: int) -> Image.Image:
    """``picture`` enlarged by the largest whole factor with which it is no wider than ``width``."""
    factor = max(1, width // picture.width)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Each of ``left`` followed by that of ``right`` at its place: [N, …] twice → [2·N, …]."""
    return torch.stack((left, right), dim=1).flatten(0, 1)
