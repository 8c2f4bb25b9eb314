"""Decode a source once into a file that all trials memory-map."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raygan.data import sources
from raygan.data.config import FINAL, RUNNING, DatasetConfig
from raygan.data.images import ImageSet, mean_image_loss
from raygan.errors import DataError

_MANIFEST, _PIXELS = "manifest.json", "images.npy"
_FORMAT = 1


def prepare(config: DatasetConfig, cache: Path) -> Path:
    """Decode ``config``'s images into a folder under ``cache``, or find them there.

    The folder is written aside and renamed: another process sees it whole or not at all.
    Raises :class:`~raygan.errors.DataError` naming what is missing, corrupt or too few.
    """
    folder = cache / _key(config)
    if (folder / _MANIFEST).exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=cache, prefix=f".{folder.name}-"))
    aside.chmod(0o755)  # others share the storage
    try:
        manifest = _write(config, aside)
        (aside / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        try:
            aside.rename(folder)
        except OSError:
            if not (folder / _MANIFEST).exists():  # not merely prepared by another meanwhile
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def load(folder: Path) -> ImageSet:
    """Memory-map a prepared set; raises :class:`~raygan.errors.DataError` if it is not whole."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        # private and writable pages: torch wants them, and nothing written reaches the file
        pixels = np.load(folder / _PIXELS, mmap_mode="c", allow_pickle=False)
        train, running, final = _split(DatasetConfig(**manifest["config"]), len(pixels))
        digest, baseline = str(manifest["digest"]), float(manifest["baseline"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: not a whole prepared data set ({error}); delete it to prepare it again"
        ) from error
    if pixels.dtype != np.uint8 or list(pixels.shape) != manifest["shape"]:
        raise DataError(f"{folder}: {_PIXELS} is not what its manifest says; delete the folder")
    return ImageSet(torch.from_numpy(pixels), train, running, final, digest, baseline)


def _write(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    count = 0
    shape: tuple[int, ...] | None = None
    # the count is known at the end: raw pixels first, then the header in front of them
    raw = folder / "raw"
    with raw.open("wb") as file:
        for image in sources.read(config):
            shape = shape or image.shape
            if image.shape != shape:
                raise DataError(
                    f"image {count} of {config.path} has {image.shape[1]}×{image.shape[0]} pixels, "
                    f"those before it {shape[1]}×{shape[0]}; set `dataset.size`"
                )
            data = np.ascontiguousarray(image).tobytes()
            digest.update(data)
            file.write(data)
            count += 1
    if shape is None:
        raise DataError(f"{config.path}: holds no images")
    full = (count, *shape)
    train, running, _ = _split(config, count)
    pixels = np.lib.format.open_memmap(folder / _PIXELS, mode="w+", dtype=np.uint8, shape=full)
    pixels[...] = np.memmap(raw, dtype=np.uint8, mode="r", shape=full)
    pixels.flush()
    raw.unlink()
    digest.update(repr(full).encode())
    return {
        "format": _FORMAT,
        "config": asdict(config),
        "shape": list(full),
        "digest": digest.hexdigest(),
        "baseline": mean_image_loss(torch.from_numpy(pixels), train, running),
    }


def _split(config: DatasetConfig, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Disjoint train, running and final indices, drawn by ``split_seed``."""
    running = config.running if config.running is not None else min(RUNNING, count // 8)
    final = config.final if config.final is not None else min(FINAL, count // 8)
    train = count - running - final
    if min(running, final, train) < 1:
        raise DataError(
            f"{count} images are too few for `dataset.running` (={running}) and "
            f"`dataset.final` (={final}): {train} would be left to train on"
        )
    order: npt.NDArray[np.int64] = np.random.default_rng(config.split_seed).permutation(count)
    held = np.split(order, [running, running + final])
    return (
        torch.from_numpy(np.sort(held[2])),
        torch.from_numpy(held[0].copy()),
        torch.from_numpy(held[1].copy()),
    )


def _key(config: DatasetConfig) -> str:
    """Changes whenever the prepared files would: the configuration and the source's files."""
    described = {"format": _FORMAT, **asdict(config)}
    if config.path is not None:
        try:
            path = Path(config.path).expanduser().resolve()
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            described["files"] = [
                (str(file), (stat := file.stat()).st_size, stat.st_mtime_ns)
                for file in files
                if file.is_file()
            ]
        except (OSError, RuntimeError) as error:
            raise DataError(f"{config.path}: cannot be read ({error})") from error
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:16]}"
