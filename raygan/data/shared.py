"""Prepared sets in object storage: copied once to each node that trains on them."""

from __future__ import annotations

import os
from pathlib import Path

from raygan.data import cache
from raygan.data.making import digest_of
from raygan.data.manifest import read_manifest
from raygan.errors import ConfigError, DataError

HOME = "RAYGAN_CACHE"
"""Environment variable: folder for the copies on a node; by default ~/.cache/raygan/data."""
CAP = "RAYGAN_CACHE_GB"
"""Environment variable: most gigabytes (10⁹ bytes) of all copies on a node."""


def fetch(address: str) -> Path:
    """A folder on this node with a copy of the set at ``address``; copied if it is not there.

    Raises :class:`~raygan.errors.DataError` if it cannot be copied or is damaged.
    """
    home = Path(os.environ.get(HOME) or "~/.cache/raygan/data").expanduser()
    return cache.localize(address, home, _cap(), check=lambda folder: verify(folder, address))


def _cap() -> int:
    given = os.environ.get(CAP)
    try:
        cap = cache.CAP_BYTES if not given else int(float(given) * 1e9)
    except (ValueError, OverflowError):
        cap = 0
    if cap <= 0:
        raise ConfigError(f"{CAP} (={given!r}) must be a positive number of gigabytes")
    return cap


def verify(folder: Path, name: str | None = None) -> None:
    """Compare the checksums of all shards; raises DataError naming the first that is wrong.

    ``name``: address of the set in messages, if ``folder`` is a copy of it.
    """
    name = name or str(folder)
    for shard in read_manifest(folder)["shards"]:
        try:
            right = digest_of(folder / shard["file"]) == shard["sha256"]
        except OSError as error:
            raise DataError(f"{name}/{shard['file']}: cannot be read ({error})") from error
        if not right:
            raise DataError(
                f"{name}/{shard['file']}: its checksum differs from the manifest's; delete {name} "
                "to prepare it again"
            )
