"""Files of a data set that are not read: counted by suffix, so that users hear of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from raygan.addresses import is_address
from raygan.data import files
from raygan.data.decode import IMAGE_SUFFIXES
from raygan.errors import DataError
from raygan.shown import shown

IMAGES = "PNG, JPEG or WEBP file (.png, .jpg, .webp …)"
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
_MOST = 10
"""Most suffixes that are listed; the others are counted together."""
_LONGEST = 16
_NONE, _OTHERS = "(no suffix)", "(other suffixes)"


def suffix(name: str) -> str:
    """The suffix of a file's name in lower case; ``.tar.gz`` is one."""
    path = PurePosixPath(name.lower())
    if path.stem.endswith(".tar"):
        return f".tar{path.suffix}"
    return path.suffix


def is_archive(name: str) -> bool:
    """Whether the suffix of the file is that of an archive."""
    return suffix(name) in _ARCHIVES


def counted(names: Iterable[str]) -> dict[str, int]:
    """The number of files by suffix: the most frequent suffixes, then all others together."""
    counts = Counter(shown(suffix(name), _LONGEST) or _NONE for name in names)
    most = dict(counts.most_common(_MOST))
    rest = counts.total() - sum(most.values())
    return {**most, _OTHERS: rest} if rest else most


def described(counts: Mapping[str, int]) -> str:
    """Counts by suffix for people: ``30 .tiff, 1 .txt``."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def nothing(path: str, wanted: Iterable[str], listed: list[files.File]) -> DataError:
    """The error for a path that holds none of the kinds of files in ``wanted``."""
    names = [file.name for file in listed]
    there = described(counted(names)) or "no files"
    hint = ""
    if any(suffix(name) == ".parquet" for name in names):
        hint = "; tables are read by `dataset.name: parquet`"
    elif any(suffix(name) in IMAGE_SUFFIXES for name in names):
        hint = "; images are read by `dataset.name: folder`"
    elif packed := [file for file in listed if is_archive(file.name)]:
        hint = f". {_unpack(path, packed)}"
    return DataError(f"{path}: holds no {', no '.join(wanted)}; it holds {there}{hint}")


def _unpack(path: str, packed: list[files.File]) -> str:
    if is_address(path):
        return "Archives are not read there: unpack them, and put the files into object storage"
    first = packed[0].path
    target = f"{first.rpartition('/')[0]}/unpacked"
    tool = "unzip -q {} -d {}" if suffix(first) == ".zip" else "tar -xf {} -C {}"
    command = tool.format(shlex.quote(first), shlex.quote(target))
    more = f", and likewise the other {len(packed) - 1:,}" if len(packed) > 1 else ""
    return (
        f"Unpack it (mkdir -p {shlex.quote(target)} && {command}{more}), then set `dataset.path` "
        f"to {target}"
    )
