"""Which images a sweep trains on and how they are cut; the only place of these defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from raygan.errors import ConfigError

SourceName = Literal["digits", "parquet", "folder"]

RUNNING, FINAL = 200, 2000
"""Default sizes of the held-out sets (arXiv 1704.03971, section 5.2)."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A source of images, their geometry and their split."""

    name: SourceName = "digits"
    """``digits``: scikit-learn's (1,797 images, embedded); ``parquet``: tables in the Hugging
    Face layout; ``folder``: png, jpeg or webp files, nested."""
    path: str | None = None
    """Folder or file of ``parquet`` and ``folder``; not used by ``digits``."""
    crop: int | None = None
    """Side of the centre crop before resizing, in pixels; by default the shorter side if
    ``size`` is given, else none."""
    size: int | None = None
    """Side of the images that are trained on, in pixels; by default that of the source
    (``digits``: 32)."""
    running: int | None = None
    """Images of the running reconstruction test; by default 200, an eighth of all at most."""
    final: int | None = None
    """Images of the final reconstruction test; by default 2,000, an eighth of all at most."""
    split_seed: int = 0
    """Draws which images are held out."""

    def __post_init__(self) -> None:
        if self.name not in get_args(SourceName):
            raise ConfigError(
                f"`dataset.name` (={self.name!r}) must be one of {', '.join(get_args(SourceName))}"
            )
        if self.name != "digits" and not self.path:
            raise ConfigError(
                f"`dataset.path` is missing: `name: {self.name}` reads images from a path; "
                "give one in the YAML or by `--set dataset.path=…`"
            )
        if self.path is not None and "\0" in self.path:
            raise ConfigError("`dataset.path` holds a NUL character")
        for name in ("crop", "size", "running", "final"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value < 1):
                raise ConfigError(f"`dataset.{name}` (={value!r}) must be at least 1")
        for name in ("crop", "size"):
            value = getattr(self, name)
            if value is not None and (value % 2 or value > 4096):
                raise ConfigError(f"`dataset.{name}` (={value}) must be even and at most 4096")
        if self.split_seed < 0:
            raise ConfigError(f"`dataset.split_seed` (={self.split_seed}) must be at least 0")
