"""The layouts that several data sources have in common: image files, a zip of them, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from raygan.data import files
from raygan.data.decode import IMAGE_SUFFIXES
from raygan.data.files import File
from raygan.data.sources import archives, leftout, parquet_reader, pieces, splits
from raygan.data.sources.pieces import Piece, cut, ranges
from raygan.data.sources.source import Source, digest_of
from raygan.errors import DataError
from raygan.retries import retrying

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig

_NAMED = 5
"""Files that an error names."""


def inside(path: str, *folders: str) -> str:
    """``path``, or the first of these folders that it holds, and so on: folders within a source's
    path that hold it, as its tools make them."""
    for folder in folders:
        if not path.endswith(f"/{folder}") and files.exists(f"{path}/{folder}"):
            path = f"{path}/{folder}"
    return path


def images_among(listed: list[File]) -> list[File]:
    """The files of one image each."""
    return [file for file in listed if file.name.lower().endswith(IMAGE_SUFFIXES)]


def are_tables(listed: list[File], images: list[File]) -> bool:
    """Whether tables, rather than ``images``, are the set: thumbnails beside the tables are not,
    nor is a table of names beside images."""
    return _bytes_of_tables(listed) >= sum(file.size for file in images)


def _bytes_of_tables(listed: list[File]) -> int:
    return sum(file.size for file in listed if file.name.lower().endswith(".parquet"))


def only_zip(path: str, listed: list[File]) -> File | None:
    """The zip archive at ``path``, which holds no images beside it; raises
    :class:`~raygan.errors.DataError` if there are several."""
    zipped = [file for file in listed if file.name.lower().endswith(".zip")]
    if len(zipped) == 1:
        return zipped[0]
    if zipped and not _bytes_of_tables(listed):
        names = ", ".join(file.name for file in zipped[:_NAMED])
        raise DataError(
            f"{path}: holds {len(zipped)} zip files and no images beside them: give the path "
            f"of one in `dataset.path`, or unpack them ({names}"
            f"{' …' if len(zipped) > _NAMED else ''})"
        )
    return None


def image_files(config: DatasetConfig, path: str, listed: list[File], images: list[File]) -> Source:
    """The ``images`` among the files that are ``listed``."""
    if not images:
        raise leftout.nothing(path, [leftout.IMAGES, ".zip file"], listed)
    groups = splits.grouped(images, lambda file: splits.of_folder(file.name))
    chosen, split = splits.chosen(config, path, groups)
    selected = [file for name in chosen for file in groups[name]]
    paths = [file.path for file in selected]

    def cut_files(size: int) -> Iterator[Piece]:
        for start, stop in ranges(len(paths), size):
            yield pieces.FilesPiece(path, tuple(paths[start:stop]))

    left_out = _left_out(listed, images)
    return Source(
        "files", split, digest_of(selected), len(selected), cut_files, tuple(groups), left_out
    )


def zip_archive(config: DatasetConfig, archive: File, listed: list[File]) -> Source:
    """The images in a zip archive."""
    path = archive.path
    images, others = retrying(lambda: archives.zip_entries(path, IMAGE_SUFFIXES), path)
    if not images:
        there = leftout.described(leftout.counted(others)) or "no files"
        raise DataError(f"{path}: holds no {leftout.IMAGES}; it holds {there}")
    groups = splits.grouped(images, lambda entry: splits.of_folder(entry.name))
    chosen, split = splits.chosen(config, path, groups)
    entries = [entry for name in chosen for entry in groups[name]]

    def cut_zip(size: int) -> Iterator[Piece]:
        for start, stop in ranges(len(entries), size):
            yield archives.ZipPiece(path, tuple(entries[start:stop]))

    left_out = leftout.counted([*others, *(file.name for file in listed if file != archive)])
    digest = digest_of([archive])
    return Source("zip", split, digest, len(entries), cut_zip, tuple(groups), left_out)


def parquet_tables(
    config: DatasetConfig, path: str, listed: list[File], beside: Iterable[str] = ()
) -> Source:
    """The tables among the files that are ``listed``; ``beside``: what the source may consist of
    instead, for an error."""
    whole = [
        file
        for file in listed
        # a file that is named itself may be called anything
        if file.name.lower().endswith(".parquet")
        or (file.path == path and not leftout.is_archive(path))
    ]
    if not whole:
        raise leftout.nothing(path, [*beside, ".parquet file"], listed)
    by_split = splits.grouped(whole, lambda file: splits.of_table(file.name))
    chosen, split = splits.chosen(config, path, by_split)
    selected = [file for name in chosen for file in by_split[name]]
    groups, longest = [], 0
    for file in selected:
        rows = retrying(partial(parquet_reader.row_groups, file.path), file.path)
        groups.append((file.path, [0, *accumulate(rows)]))
        longest = max([longest, *rows])

    def cut_tables(size: int) -> Iterator[Piece]:
        parts = (
            (name, start, stop - start) for name, ends in groups for start, stop in pairwise(ends)
        )
        return (parquet_reader.ParquetPiece(path, group) for group in cut(parts, size))

    count, left_out = sum(ends[-1] for _, ends in groups), _left_out(listed, whole)
    digest = digest_of(selected)
    return Source("parquet", split, digest, count, cut_tables, tuple(by_split), left_out, longest)


def _left_out(listed: list[File], read: list[File]) -> dict[str, int]:
    names = {file.name for file in read}
    return leftout.counted(file.name for file in listed if file.name not in names)
