"""Decode a source once into shards that all trials memory-map.

The folder is named by a digest of what is in it. The shards are written first, the manifest when
all of them are whole; a set without a manifest is not loaded. Each file is written under another
name and then renamed. So an interrupted preparation can be resumed, and two preparations may write
the same set at the same time.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from raygan import local_files, storage
from raygan.addresses import is_address
from raygan.data import making
from raygan.data.dataset import DatasetConfig
from raygan.data.decode import DECODING, UnusableError
from raygan.data.decoders import in_turn
from raygan.data.making import Made, ShardWork, make
from raygan.data.manifest import FORMAT, is_prepared, read_manifest
from raygan.data.sources.find import find, images_of
from raygan.data.sources.pieces import Piece
from raygan.data.sources.source import Source
from raygan.errors import DataError
from raygan.folder import MANIFEST, is_shard, shard_note
from raygan.recipe import file_of
from raygan.retries import retrying
from raygan.version import __version__

SHARD_BYTES = 64 * 2**20
MAX_SHARDS = 2**20
_NAMED = 3
"""Most unusable images that an error names."""
_LOOKED_AT = 1000
"""Most images that are tried to find the shape of the images without a `size`."""
_READERS = 16
_SHARDS_OF_GROUP = 4
"""A table is said to read slowly if more shards than this lie in a group of its rows: its images
are then read more than twice, on average."""

Summed = tuple[Made, npt.NDArray[np.int64]]
Map = Callable[
    [Callable[[tuple[int, Piece]], Summed], list[tuple[int, Piece]]], Generator[Summed, None, None]
]
"""Like ``map``, but results may come in any order; see :mod:`raygan.data.decoders`."""
Progress = Callable[[int, int, tuple[int, int, int]], None]
"""Called with the number of images done, the number of all images, and their shape."""


Place = TypeVar("Place", Path, str)


def prepare(
    config: DatasetConfig,
    cache: Place,
    *,
    map: Map = in_turn,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Place:
    """The folder under ``cache`` with the prepared images of ``config``; prepares them if needed.

    ``cache``: a folder, or an address in object storage (a ``str``); then the result is an address,
    too. ``map``: how shards are made at the same time. ``say`` is called with lines for people:
    which split is used, which files are left out, and what makes a preparation slow. Raises
    :class:`~raygan.errors.DataError` naming what is missing, corrupt or too few.
    """
    source = find(config)
    if say is not None:
        for line in source.described():
            say(line)
    folder = f"{cache}/{_key(config, source)}"
    if (manifest := _prepared(folder)) is None:
        _prepare(config, source, folder, map, progress, say)
    else:
        _refuse_if_many(config, source.count, manifest["corrupt"])
    return folder if isinstance(cache, str) else Path(folder)


def _prepare(
    config: DatasetConfig,
    source: Source,
    folder: str,
    map_: Map,
    progress: Progress | None,
    say: Callable[[str], None] | None,
) -> None:
    shape = config.shape() or _shape_of_first(source, config)
    _sizes(config, source.count)
    per_shard = max(1, SHARD_BYTES // math.prod(shape))
    if source.count > MAX_SHARDS * per_shard:
        raise DataError(
            f"{config.path}: claims to hold {source.count:,} images, more than raygan accepts: "
            "the file is damaged or crafted"
        )
    if say is not None and source.longest_group > _SHARDS_OF_GROUP * per_shard:
        say(
            f"row groups: the longest has {source.longest_group:,} rows. Each shard of up to "
            f"{per_shard:,} images reads its row group from the start, which takes long; write "
            f"the table again with at most {per_shard:,} rows in a group (pyarrow: row_group_size)"
        )
    if not is_address(folder):
        _make_folder(Path(folder), source.count * math.prod(shape))
    own = file_of(type(config.source))
    job = ShardWork(config, shape, folder, _limit(config, source.count), (own,) if own else ())
    made, total = _make_all(job, source, list(enumerate(source.cut(per_shard))), map_, progress)
    try:
        manifest = _manifest(job, source, made, total)
        storage.write(f"{folder}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
        for shard in made:
            storage.remove(f"{folder}/{shard_note(shard.index)}")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error})") from error


def _make_folder(folder: Path, size: int) -> None:
    if folder.is_symlink():
        raise DataError(
            f"{folder}: is a symbolic link, which raygan does not follow here; replace it by the "
            "folder itself"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        local_files.remove_leftovers(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error})") from error
    _check_room(folder, size)


def _prepared(folder: str) -> dict[str, Any] | None:
    """The manifest of a whole set; None if it is missing or damaged, or a shard is truncated."""
    if not is_prepared(folder):
        return None
    try:
        manifest = read_manifest(folder)
        if not is_address(folder):
            size = math.prod(manifest["shape"][1:])
            for shard in manifest["shards"]:
                if Path(folder, shard["file"]).stat().st_size <= size * shard["count"]:
                    return None
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise  # it cannot be read now, which does not mean that it is damaged
        return None
    except FileNotFoundError:  # a shard
        return None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error
    return manifest


def _make_all(
    job: ShardWork,
    source: Source,
    numbered: list[tuple[int, Piece]],
    map_: Map,
    progress: Progress | None,
) -> tuple[list[Made], npt.NDArray[np.int64]]:
    """All shards in order, and the sum of all images.

    Raises DataError as soon as too many images are unusable.
    """
    made: list[Made] = []
    total = np.zeros(job.shape, np.int64)
    unusable: list[dict[str, str]] = []
    done = 0
    with closing(map_(partial(make, job), numbered)) as results:
        for shard, sum_ in results:
            made.append(shard)
            total += sum_
            unusable += shard.unusable
            done += shard.seen
            _refuse_if_many(job.config, source.count, unusable)
            if progress is not None:
                progress(done, source.count, job.shape)
    return sorted(made, key=lambda shard: shard.index), total


def _limit(config: DatasetConfig, count: int) -> int:
    return math.floor(config.max_corrupt * count)


def _refuse_if_many(config: DatasetConfig, count: int, unusable: list[dict[str, str]]) -> None:
    limit = _limit(config, count)
    if len(unusable) <= limit:
        return
    named = "; ".join(f"{image['where']}: {image['reason']}" for image in unusable[:_NAMED])
    more = "" if len(unusable) <= _NAMED else " …"
    raise DataError(
        f"{config.path}: of {count:,} images {len(unusable)} or more cannot be used, and "
        f"`dataset.max_corrupt` (={config.max_corrupt:g}) allows {limit}: {named}{more}"
    )


def _manifest(
    job: ShardWork, source: Source, made: list[Made], total: npt.NDArray[np.int64]
) -> dict[str, Any]:
    config, shape = job.config, job.shape
    count = sum(shard.count for shard in made)
    running, final = _held_out(config, count)
    shards = [shard for shard in made if shard.count]
    digest = hashlib.sha256()
    for part in (shape, [shard.pixels for shard in shards], running.tolist(), final.tolist()):
        digest.update(json.dumps(part).encode())
    return {
        "format": FORMAT,
        "config": config.to_dict(),
        "source": {
            "layout": source.layout,
            "split": source.split,
            "splits": list(source.splits),
            "left_out": source.left_out,
            "digest": source.digest,
            "images": source.count,
        },
        "decoding": DECODING,
        "shape": [count, *shape],
        "digest": digest.hexdigest(),
        "baseline": _baseline(job, shards, total, running, final),
        "mean": (total.sum((0, 1)) / (255 * count * shape[0] * shape[1])).tolist(),
        "split_seed": config.split_seed,
        "corrupt": [image for shard in made for image in shard.unusable],
        "versions": {"raygan": __version__, **making.versions()},
        "shards": [
            {"file": shard.file, "count": shard.count, "sha256": shard.sha256} for shard in shards
        ],
        "running": running.tolist(),
        "final": final.tolist(),
    }


def _sizes(config: DatasetConfig, count: int) -> tuple[int, int]:
    """How many of ``count`` images the running and the final test hold out."""
    running, final = config.held_out(count)
    train, of = count - running - final, config.path or config.name
    if min(running, final) < 1:
        raise DataError(
            f"{of}: {_images(count)} too few: by default an eighth of them is held out for each of "
            "`dataset.running` and `dataset.final`, which takes at least 8 images. Add images, "
            "or set both keys to 1, for which 3 images are enough"
        )
    if train < 1:
        raise DataError(
            f"{of}: {_images(count)} too few: `dataset.running` (={running}) and `dataset.final` "
            f"(={final}) hold out {running + final}, and none would be left to train on. Add "
            "images, or set smaller numbers"
        )
    return running, final


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"


def _held_out(
    config: DatasetConfig, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Disjoint indices of the images of the running and the final test, drawn by ``split_seed``."""
    running, final = _sizes(config, count)
    order: npt.NDArray[np.int64] = np.random.default_rng(config.split_seed).permutation(count)
    return order[:running], order[running : running + final]


def _baseline(
    job: ShardWork,
    shards: list[Made],
    total: npt.NDArray[np.int64],
    running: npt.NDArray[np.int64],
    final: npt.NDArray[np.int64],
) -> float:
    """Mean squared error per pixel in [0, 1] between the mean training image and the images of the
    running test.

    The sums are of integers, so that the result does not depend on their order.
    """
    ends = list(accumulate(shard.count for shard in shards))
    size = math.prod(job.shape)

    def image(index: int) -> npt.NDArray[np.uint8]:
        number = int(np.searchsorted(ends, index, side="right"))
        shard = shards[number]
        start = shard.start + (index - ends[number] + shard.count) * size
        path = f"{job.folder}/{shard.file}"
        data = retrying(lambda: _bytes(path, start, size), path)
        return np.frombuffer(data, np.uint8).reshape(job.shape)

    def images(indices: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        for first in range(0, len(indices), _READERS):
            yield from pool.map(image, indices[first : first + _READERS].tolist())

    train = total.copy()
    with ThreadPoolExecutor(_READERS) as pool:
        for held in (running, final):
            for pixels in images(held):
                train -= pixels
        mean = train / (ends[-1] - len(running) - len(final))
        losses = [np.square((pixels - mean) / 255).mean() for pixels in images(running)]
    return float(np.mean(losses))


def _bytes(path: str, start: int, size: int) -> bytes:
    with storage.open_file(path) as file:
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"{path}: ends before byte {start + size}")
    return data


def _shape_of_first(source: Source, config: DatasetConfig) -> tuple[int, int, int]:
    first: UnusableError | None = None
    for piece in _some(source.cut(32), _LOOKED_AT // 32):
        for image in images_of(piece, config):
            if not isinstance(image, UnusableError):
                height, width, channels = image.shape
                return height, width, channels
            first = first or image
    raise DataError(f"{config.path}: none of the first images can be used: {first}")


def _some(pieces: Iterable[Piece], count: int) -> Iterator[Piece]:
    for piece, _ in zip(pieces, range(count), strict=False):
        yield piece


def _check_room(folder: Path, size: int) -> None:
    """Raise DataError now if the disk is too small, not after hours of work."""
    there = sum(file.stat().st_size for file in folder.iterdir() if is_shard(file.name))
    free = shutil.disk_usage(folder).free
    if size - there > free:
        raise DataError(
            f"{folder}: the prepared images take {_bytes_of(size)}, and the disk has "
            f"{_bytes_of(free)} left; make room or choose a smaller `dataset.size`"
        )


def _bytes_of(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size:,} bytes"


def _key(config: DatasetConfig, source: Source) -> str:
    """Name of the set's folder. It changes with all that changes the prepared files: the files of
    the source, the decoding, the geometry, the split."""
    crop = config.source.default_crop if config.crop is None else config.crop
    described = {
        "format": FORMAT,
        "decoding": DECODING,
        "source": [source.layout, source.split, source.digest],
        "geometry": [config.shape(), crop, config.size, SHARD_BYTES],
        "split": [config.running, config.final, config.split_seed],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:16]}"
