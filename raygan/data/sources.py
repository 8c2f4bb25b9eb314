"""Readers of the layouts in which people have images; each yields uint8 arrays [H, W, C]."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from raygan.data.config import DatasetConfig
from raygan.errors import DataError

Pixels = npt.NDArray[np.uint8]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IMAGE_COLUMNS = ("image", "img")
MAX_PIXELS = 64 * 2**20
"""Images of more pixels are taken for decompression bombs."""


def read(config: DatasetConfig) -> Iterator[Pixels]:
    """The images of ``config``'s source, cut to its geometry, in a fixed order.

    Raises :class:`~raygan.errors.DataError` naming the file that is missing or corrupt.
    """
    if config.name == "digits":
        yield from _digits(config)
        return
    path = Path(config.path or "").expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check `dataset.path`")
    encoded = _parquet(path) if config.name == "parquet" else _folder(path)
    for where, data in encoded:
        yield decode(data, where, crop=config.crop, size=config.size)


def decode(data: bytes, where: str, *, crop: int | None, size: int | None) -> Pixels:
    """One encoded image → RGB pixels, centre-cropped, then resized (antialiased)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{where}: {image.width}×{image.height} pixels are more than the "
                    f"{MAX_PIXELS} allowed; remove the image or scale it down"
                )
            image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:  # fmt: skip
        raise DataError(
            f"{where}: cannot be decoded as {', '.join(IMAGE_FORMATS)} ({error}); "
            "remove or mend the image"
        ) from error
    if size is not None or crop is not None:
        side = crop or min(image.size)
        if side > min(image.size):
            raise DataError(
                f"{where}: {image.width}×{image.height} pixels are too few for "
                f"`dataset.crop` (={side})"
            )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _digits(config: DatasetConfig) -> Iterator[Pixels]:
    from sklearn.datasets import load_digits

    size = config.size or 32
    for values in load_digits().images:  # 8×8, 0…16
        image = Image.fromarray((values * (255 / 16)).round().astype(np.uint8))
        yield np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))[:, :, None]


def _folder(root: Path) -> Iterator[tuple[str, bytes]]:
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{root}: holds no {', '.join(IMAGE_SUFFIXES)} file")
    for file in files:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[str, bytes]]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no .parquet file")
    for file in files:
        yield from _parquet_file(file)


def _parquet_file(file: Path) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            column = next((name for name in IMAGE_COLUMNS if name in names), None)
            if column is None:
                raise DataError(
                    f"{file}: has no column {' or '.join(IMAGE_COLUMNS)}; it has {', '.join(names)}"
                )
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                cells = batch.column(0)
                if pa.types.is_struct(cells.type):
                    if cells.type.get_field_index("bytes") < 0:
                        raise DataError(f"{file}: column {column} has no field `bytes`")
                    cells = cells.field("bytes")
                for cell in cells:
                    data = cell.as_py()
                    if not isinstance(data, bytes):
                        raise DataError(f"{file}, row {row}: holds no image bytes")
                    yield f"{file}, row {row}", data
                    row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error
