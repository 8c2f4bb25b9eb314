"""Image grids as PNG."""

from __future__ import annotations

import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GAP, GAP_GREY = 1, 96
"""Pixels between tiles, and their shade."""


def grid_png(images: Tensor, columns: int | None = None, scale_to: int = 512) -> bytes:
    """Tile uint8 images [N, C, H, W] (C = 1 or 3) into one PNG, ``columns`` in a row.

    Small grids are enlarged by a whole factor towards ``scale_to`` pixels of width.
    """
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
    picture = Image.fromarray(tiled[:, :, 0] if channels == 1 else tiled)
    factor = max(1, scale_to // picture.width)
    size = (picture.width * factor, picture.height * factor)
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Each of ``left`` followed by that of ``right`` at its place: [N, …] twice → [2·N, …]."""
    return torch.stack((left, right), dim=1).flatten(0, 1)
