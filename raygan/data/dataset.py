"""The configuration of a data set: source, geometry, split. All its defaults are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from raygan.addresses import check_address, is_address
from raygan.errors import ConfigError
from raygan.shown import shown

SourceName = Literal["digits", "cifar10", "celeba", "lsun", "folder", "parquet"]

RUNNING, FINAL = 200, 2000
"""Default sizes of the held-out sets (arXiv 1704.03971, section 5.2)."""
CELEBA_CROP = 160
"""Side of the centre crop of CelebA's 178×218 images (arXiv 1704.03971, section 5.1)."""
ALL_SPLITS = "all"
"""Value of ``split``: use the files of all splits, and those without a split."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A source of images, their geometry and their split."""

    name: SourceName = "digits"
    """``digits``: scikit-learn's (1,797 images, embedded); ``cifar10``: the folder
    cifar-10-batches-py; ``celeba``: img_align_celeba, folder or zip; ``lsun``: an LMDB folder;
    ``folder``: PNG, JPEG or WEBP files (.png, .jpg, .jpeg, .jpe, .jfif, .webp …), nested, or a zip
    of them; ``parquet``: tables in the Hugging Face layout, which ``cifar10``, ``celeba`` and
    ``lsun`` may be, too. Images are turned as their EXIF orientation says."""
    path: str | None = None
    """Folder, file or (of Parquet files) glob; a local path or an address such as
    ``s3://bucket/images``, which must not hold credentials; not used by ``digits``."""
    split: str | list[str] | None = None
    """Published split, or list of splits, to use, such as ``train`` or ``[train, validation]``;
    ``all``: all of them. Names of Parquet files (``train-00000-of-00002.parquet``) and of folders
    tell the splits. By default ``train``, if each file belongs to a split, else all; of
    ``celeba`` all, as its folder and its zip hold all."""
    download: bool = False
    """Only ``cifar10``: download it to ``path`` with torchvision if it is missing."""
    pool: bool = False
    """Only ``cifar10``: short for ``split: [train, test]``: pool the official training and test
    images, as the paper's code does, before the held-out sets are drawn."""
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
        if self.path is not None:
            if "\0" in self.path:
                raise ConfigError("`dataset.path` holds a NUL character")
            check_address(self.path, "dataset.path")
        for name in ("download", "pool"):
            if getattr(self, name) and self.name != "cifar10":
                raise ConfigError(
                    f"`dataset.{name}` applies to `name: cifar10` only, not to {self.name}"
                )
        if self.download and self.path and is_address(self.path):
            raise ConfigError(
                f"`dataset.download` needs a local `dataset.path`, not {shown(self.path)}"
            )
        self._check_split()
        self._check_numbers()

    def _check_split(self) -> None:
        if self.split is None:
            return
        if self.name == "digits":
            raise ConfigError(
                "`dataset.split` applies to images from a path; digits has no splits: remove it"
            )
        if self.pool:
            raise ConfigError(
                "`dataset.pool` is short for `split: [train, test]`: remove one of the two"
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
            cifar10 = ("train", "test") if self.pool else ("train",)
            return {"cifar10": cifar10, "celeba": (ALL_SPLITS,)}.get(self.name, ())
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

    def side_of_crop(self) -> int | None:
        """``crop`` with its default. None: the shorter side if ``size`` is set, else no crop."""
        return CELEBA_CROP if self.name == "celeba" and self.crop is None else self.crop

    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images; None if that depends on the images."""
        if self.name == "digits":
            return (self.size or 32, self.size or 32, 1)
        side = self.size or self.side_of_crop()
        return None if side is None else (side, side, 3)
