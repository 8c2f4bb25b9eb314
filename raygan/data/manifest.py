"""The manifest of a prepared set, and loading the set."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from raygan import storage
from raygan.data import files
from raygan.data.images import ImageSet
from raygan.data.shards import open_shard
from raygan.errors import DataError
from raygan.folder import MANIFEST, is_shard
from raygan.shown import shown

FORMAT = 2
_MOST_SAID = 2**28
"""Most bytes of a manifest."""
_MOST = 2**40
"""Most images of a set, and most pixels or channels of an image."""
_HELD = ("running", "final")
_WHY = ("where", "reason")
_SAID = {
    **{"config": dict, "source": dict, "versions": dict, "mean": list, "corrupt": list},
    **{"shape": list, "shards": list, "running": list, "final": list},
    **{"digest": str, "baseline": float},
}


def is_prepared(folder: str | Path) -> bool:
    """Whether ``folder`` holds a complete prepared set."""
    return files.exists(f"{folder}/{MANIFEST}")


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


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a prepared set, checked; raises DataError if the set is not whole."""
    try:
        manifest: dict[str, Any] = json.loads(storage.read(f"{folder}/{MANIFEST}", _MOST_SAID))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']} is not {FORMAT}, this version's")
        for name, kind in _SAID.items():
            if type(manifest[name]) is not kind:
                raise ValueError(f"its {name} is {type(manifest[name]).__name__}")
        shape, shards = manifest["shape"], manifest["shards"]
        counts = [shard["count"] for shard in shards]
        if len(shape) != 4 or not all(type(n) is int and 0 < n <= _MOST for n in [*shape, *counts]):
            raise ValueError(f"its shape is {shape}")
        if sum(counts) != shape[0]:
            raise ValueError(f"its shards hold {sum(counts)} images, its shape says {shape[0]}")
        names = [shard["file"] for shard in shards]
        if not all(type(name) is str and is_shard(name) for name in names):
            raise ValueError(f"its shards are {names[:5]}")
        held = [index for part in _HELD for index in manifest[part]]
        if not all(type(index) is int and 0 <= index < shape[0] for index in held) or len(
            set(held)
        ) != len(held):
            raise ValueError("its held-out images are not distinct images of the set")
        if not (manifest["running"] and manifest["final"] and len(held) < shape[0]):
            raise ValueError("one of its splits is empty")
        if not math.isfinite(manifest["baseline"]):
            raise ValueError("its baseline is not a number")
        if not all(type(shard["sha256"]) is str for shard in shards):
            raise ValueError("a checksum is missing")
        if not all(type(image[key]) is str for image in manifest["corrupt"] for key in _WHY):
            raise ValueError("a skipped image has no reason")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
            RecursionError, MemoryError) as error:  # fmt: skip
        raise DataError(
            f"{shown(folder)}: not a whole prepared data set ({MANIFEST}: {shown(error, 300)}); "
            "delete it to prepare it again"
        ) from error
    return manifest
