"""The layouts in which people have images, found and cut into pieces.

To add one: a function from a configuration to a :class:`Source`, and its name in ``SourceName``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

from PIL import Image

from raygan.data import files
from raygan.data.dataset import DatasetConfig
from raygan.data.decode import IMAGE_SUFFIXES, Pixels, UnusableError, decode, fit
from raygan.data.files import File
from raygan.data.sources import archives, cifar, leftout, pieces, splits
from raygan.data.sources import parquet as tables
from raygan.data.sources.pieces import Piece, cut, ranges
from raygan.errors import DataError

_DIGITS = 1797
_INSIDE = {
    "celeba": ("celeba", "img_align_celeba"),
    "cifar10": (cifar.FOLDER,),
    "lsun": ("bedroom_train_lmdb",),
}
"""Folders within a source's path that hold it, as its tools make them."""
_BESIDE_TABLES = {
    "cifar10": (f"{cifar.TRAIN[0]} …",),
    "celeba": (leftout.IMAGES, ".zip file"),
    "lsun": (archives.LMDB_FILE, leftout.IMAGES),
    "parquet": (),
}
"""What a source may consist of instead of Parquet files."""
_NAMED = 5
"""Files that an error names."""
_SAMPLED = 8
_SAMPLE = 64 * 2**10
"""Bytes at each end of so many files that tell contents apart where names and sizes do not."""


@dataclass(frozen=True)
class Source:
    """What was found at a configuration's path."""

    layout: str
    """How the images lie: digits, files, zip, parquet, lmdb or cifar-10-batches-py."""
    split: str
    """Which part of the published set: all, train or train+test …"""
    digest: str
    """Of names, sizes, times and samples of its files; not of where they lie."""
    count: int
    """Images, usable or not."""
    cut: Callable[[int], Iterator[Piece]]
    """Cuts it into pieces of at most so many images, always the same way."""
    splits: tuple[str, ...] = (splits.UNNAMED,)
    """The splits that were found, whether they are read or not."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Files that are not read, by suffix; none of those that a layout always has."""

    def described(self) -> list[str]:
        """What was not taken of what lies there, as lines for people."""
        lines = []
        if len(self.splits) > 1:
            lines.append(
                f"split: {self.split} of {splits.listed(self.splits)}; "
                "`dataset.split` chooses others"
            )
        if self.left_out:
            lines.append(f"files left out, by suffix: {leftout.described(self.left_out)}")
        return lines


def find(config: DatasetConfig) -> Source:
    """The source of ``config``; reads names and tables of contents, not the images.

    Raises :class:`~raygan.errors.DataError` naming what is missing or damaged.
    """
    if config.name == "digits":
        return Source("digits", "all", "digits", _DIGITS, _cut_digits)
    path = config.path or ""
    if config.download:
        cifar.download(files.local(path))
    if not files.is_address(path):
        path = str(files.local(path))
    path = path.rstrip("/") or "/"
    for folder in _INSIDE.get(config.name, ()):
        if not path.endswith(f"/{folder}") and files.exists(f"{path}/{folder}"):
            path = f"{path}/{folder}"
    if config.name == "lsun" and files.exists(f"{path}/{archives.LMDB_FILE}"):
        return _lmdb(config, path)
    listed = files.listing(path)
    batches = {file.name for file in listed} & set(cifar.TRAIN)
    if config.name == "cifar10" and batches:
        return _cifar_batches(config, path, listed)
    found = [file for file in listed if file.name.lower().endswith(IMAGE_SUFFIXES)]
    tables_ = sum(file.size for file in listed if file.name.lower().endswith(".parquet"))
    if config.name in ("folder", "celeba") and not found:
        zipped = [file for file in listed if file.name.lower().endswith(".zip")]
        if len(zipped) == 1:
            return _zip(config, zipped[0], listed)
        if zipped and not tables_:
            names = ", ".join(file.name for file in zipped[:_NAMED])
            raise DataError(
                f"{path}: holds {len(zipped)} zip files and no images beside them: give the path "
                f"of one in `dataset.path`, or unpack them ({names}"
                f"{' …' if len(zipped) > _NAMED else ''})"
            )
    if config.name in ("cifar10", "parquet") or (
        # thumbnails beside the tables are not the set, nor is a table of names beside images
        config.name != "folder" and tables_ >= sum(file.size for file in found)
    ):
        return _parquet(config, path, listed)
    return _folder(config, path, listed, found)


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
    not of ``shape``, which is the first image's, among them."""
    crop, size = config.side_of_crop(), config.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is refused or converted here anyway
        for where, data in piece.read():
            try:
                if isinstance(data, UnusableError):
                    raise data
                if isinstance(data, bytes):
                    image = decode(data, where, crop=crop, size=size)
                else:
                    image = _cut_pixels(data, where, config)
                if shape is not None and image.shape != shape:
                    raise UnusableError(
                        where,
                        f"{image.shape[1]}×{image.shape[0]} pixels, but the first image has "
                        f"{shape[1]}×{shape[0]}; set `dataset.size`",
                    )
                yield image
            except UnusableError as error:
                yield error


def _cut_pixels(pixels: Pixels, where: str, config: DatasetConfig) -> Pixels:
    crop, size = config.side_of_crop(), config.size
    if config.name == "digits":
        crop, size = None, size or 32
    if crop is None and size in (None, pixels.shape[0]):
        return pixels
    if crop is not None and crop > min(pixels.shape[:2]):
        height, width, _ = pixels.shape
        raise UnusableError(
            where, f"{width}×{height} pixels are too few for `dataset.crop` (={crop})"
        )
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    made = fit(image, crop or min(image.size), size)
    return made[:, :, None] if grey else made


def _cut_digits(size: int) -> Iterator[Piece]:
    return (pieces.DigitsPiece(start, stop) for start, stop in ranges(_DIGITS, size))


def _folder(config: DatasetConfig, path: str, listed: list[File], images: list[File]) -> Source:
    if not images:
        raise leftout.nothing(path, [leftout.IMAGES, ".zip file"], listed)
    groups = splits.grouped(images, lambda file: splits.of_folder(file.name))
    chosen, split = splits.chosen(config, path, groups)
    found = [file for name in chosen for file in groups[name]]
    paths = [file.path for file in found]

    def cut_files(size: int) -> Iterator[Piece]:
        for start, stop in ranges(len(paths), size):
            yield pieces.FilesPiece(path, tuple(paths[start:stop]))

    left_out = _left_out(listed, images)
    return Source("files", split, _digest(found), len(found), cut_files, tuple(groups), left_out)


def _zip(config: DatasetConfig, archive: File, listed: list[File]) -> Source:
    path = archive.path
    images, others = files.retrying(lambda: archives.zip_entries(path, IMAGE_SUFFIXES), path)
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
    return Source("zip", split, _digest([archive]), len(entries), cut_zip, tuple(groups), left_out)


def _parquet(config: DatasetConfig, path: str, listed: list[File]) -> Source:
    whole = [
        file
        for file in listed
        # a file that is named itself may be called anything
        if file.name.lower().endswith(".parquet")
        or (file.path == path and not leftout.is_archive(path))
    ]
    if not whole:
        raise leftout.nothing(path, [*_BESIDE_TABLES[config.name], ".parquet file"], listed)
    by_split = splits.grouped(whole, lambda file: splits.of_table(file.name))
    chosen, split = splits.chosen(config, path, by_split)
    found = [file for name in chosen for file in by_split[name]]
    groups = []
    for file in found:
        rows = files.retrying(partial(tables.row_groups, file.path), file.path)
        groups.append((file.path, [0, *accumulate(rows)]))

    def cut_tables(size: int) -> Iterator[Piece]:
        parts = (
            (name, start, stop - start) for name, ends in groups for start, stop in pairwise(ends)
        )
        return (tables.ParquetPiece(path, group) for group in cut(parts, size))

    count = sum(ends[-1] for _, ends in groups)
    return Source(
        "parquet",
        split,
        _digest(found),
        count,
        cut_tables,
        tuple(by_split),
        _left_out(listed, whole),
    )


def _cifar_batches(config: DatasetConfig, path: str, listed: list[File]) -> Source:
    by_name = {file.name: file for file in listed}
    official = {"train": cifar.TRAIN, "test": cifar.TEST}
    chosen, split = splits.chosen(config, path, official)
    wanted = [name for part in chosen for name in official[part]]
    if missing := [name for name in wanted if name not in by_name]:
        raise DataError(
            f"{path}: {', '.join(missing)} missing; the download may be incomplete: download it "
            "again"
        )
    found = [by_name[name] for name in wanted]
    counts = [(file.path, len(cifar.batch(file.path))) for file in found]

    def cut_batches(size: int) -> Iterator[Piece]:
        parts = ((name, 0, count) for name, count in counts)
        return (cifar.CifarPiece(path, group) for group in cut(parts, size))

    count = sum(count for _, count in counts)
    return Source(cifar.FOLDER, split, _digest(found), count, cut_batches, tuple(official))


def _lmdb(config: DatasetConfig, path: str) -> Source:
    if files.is_address(path):
        raise DataError(
            f"{path}: LMDB maps a local file into memory; copy the folder to a disk, or keep the "
            "images as files or Parquet in object storage"
        )
    _, split = splits.chosen(config, path, [splits.UNNAMED])
    found = [file for file in files.listing(path) if file.name == archives.LMDB_FILE]
    with archives.open_lmdb(path) as transaction:
        count = transaction.stat()["entries"]
    if not count:
        raise DataError(f"{path}: holds no images")

    def cut_lmdb(size: int) -> Iterator[Piece]:
        for first, number in archives.lmdb_keys(path, size):
            yield archives.LmdbPiece(path, first, number)

    return Source("lmdb", split, _digest(found), count, cut_lmdb)


def _left_out(listed: list[File], read: list[File]) -> dict[str, int]:
    names = {file.name for file in read}
    return leftout.counted(file.name for file in listed if file.name not in names)


def _digest(found: list[File]) -> str:
    """Changes whenever the files do, but not with the folder that they lie in."""
    digest = hashlib.sha256()
    for file in found:
        digest.update(json.dumps([file.name, file.size, file.stamp]).encode())
    step = max(1, len(found) // _SAMPLED)
    for file in found[::step][:_SAMPLED]:
        try:
            digest.update(files.retrying(partial(_ends, file), file.path))
        except OSError as error:
            raise DataError(f"{file.path}: cannot be read ({error})") from error
    return digest.hexdigest()


def _ends(file: File) -> bytes:
    with files.open_file(file.path) as opened:
        start = opened.read(_SAMPLE)
        opened.seek(max(0, file.size - _SAMPLE))
        return start + opened.read(_SAMPLE)
