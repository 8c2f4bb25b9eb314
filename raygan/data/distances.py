"""How far images are from one another."""

from __future__ import annotations

import math

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


def effective_number(between: Tensor, width: float) -> float:
    """How many different images n images are worth, 1…n, from their distances ``between`` [n, n].

    The Vendi score (Friedman & Dieng 2023) exp(−Σ λ ln λ) over the eigenvalues λ of
    exp(−d² / 2·width²) / n: images much nearer than ``width`` (above 0) are one, images much
    farther apart are different. Not a number if a distance is not.
    """
    similar = between.double().cpu().div(width).square().div(-2).exp() / len(between)
    if not similar.isfinite().all():
        return math.nan
    shares = torch.linalg.eigvalsh(similar).clamp_min(0)
    return math.exp(-float(torch.xlogy(shares, shares).sum()))


def mean_distance(between: Tensor) -> float:
    """Mean over all pairs of the distances ``between`` [n, n] that :func:`distances` returned."""
    count = len(between)
    return float(between.sum()) / (count * (count - 1))
