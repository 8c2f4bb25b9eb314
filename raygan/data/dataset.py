"""The configuration of a data set: source, geometry, split. All its defaults are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from raygan.addresses import check_address
from raygan.data.sources.source import DataSource
from raygan.data.sources.splits import ALL_SPLITS
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError
from raygan.recipe import Scalar, parameters

RUNNING, FINAL = 200, 2000
"""Default sizes of the held-out sets (arXiv 1704.03971, section 5.2)."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A source of images, their geometry and their split."""

    name: str = "digits"
    """Source of the images, which are turned as their EXIF orientation says. ``cifar10``,
    ``celeba`` and ``lsun`` may also be Parquet tables."""
    path: str | None = None
    """Folder, file or (of Parquet files) glob; a local path or an address such as
    ``s3://bucket/images``, which must not hold credentials; not used by ``digits``."""
    split: str | list[str] | None = None
    """Published split, or list of splits, to use, such as ``train`` or ``[train, validation]``;
    ``all``: all of them. Names of Parquet files (``train-00000-of-00002.parquet``) and of folders
    tell the splits. By default ``train``, if each file belongs to a split, else all; of
    ``celeba`` all, as its folder and its zip hold all."""
    crop: int | None = None
    """Side of the centre crop before resizing, in pixels; by default 160 of ``celeba``, else the
    shorter side if ``size`` is given, else none."""
    size: int | None = None
    """Side of the images that are trained on, in pixels; by default the side of the crop
    (``digits``: 32)."""
    running: int | None = None
    """Held-out images of the running reconstruction test; by default 200, at most 1/8 of all."""
    final: int | None = None
    """Held-out images of the final reconstruction test; by default 2,000, at most 1/8 of all."""
    split_seed: int = 0
    """Random seed that selects the held-out images."""
    max_corrupt: float = 0.001
    """Largest share of the images that may be skipped because they cannot be used."""
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """Those of the source ``name``, such as ``pool`` of ``cifar10``; the others are defaults."""

    @classmethod
    def of(cls, **given: Any) -> DatasetConfig:
        """From the YAML's section, in which the parameters of all sources stand among the keys.

        One that the source does not have is ignored if it is None or a default; else, as for any
        wrong value, :class:`~raygan.errors.ConfigError` is raised.
        """
        known, name = SOURCES.parameters(), given.get("name", cls.name)
        own = parameters(SOURCES[name])
        values = {key: given.pop(key) for key in known.keys() & given.keys()}
        values = {
            key: value
            for key, value in values.items()
            if value is not None
            and (key in own or all(value != other.default for other in known[key].values()))
        }
        return cls(**given, parameters=values)

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, the parameters of the source among them, as :meth:`of` takes
        them."""
        values = asdict(self)
        own = values.pop("parameters")
        return {**values, **own}

    @property
    def source(self) -> DataSource:
        """The data source ``name``."""
        return SOURCES.make(self.name, self.parameters)

    def __post_init__(self) -> None:
        own = parameters(SOURCES[self.name])
        for name in self.parameters.keys() - own.keys():
            others = " or ".join(SOURCES.heed(name)) or "no source"
            raise ConfigError(
                f"`dataset.{name}` applies to `name: {others}` only, not to {self.name}"
            )
        source = self.source
        values = {name: getattr(source, name) for name in own}
        object.__setattr__(self, "parameters", values)  # frozen
        if source.needs_path and not self.path:
            raise ConfigError(
                f"`dataset.path` is missing: `name: {self.name}` reads images from a path; "
                "give one in the YAML or by `--set dataset.path=…`"
            )
        if self.path is not None:
            if "\0" in self.path:
                raise ConfigError("`dataset.path` holds a NUL character")
            check_address(self.path, "dataset.path")
        source.check(self)
        self._check_split(source)
        self._check_numbers()

    def _check_split(self, source: DataSource) -> None:
        if self.split is None:
            return
        if not source.has_splits:
            raise ConfigError(
                f"`dataset.split` applies to images from a path; {self.name} has no splits: "
                "remove it"
            )
        names = [self.split] if isinstance(self.split, str) else self.split
        if not names or not all(names):
            raise ConfigError(
                f"`dataset.split` (={self.split!r}) must name a split, such as train, or a list"
            )
        if len(names) > 1 and ALL_SPLITS in names:
            raise ConfigError(
                f"`dataset.split` (={self.split!r}) must be `{ALL_SPLITS}` alone or name splits"
            )

    def splits(self) -> tuple[str, ...]:
        """The splits to use; empty if the files decide."""
        if self.split is None:
            return self.source.default_splits()
        return (self.split,) if isinstance(self.split, str) else tuple(self.split)

    def _check_numbers(self) -> None:
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
        if not 0 <= self.max_corrupt <= 1:
            raise ConfigError(
                f"`dataset.max_corrupt` (={self.max_corrupt}) must be between 0 and 1"
            )

    def held_out(self, count: int | None) -> tuple[int, int]:
        """How many of ``count`` images the running and the final test hold out; at most, if the
        count is not known (None)."""
        most = FINAL if count is None else count // 8
        running = min(RUNNING, most) if self.running is None else self.running
        return running, min(FINAL, most) if self.final is None else self.final

    def sides(self) -> tuple[int | None, int | None]:
        """Sides of the centre crop and of the images, with the source's defaults; None: no crop,
        and the side of the crop."""
        return self.source.sides(self.crop, self.size)

    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images, or None if that depends on the images."""
        crop, size = self.sides()
        side = size or crop
        return None if side is None else (side, side, self.source.channels)
