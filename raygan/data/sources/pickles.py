"""CIFAR-10's own layout: pickled batches, as torchvision stores them, read without unpickling.

Unpickling may run any code. Here, only the instructions that such a file needs are followed, and
none of them calls a function: an object that the pickle asks for becomes a record of its name and
its arguments (:class:`_Made`). Of these, only the array of pixels is used, after its types have
been checked.
"""

from __future__ import annotations

import pickletools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from raygan import storage
from raygan.data.decode import Pixels
from raygan.data.sources.pieces import Item, RowsPiece
from raygan.errors import DataError
from raygan.shown import shown

T = TypeVar("T")

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
MAX_BATCH = 64 * 2**20
"""Most bytes of a batch; the published ones have 31 million."""
MAX_INSTRUCTIONS = 2**18
"""Most instructions of a pickle; the published batches have about 40,000. Each takes about a
hundred bytes of memory."""
_SIDE = 32


class CifarPiece(RowsPiece):
    """Ranges of rows of pickled batches."""

    def read(self) -> Iterator[Item]:
        for path, start, stop in self.parts:
            images = batch(path)
            if len(images) < stop:
                raise DataError(f"{shown(path)}: has changed while it was read")
            for row in range(start, stop):
                yield f"{path}, row {row}", images[row]


def batch(path: str) -> Pixels:
    """The images of a pickled batch, uint8 [n, 32, 32, 3]; raises DataError naming it."""
    try:
        content = _followed(storage.read(path, MAX_BATCH))
        if type(content) is not dict:
            raise ValueError("it is not a dictionary")
        count, raw = _array(content["data"] if "data" in content else content[b"data"])
        planes = np.frombuffer(raw, np.uint8).reshape(count, 3, _SIDE, _SIDE)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        reason = shown(" ".join(str(error).split()), 200) or type(error).__name__
        raise DataError(f"{shown(path)}: not a batch of CIFAR-10 ({reason})") from error
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


@dataclass(eq=False, slots=True)
class _Made:
    """An object that a pickle asks for; without ``arguments``, a function or a type."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


_ARRAY, _BUFFER, _DTYPE, _ENCODE = "an array", "an array in a buffer", "a dtype", "bytes"
_NAMES = {
    "numpy ndarray": "the type of arrays",
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy._core.multiarray _reconstruct": _ARRAY,
    "numpy.core.numeric _frombuffer": _BUFFER,
    "numpy._core.numeric _frombuffer": _BUFFER,
}


def _array(made: Any) -> tuple[int, bytes | bytearray]:
    """The number of images and the bytes of a pickled array of uint8 [n, 3072].

    Types are checked before values, since a crafted file may hold nested tuples that take forever
    to hash, compare or print.
    """
    if type(made) is _Made and made.name == _ARRAY and type(made.state) is tuple:
        _, shape, kind, fortran, raw = made.state
        plain = fortran is False or (type(fortran) is int and fortran == 0)
    elif type(made) is _Made and made.name == _BUFFER:
        raw, kind, shape, order = made.arguments
        plain = type(order) is str and order == "C"
    else:
        raise ValueError("its data is not an array")
    if type(raw) is str:  # of Python 2, or in a protocol without bytes
        raw = raw.encode("latin-1")
    if not plain or not isinstance(raw, bytes | bytearray):
        raise ValueError("its data is not a plain array")
    name = kind.arguments[0] if type(kind) is _Made and kind.name == _DTYPE else None
    if type(name) is not str or name.lstrip("|") != "u1":
        raise ValueError(f"its data is {shown(name, 20) if type(name) is str else 'no'} uint8")
    if type(shape) is not tuple or len(shape) != 2 or any(type(n) is not int for n in shape):
        raise ValueError("its data is not a two-dimensional array")
    if shape[1] != 3 * _SIDE**2 or shape[0] * shape[1] != len(raw):
        raise ValueError(f"its data is {len(raw)} bytes for {shape[0]} × {shape[1]} values")
    return shape[0], raw


def _followed(data: bytes) -> Any:
    """The content of a pickle: text, numbers, lists, tuples, dictionaries and :class:`_Made`.

    Raises ValueError or LookupError for any other pickle.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for done, (instruction, argument, place) in enumerate(pickletools.genops(data)):
        if done >= MAX_INSTRUCTIONS:
            raise ValueError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
        name = instruction.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _PUTS:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", "LIST"):
            items = since_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            items = since_mark() if name != "SETITEM" else [stack.pop(-2), stack.pop()]
            if name == "DICT":
                stack.append({})
            if not all(type(key) in (str, bytes) for key in items[::2]):
                raise ValueError("it has keys that are not text")
            _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "STACK_GLOBAL":
            words = [_expect(stack.pop(), str) for _ in range(2)]
            stack.append(_named(f"{words[1]} {words[0]}"))
        elif name == "REDUCE":
            arguments = _expect(stack.pop(), tuple)
            stack.append(_made(_expect(stack.pop(), _Made), arguments))
        elif name == "BUILD":
            state = stack.pop()
            _expect(stack[-1], _Made).state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its instruction {name} at byte {place} is not allowed in a batch")
    raise ValueError("its end is missing")


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _expect(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError(f"it has {type(value).__name__} where {kind.__name__} should be")
    return value


def _named(words: str) -> _Made:
    if words not in _NAMES:
        raise ValueError(f"it asks for {words.replace(' ', '.')}: refused")
    return _Made(_NAMES[words])


def _made(what: _Made, arguments: tuple[Any, ...]) -> Any:
    if what.name != _ENCODE:
        return _Made(what.name, arguments)
    # bytes as text; they are encoded once they are known to be the pixels
    text, encoding = arguments
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("its text is not in latin-1")
    return text


def download(root: Path) -> None:
    """Download ``cifar-10-batches-py`` with torchvision into ``root``, whole or not at all."""
    from torchvision.datasets import CIFAR10

    if (root / FOLDER).exists():
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as aside:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torchvision unpickles old arrays
                CIFAR10(aside, download=True)
            try:
                (Path(aside) / FOLDER).rename(root / FOLDER)
            except OSError:
                if not (root / FOLDER).is_dir():  # else another process was faster
                    raise
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(
            f"{shown(root)}: CIFAR-10 cannot be downloaded to it ({shown(error)})"
        ) from error
