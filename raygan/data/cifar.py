"""CIFAR-10's own layout: pickled batches, as torchvision leaves them; read without unpickling.

Nothing of a pickle is called: the names in it stand for inert records, of which the one that looks
like the array of pixels is interpreted.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raygan.data import files
from raygan.data.decode import Pixels
from raygan.data.pieces import Item, PartsPiece
from raygan.errors import DataError

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
MAX_BATCH = 256 * 2**20
_SIDE = 32


class CifarPiece(PartsPiece):
    """Ranges of rows of pickled batches."""

    def read(self) -> Iterator[Item]:
        for path, start, stop in self.parts:
            images = batch(path)
            if len(images) < stop:
                raise DataError(f"{path}: has changed while it was read")
            for row in range(start, stop):
                yield f"{path}, row {row}", images[row]


def batch(path: str) -> Pixels:
    """The images of a pickled batch, uint8 [n, 32, 32, 3]; raises DataError naming it."""
    try:
        found = _unpickled(files.read(path, MAX_BATCH))
        data = found[b"data"] if b"data" in found else found["data"]
        shape, kind, raw = data.record
        if kind.lstrip("|") != "u1" or len(shape) != 2 or shape[1] != 3 * _SIDE**2:
            raise ValueError(f"its data is {kind} {shape}")
        planes = np.frombuffer(raw, np.uint8).reshape(shape[0], 3, _SIDE, _SIDE)
    except RecursionError as error:
        raise DataError(f"{path}: not a batch of CIFAR-10 (too deeply nested)") from error
    except (pickle.UnpicklingError, OSError, ValueError, EOFError, LookupError, TypeError,
            AttributeError, ArithmeticError, MemoryError, ImportError,
            struct.error) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a batch of CIFAR-10 ({reason})") from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def _with_plain_keys(code: bytes, keys: slice) -> tuple[int, Callable[[Any], None]]:
    """An instruction of a pickle, for those of whose operands ``keys`` will be hashed: that of
    nested tuples would never come to an end."""
    load = pickle._Unpickler.dispatch[code[0]]

    def checked(reader: Any) -> None:
        if not all(isinstance(key, str | bytes) for key in reader.stack[keys]):
            raise ValueError("it has keys that are no text")
        load(reader)

    return code[0], checked


_WITH_PLAIN_KEYS = dict(
    _with_plain_keys(code, keys)
    for code, keys in (
        (pickle.SETITEM, slice(-2, -1)),
        (pickle.SETITEMS, slice(None, None, 2)),
        (pickle.DICT, slice(None, None, 2)),
        (pickle.ADDITEMS, slice(None)),
        (pickle.FROZENSET, slice(None)),
    )
)


def _unpickled(data: bytes) -> dict[Any, Any]:
    class Array:
        """What a pickled array says of itself."""

        record: tuple[tuple[int, ...], str, bytes]

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, kind, fortran, raw = state
            if fortran or not isinstance(raw, bytes | str):
                raise ValueError("its data is no plain array")
            data = raw.encode("latin-1") if isinstance(raw, str) else raw
            self.record = tuple(int(n) for n in shape), str(kind.name), data

    class Kind:
        """A pickled dtype."""

        def __init__(self, name: str | bytes, *_: Any) -> None:
            self.name = name.decode("latin-1") if isinstance(name, bytes) else name

        def __setstate__(self, state: Any) -> None:
            """Byte order and the like: one byte has none."""

    def frombuffer(
        data: bytes | bytearray, kind: Kind, shape: tuple[int, ...], order: str
    ) -> Array:
        array = Array()
        array.__setstate__((1, shape, kind, order != "C", bytes(data)))
        return array

    def encode(text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"its text is in {encoding}")
        return text.encode("latin-1")

    inert: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Kind,
        ("_codecs", "encode"): encode,
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: Array(),
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("numpy._core.numeric", "_frombuffer"): frombuffer,
    }

    # the one written in Python: the other takes memory for whatever size a file claims
    class Reader(pickle._Unpickler):
        dispatch: ClassVar = {**pickle._Unpickler.dispatch, **_WITH_PLAIN_KEYS}

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in inert:
                raise ValueError(f"it asks for {module}.{name}: refused")
            return inert[module, name]

    found = Reader(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(found, dict):
        raise ValueError("it is no dictionary")
    return found


def download(root: Path) -> None:
    """Put torchvision's ``cifar-10-batches-py`` into the folder ``root``, whole or not at all."""
    from torchvision.datasets import CIFAR10

    if (root / FOLDER).exists():
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as aside:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of unpickling old arrays
                CIFAR10(aside, download=True)
            with contextlib.suppress(FileExistsError):  # by another meanwhile
                (Path(aside) / FOLDER).rename(root / FOLDER)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"{root}: CIFAR-10 cannot be downloaded to it ({error})") from error
