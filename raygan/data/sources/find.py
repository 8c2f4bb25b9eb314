"""Find the images of a configuration, and read them, cut to its geometry."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from raygan import storage
from raygan.addresses import is_address
from raygan.data.dataset import DatasetConfig
from raygan.data.decode import Pixels, UnusableError, decode, fit
from raygan.data.sources.pieces import Piece
from raygan.data.sources.source import Source

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig


def find(config: DatasetConfig) -> Source:
    """What lies at ``config``'s path; reads names and tables of contents, not the images.

    Raises :class:`~raygan.errors.DataError` naming what is missing or damaged.
    """
    path = config.path or ""
    if path and not is_address(path):
        path = str(storage.local(path))
    if path:
        path = path.rstrip("/") or "/"
    return config.source.find(config, path)


def read(config: DatasetConfig) -> Iterator[Pixels]:
    """The images of ``config``'s source, cut to its geometry, one after the other.

    Raises :class:`~raygan.errors.DataError` at the first one that cannot be used.
    """
    for piece in find(config).cut(1024):
        for image in images_of(piece, config):
            if isinstance(image, UnusableError):
                raise image
            yield image


def images_of(
    piece: Piece, config: DatasetConfig, shape: tuple[int, int, int] | None = None
) -> Iterator[Pixels | UnusableError]:
    """The images of a piece, cut to ``config``'s geometry, and why others cannot be used: those
    not of ``shape``, which is the first image's, among them.

    Encoded images get the channels of the source.
    """
    crop, size = config.sides()
    grey = config.source.channels == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is refused or converted here anyway
        for where, data in piece.read():
            try:
                if isinstance(data, UnusableError):
                    raise data
                if isinstance(data, bytes):
                    image = decode(data, where, crop=crop, size=size)
                    image = _grey(image) if grey else image
                else:
                    image = _cut_pixels(data, where, crop, size)
                if shape is not None and image.shape != shape:
                    raise UnusableError(where, _other_shape(image, shape))
                yield image
            except UnusableError as error:
                yield error


def _grey(pixels: Pixels) -> Pixels:
    """RGB pixels as grey ones, uint8 [H, W, 1]; those of a grey image keep their values."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def _other_shape(image: Pixels, shape: tuple[int, int, int]) -> str:
    height, width, channels = image.shape
    if channels != shape[2]:
        return f"{channels} channels, but the first image has {shape[2]}"
    return (
        f"{width}×{height} pixels, but the first image has {shape[1]}×{shape[0]}; set "
        "`dataset.size`"
    )


def _cut_pixels(pixels: Pixels, where: str, crop: int | None, size: int | None) -> Pixels:
    height, width, channels = pixels.shape
    if crop is None and (size is None or (height, width) == (size, size)):
        return pixels
    if crop is not None and crop > min(height, width):
        raise UnusableError(
            where, f"{width}×{height} pixels are too few for `dataset.crop` (={crop})"
        )
    grey = channels == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    made = fit(image, crop or min(image.size), size)
    return made[:, :, None] if grey else made
