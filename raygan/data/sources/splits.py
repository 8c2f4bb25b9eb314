"""Published splits of a data set (train, validation, test), told by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from raygan.data.dataset import ALL_SPLITS, DatasetConfig
from raygan.errors import DataError

T = TypeVar("T")

_KNOWN = {
    alias: split
    for split, aliases in {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "val", "dev"),
        "test": ("test", "testing", "eval", "evaluation"),
    }.items()
    for alias in aliases
}
"""Names of splits, as the Hugging Face datasets library knows them."""
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}")
UNNAMED = ""
"""The split of files whose names tell none."""


def of_folder(name: str) -> str:
    """The split of the file ``name``: the first of its folders that is called like one."""
    folders = name.lower().split("/")[:-1]
    return next((_KNOWN[folder] for folder in folders if folder in _KNOWN), UNNAMED)


def of_table(name: str) -> str:
    """The split of the table ``name``: by :func:`of_folder`, or by the file's own name, as in
    ``test.parquet``, ``train_2.parquet`` or ``unlabelled-00000-of-00004.parquet``."""
    if split := of_folder(name):
        return split
    file = name.lower().rpartition("/")[2]
    if shard := _SHARD.match(file):
        return _KNOWN.get(shard[1], shard[1])
    word = re.match(r"[a-z]*", file)
    return _KNOWN.get(word[0], UNNAMED) if word else UNNAMED


def grouped(items: Iterable[T], split_of: Callable[[T], str]) -> dict[str, list[T]]:
    """What belongs to each split, in the order found."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(split_of(item), []).append(item)
    return groups


def chosen(config: DatasetConfig, path: str, found: Iterable[str]) -> tuple[list[str], str]:
    """Those of the splits ``found`` that ``config`` asks for, and one word for them: ``all``,
    ``train`` or ``train+test``.

    By default ``train``, if each file belongs to a split and there are several; else all. Raises
    :class:`~raygan.errors.DataError` if there is no such split.
    """
    found = list(found)
    asked = [_KNOWN.get(name.lower(), name.lower()) for name in config.splits()]
    if not asked and "train" in found and UNNAMED not in found:
        asked = ["train"]
    if asked in ([], [ALL_SPLITS]):
        return found, ALL_SPLITS
    if missing := [split for split in asked if split not in found]:
        names = [split for split in found if split != UNNAMED]
        if names:
            there = f"it has {listed(names)}. Set `dataset.split` to one of these, or"
        else:
            there = "none of its files or folders is named after a split. Set `dataset.split`"
        raise DataError(
            f"{path}: has no split {', '.join(missing)}; {there} to `{ALL_SPLITS}` to use all files"
        )
    return list(dict.fromkeys(asked)), "+".join(dict.fromkeys(asked))


def listed(found: Iterable[str]) -> str:
    """Names of splits as a list for people."""
    return ", ".join(split or "(files of no split)" for split in found)
