"""Decode a source once into shards that all trials memory-map.

The shards and, when all are whole, the manifest are written into a folder that is named by what
is in it. Each file is written aside and renamed, and without a manifest nothing is loaded; so an
interrupted preparation goes on, and of two at once each may write what the other does.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raygan import __version__
from raygan.data import making, sources
from raygan.data.config import FINAL, RUNNING, DatasetConfig
from raygan.data.decode import UnusableError
from raygan.data.images import ImageSet
from raygan.data.making import Job, Made, make
from raygan.data.parallel import in_turn
from raygan.data.pieces import Piece
from raygan.data.shards import open_shard
from raygan.data.sources import Source
from raygan.errors import DataError

MANIFEST = "manifest.json"
SHARD_BYTES = 64 * 2**20
MAX_SHARDS = 2**20
_FORMAT = 2
_NAMED = 3
"""Unusable images that an error names."""
_LOOKED_AT = 1000
"""Images that are tried to find out the shape of those without a `size`."""

Map = Callable[
    [Callable[[tuple[int, Piece]], Made], list[tuple[int, Piece]]], Generator[Made, None, None]
]
"""Like ``map``, in any order: :mod:`raygan.data.parallel` has some."""
Progress = Callable[[int, int, tuple[int, int, int]], None]
"""Is told the images done, those to do, and their shape."""


def prepare(
    config: DatasetConfig,
    cache: Path,
    *,
    map: Map = in_turn,
    progress: Progress | None = None,
) -> Path:
    """The folder under ``cache`` with ``config``'s images, which are decoded if it is not there.

    Raises :class:`~raygan.errors.DataError` naming what is missing, corrupt or too few.
    """
    source = sources.find(config)
    folder = cache / _key(config, source)
    if is_prepared(folder):
        return folder
    shape = config.shape() or _shape_of_first(source, config)
    _sizes(config, source.count)
    per_shard = max(1, SHARD_BYTES // math.prod(shape))
    if source.count > MAX_SHARDS * per_shard:
        raise DataError(f"{config.path}: claims to hold {source.count:,} images; not believed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error})") from error
    _check_room(folder, source.count * math.prod(shape))
    job = Job(config, shape, folder, math.floor(config.max_corrupt * source.count))
    made = _make_all(job, source, list(enumerate(source.cut(per_shard))), map, progress)
    manifest = _manifest(config, source, shape, made, folder)
    try:
        making.write_aside(folder / MANIFEST, json.dumps(manifest, indent=1))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error})") from error
    for shard in made:
        (folder / making.note_name(shard.index)).unlink(missing_ok=True)
    return folder


def folder_name(config: DatasetConfig) -> str:
    """The name of the folder that holds ``config``'s images, wherever they are prepared."""
    return _key(config, sources.find(config))


def is_prepared(folder: Path) -> bool:
    """Whether a preparation into ``folder`` has come to its end."""
    return (folder / MANIFEST).exists()


def load(folder: Path) -> ImageSet:
    """Memory-map a prepared set; raises :class:`~raygan.errors.DataError` if it is not whole."""
    manifest = read_manifest(folder)
    shape = manifest["shape"]
    shards = [
        open_shard(folder / shard["file"], shard["count"], tuple(shape[1:]))
        for shard in manifest["shards"]
    ]
    running, final = (torch.tensor(manifest[part], dtype=torch.int64) for part in _HELD)
    return ImageSet.of(shards, running, final, manifest["digest"], manifest["baseline"])


_HELD = ("running", "final")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a prepared set says of itself, checked; raises DataError if it is not whole."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != _FORMAT:
            raise ValueError(f"format {manifest['format']} is not {_FORMAT}, this version's")
        shape, shards = manifest["shape"], manifest["shards"]
        counts = [shard["count"] for shard in shards]
        if len(shape) != 4 or not all(type(n) is int and n > 0 for n in [*shape, *counts]):
            raise ValueError(f"its shape is {shape}")
        if sum(counts) != shape[0]:
            raise ValueError(f"its shards hold {sum(counts)} images, its shape says {shape[0]}")
        names = [shard["file"] for shard in shards]
        if any(Path(name).name != name or name.startswith(".") for name in names):
            raise ValueError(f"its shards are {names[:5]}")
        held = [index for part in _HELD for index in manifest[part]]
        if len(set(held)) != len(held) or not all(
            type(index) is int and 0 <= index < shape[0] for index in held
        ):
            raise ValueError("its held-out images are not distinct images of the set")
        if not (manifest["running"] and manifest["final"] and len(held) < shape[0]):
            raise ValueError("a split of it is empty")
        if not isinstance(manifest["digest"], str) or not math.isfinite(manifest["baseline"]):
            raise ValueError("digest or baseline is missing")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{folder}: not a whole prepared data set ({MANIFEST}: {error}); "
            "delete it to prepare it again"
        ) from error
    return manifest


def _make_all(
    job: Job,
    source: Source,
    numbered: list[tuple[int, Piece]],
    map_: Map,
    progress: Progress | None,
) -> list[Made]:
    """All shards in order; raises DataError once too many images are unusable."""
    made: list[Made] = []
    unusable: list[dict[str, str]] = []
    done = 0
    with closing(map_(partial(make, job), numbered)) as results:
        for shard in results:
            made.append(shard)
            unusable += shard.unusable
            done += shard.seen
            if len(unusable) > job.limit:
                named = "; ".join(f"{u['where']}: {u['reason']}" for u in unusable[:_NAMED])
                more = "" if len(unusable) <= _NAMED else " …"
                raise DataError(
                    f"{job.config.path}: of {source.count:,} images {len(unusable)} or more "
                    f"cannot be used, and `dataset.max_corrupt` (={job.config.max_corrupt:g}) "
                    f"allows {job.limit}: {named}{more}"
                )
            if progress is not None:
                progress(done, source.count, job.shape)
    return sorted(made, key=lambda shard: shard.index)


def _manifest(
    config: DatasetConfig,
    source: Source,
    shape: tuple[int, int, int],
    made: list[Made],
    folder: Path,
) -> dict[str, Any]:
    count = sum(shard.count for shard in made)
    running, final = _held_out(config, count)
    shards = [shard for shard in made if shard.count]
    tensors = [open_shard(folder / shard.file, shard.count, shape) for shard in shards]
    total = sum((shard.total for shard in shards), np.zeros(shape, np.int64))
    digest = hashlib.sha256()
    for part in (shape, [shard.pixels for shard in shards], running.tolist(), final.tolist()):
        digest.update(json.dumps(part).encode())
    libraries = ("numpy", "pillow", "pyarrow", "torch")
    return {
        "format": _FORMAT,
        "config": asdict(config),
        "source": {
            "layout": source.layout,
            "split": source.split,
            "digest": source.digest,
            "images": source.count,
        },
        "shape": [count, *shape],
        "digest": digest.hexdigest(),
        "baseline": _baseline(tensors, total, running, final),
        "mean": (total.sum((0, 1)) / (255 * count * shape[0] * shape[1])).tolist(),
        "split_seed": config.split_seed,
        "corrupt": [image for shard in made for image in shard.unusable],
        "versions": {"raygan": __version__, **{name: version(name) for name in libraries}},
        "shards": [
            {"file": shard.file, "count": shard.count, "sha256": shard.sha256} for shard in shards
        ],
        "running": running.tolist(),
        "final": final.tolist(),
    }


def _sizes(config: DatasetConfig, count: int) -> tuple[int, int]:
    """Images of the running and the final test among ``count``."""
    running = config.running if config.running is not None else min(RUNNING, count // 8)
    final = config.final if config.final is not None else min(FINAL, count // 8)
    train = count - running - final
    if min(running, final, train) < 1:
        raise DataError(
            f"{count} images are too few for `dataset.running` (={running}) and "
            f"`dataset.final` (={final}): {train} would be left to train on"
        )
    return running, final


def _held_out(
    config: DatasetConfig, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Disjoint indices of the running and the final test, drawn by ``split_seed``."""
    running, final = _sizes(config, count)
    order: npt.NDArray[np.int64] = np.random.default_rng(config.split_seed).permutation(count)
    return order[:running], order[running : running + final]


def _baseline(
    shards: list[torch.Tensor],
    total: npt.NDArray[np.int64],
    running: npt.NDArray[np.int64],
    final: npt.NDArray[np.int64],
) -> float:
    """Mean squared error per pixel in [0, 1] of the mean training image as an answer to each image
    of the running test; the sums are of whole numbers, so that their order does not matter."""
    ends = np.cumsum([len(shard) for shard in shards])

    def image(index: int) -> npt.NDArray[np.int64]:
        shard = int(np.searchsorted(ends, index, side="right"))
        pixels = shards[shard][index - int(ends[shard])]  # from the shard's end
        return pixels.numpy().astype(np.int64)

    train = total - sum((image(i) for part in (running, final) for i in part), 0 * total)
    mean = train / (int(ends[-1]) - len(running) - len(final))
    return float(np.mean([np.square((image(i) - mean) / 255).mean() for i in running]))


def _shape_of_first(source: Source, config: DatasetConfig) -> tuple[int, int, int]:
    first: UnusableError | None = None
    for piece in _some(source.cut(32), _LOOKED_AT // 32):
        for image in sources.images_of(piece, config):
            if not isinstance(image, UnusableError):
                height, width, channels = image.shape
                return height, width, channels
            first = first or image
    raise DataError(f"{config.path}: none of the first images can be used: {first}")


def _some(pieces: Iterable[Piece], count: int) -> Iterator[Piece]:
    for piece, _ in zip(pieces, range(count), strict=False):
        yield piece


def _check_room(folder: Path, size: int) -> None:
    """Better now than after hours."""
    there = sum(file.stat().st_size for file in folder.glob("*.arrow"))
    free = shutil.disk_usage(folder).free
    if size - there > free:
        raise DataError(
            f"{folder}: the prepared images take {size / 1e9:.2f} GB, and the disk has "
            f"{free / 1e9:.2f} GB left; make room or choose a smaller `dataset.size`"
        )


def _key(config: DatasetConfig, source: Source) -> str:
    """Changes whenever the prepared files would: the source's files, the geometry, the split."""
    described = {
        "format": _FORMAT,
        "source": [source.layout, source.split, source.digest],
        "geometry": [config.shape(), config.side_of_crop(), config.size, SHARD_BYTES],
        "split": [config.running, config.final, config.split_seed],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:16]}"
