"""One shard of a prepared set: an Arrow IPC file that is memory-mapped.

The file holds one uncompressed record batch with one column, ``pixels``, of fixed-shape uint8
tensors [H, W, C]: any Arrow reader opens it, and here its bytes become a tensor without a copy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raygan import local_files
from raygan.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN = "pixels"
MAX_METADATA = 64 * 2**10
"""Bytes of a file that may be other than pixels; pyarrow writes about 1,000."""


class Written(NamedTuple):
    """What :func:`write_shard` says of the file."""

    sha256: str
    start: int
    """Bytes before the pixels, which lie there one image after another."""


def write_shard(path: Path, images: npt.NDArray[np.uint8]) -> Written:
    """Write ``images``, uint8 [n, H, W, C], to ``path``.

    A reader sees all or nothing.
    """
    import pyarrow as pa

    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise ValueError(f"`images` ({images.dtype} {images.shape}) must be uint8 [n, H, W, C]")
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images))
    batch = pa.record_batch([column], names=[COLUMN])
    with local_files.writing(path) as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        with pa.memory_map(file.name) as mapped:
            whole = mapped.read_buffer()
            start = _pixels(whole, len(images), images.shape[1:]).address - whole.address
    return Written(digest, start)


def open_shard(path: Path, count: int, shape: tuple[int, int, int]) -> Tensor:
    """The ``count`` images of a shard, uint8 [count, H, W, C], memory-mapped.

    All processes share the pages in the page cache; writes to the tensor are private to the
    process. The pixels are not read, so that their checksum is not verified. Raises
    :class:`~raygan.errors.DataError` naming the file if it is truncated or does not hold these
    images.
    """
    import pyarrow as pa

    size = count * shape[0] * shape[1] * shape[2]
    try:
        length = path.stat().st_size
        if not size < length <= size + MAX_METADATA:
            raise DataError(
                f"{path}: {length:,} bytes cannot be {count:,} images of "
                f"{shape[1]}×{shape[0]}×{shape[2]} bytes; prepare the data set again"
            )
        # private, and without a file descriptor that stays open: a set has thousands of shards
        mapped = torch.from_file(str(path), shared=False, size=length, dtype=torch.uint8)
        whole = pa.py_buffer(mapped.numpy())
        start = _pixels(whole, count, shape).address - whole.address
    except (OSError, RuntimeError, ValueError, ArithmeticError, LookupError, TypeError,
            pa.ArrowException) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path}: not a whole shard of images ({reason}); prepare the data set again"
        ) from error
    return mapped[start : start + size].view(count, *shape)


def _pixels(whole: pa.Buffer, count: int, shape: tuple[int, ...]) -> pa.Buffer:
    """The buffer of the pixels within the buffer of the ``whole`` file."""
    import pyarrow as pa

    with pa.ipc.open_file(whole) as reader:
        # before any batch is read: its buffers are interpreted as the schema says
        if reader.schema.names != [COLUMN] or reader.schema.types != [_type(shape)]:
            raise ValueError(f"its schema is {reader.schema}")
        if reader.num_record_batches != 1:
            raise ValueError(f"it has {reader.num_record_batches} record batches, not 1")
        batch = reader.get_batch(0)
    batch.validate()
    column = batch.column(0).storage
    if len(column) != count or column.null_count or column.offset:
        raise ValueError(f"it has {len(column)} images, {column.null_count} of them null")
    values = column.values
    buffer = values.buffers()[1]
    size = count * shape[0] * shape[1] * shape[2]
    if len(values) != size or values.null_count or values.offset or buffer is None:
        raise ValueError(f"it has {len(values)} values, {values.null_count} of them null")
    start = buffer.address - whole.address
    # what was compressed has been decompressed to elsewhere
    if buffer.size < size or start < 0 or start + size > whole.size:
        raise ValueError("its pixels are compressed or lie outside of the file")
    return buffer


def _type(shape: tuple[int, ...]) -> Any:
    import pyarrow as pa

    return pa.fixed_shape_tensor(pa.uint8(), list(shape))
