"""How far images are from one another."""

from __future__ import annotations

import torch
from torch import Tensor


def distances(images: Tensor) -> Tensor:
    """Euclidean distances between ``images`` (float [n, …]): [n, n], 0 from each to itself.

    ‖a − b‖² = ‖a‖² + ‖b‖² − 2 aᵀb, one matrix product. Less their mean, whose part in it would
    cancel, images are no longer than they are far apart, so that little of the precision is lost.
    """
    flat = images.flatten(1)
    flat = flat - flat.mean(0)
    squared = flat.square().sum(1)
    found = torch.addmm(squared[:, None] + squared, flat, flat.T, alpha=-2).clamp_min_(0).sqrt_()
    return found.fill_diagonal_(0)


def mean_distance(between: Tensor) -> float:
    """Mean over all pairs of the distances ``between`` [n, n] that :func:`distances` returned."""
    count = len(between)
    return float(between.sum()) / (count * (count - 1))
