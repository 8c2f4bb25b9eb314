"""Sample quality: how far G's samples are from real images, and how much of them they reach.

Kinds (`train.quality`):

- ``features``: feature energy distance, recall and coverage (:mod:`raygan.gan.judge.energy`) in the
  features of EfficientNet-Lite0 at 96 px (:mod:`raygan.gan.judge.efficientnet`); needs
  ``raygan[quality]``;
- ``wasserstein``: sliced Wasserstein distance (:mod:`raygan.gan.judge.wasserstein`); needs nothing.

Values depend on the number of images: compare only those of the same number. None of them is FID.
Importing this module does not import PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raygan.gan.judge import weights
from raygan.gan.judge.weights import is_available

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from raygan.gan.workers import Workers

__all__ = ["MEASURES", "Reference", "check", "is_available", "measure", "reference"]

MEASURES: dict[str, tuple[str, ...]] = {
    "features": ("feature_energy_distance", "recall", "coverage"),
    "wasserstein": ("sliced_wasserstein",),
}
"""The names of the values of each kind."""


@dataclass(frozen=True)
class Reference:
    """What is kept of the real images; made once by :func:`reference`."""

    kind: str
    table: Tensor
    """Features [m, 1280], or the images in [0, 1] themselves."""


def check(kind: str) -> None:
    """Raise :class:`~raygan.errors.ConfigError` if what ``kind`` needs is not installed here."""
    if kind == "features":
        weights.path()


def reference(
    kind: str, real: Tensor, device: torch.device, workers: Workers | None = None
) -> Reference:
    """The real images, uint8 [m, C, H, W] and the same on all workers, as :func:`measure` needs
    them; raises :class:`~raygan.errors.ConfigError` as :func:`check`, and if the weights are other
    ones."""
    images = real.to(device).float().div_(255)
    return Reference(kind, _features(images, workers) if kind == "features" else images)


def measure(
    kind: str, samples: Tensor, real: Tensor | Reference, workers: Workers | None = None
) -> dict[str, float]:
    """The values of ``kind``, by name, the same on all workers.

    samples: float [n, C, H, W] in [0, 1], the same on all workers; they are rounded to 8 bits, and
    each worker computes its share. real: uint8 [m, C, H, W], or what :func:`reference` made of it.
    Values are NaN if a sample is not finite, or if one of the sets has fewer than two images.
    Raises :class:`~raygan.errors.ConfigError` as :func:`reference`.
    """
    from raygan.gan.judge.energy import compare
    from raygan.gan.judge.wasserstein import sliced_wasserstein

    if not isinstance(real, Reference):
        real = reference(kind, real, samples.device, workers)
    few = min(len(samples), len(real.table)) < 2
    if few or not bool(samples.isfinite().all()):
        return dict.fromkeys(MEASURES[kind], math.nan)
    samples = samples.float().clamp(0, 1).mul(255).round_().div_(255)
    if kind == "features":
        return compare(_features(samples, workers), real.table)
    return {"sliced_wasserstein": sliced_wasserstein(samples, real.table, workers)}


def _features(images: Tensor, workers: Workers | None) -> Tensor:
    """Features of all images; each worker computes those of its share."""
    from raygan.gan.judge.efficientnet import FEATURES, features
    from raygan.gan.workers import Workers

    workers = workers or Workers()
    share = workers.share(len(images))
    table = images.new_zeros(len(images), FEATURES)
    table[share] = features(images[share])
    workers.sum_(table)
    return table
