"""Published splits of a data set (train, validation, test), by the names of its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from raygan.errors import DataError

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig

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
"""By name in lower case, the split; the names are those of the Hugging Face datasets library."""
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}")
ALL_SPLITS = "all"
"""As ``dataset.split``: all splits, and the files that belong to none."""
UNNAMED = ""
"""The split of files whose names do not name one."""


def of_folder(name: str) -> str:
    """The split of the file ``name``: its first folder that is named after a split."""
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
    """By split, its items; splits and items are in the order of ``items``."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(split_of(item), []).append(item)
    return groups


def chosen(config: DatasetConfig, path: str, present: Iterable[str]) -> tuple[list[str], str]:
    """The splits that ``config`` asks for, and one word for them: ``all``, ``train``,
    ``train+test``.

    ``present``: the splits at ``path``. By default ``train`` is chosen if there is one and each
    file belongs to a split; otherwise all. Raises :class:`~raygan.errors.DataError` if a split that
    is asked for is not present.
    """
    present = list(present)
    asked = [_KNOWN.get(name.lower(), name.lower()) for name in config.splits()]
    if not asked and "train" in present and UNNAMED not in present:
        asked = ["train"]
    if asked in ([], [ALL_SPLITS]):
        return present, ALL_SPLITS
    if missing := [split for split in asked if split not in present]:
        names = [split for split in present if split != UNNAMED]
        if names:
            there = f"it has {listed(names)}. Set `dataset.split` to one of these, or"
        else:
            there = "none of its files or folders is named after a split. Set `dataset.split`"
        raise DataError(
            f"{path}: has no split {', '.join(missing)}; {there} to `{ALL_SPLITS}` to use all files"
        )
    return list(dict.fromkeys(asked)), "+".join(dict.fromkeys(asked))


def listed(names: Iterable[str]) -> str:
    """The names of splits, as text."""
    return ", ".join(split or "(files of no split)" for split in names)
