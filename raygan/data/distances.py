"""Distances between images, and how many different images there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distances(images: Tensor) -> Tensor:
    """Euclidean distances [n, n] between ``images`` (float [n, …]); 0 on the diagonal.

    ‖a − b‖² = ‖a‖² + ‖b‖² − 2 aᵀb, one matrix product. The mean image is subtracted first, which
    changes no distance. It makes ‖a‖ about as large as the distances, so that the difference loses
    little precision.
    """
    flat = images.flatten(1)
    flat = flat - flat.mean(0)
    squared = flat.square().sum(1)
    between = torch.addmm(squared[:, None] + squared, flat, flat.T, alpha=-2).clamp_min_(0).sqrt_()
    return between.fill_diagonal_(0)


def effective_number(between: Tensor, width: float) -> float:
    """The effective number of different images, 1…n, from the distances ``between`` [n, n].

    The Vendi score (Friedman & Dieng 2023): exp(−Σ λ ln λ) over the eigenvalues λ of the matrix
    exp(−d² / 2·width²) / n. Images much closer than ``width`` (above 0) count as one; images much
    farther apart count as different. NaN if a distance is not finite.
    """
    similar = between.double().cpu().div(width).square().div(-2).exp() / len(between)
    if not similar.isfinite().all():
        return math.nan
    shares = torch.linalg.eigvalsh(similar).clamp_min(0)
    return math.exp(-float(torch.xlogy(shares, shares).sum()))


def mean_distance(between: Tensor) -> float:
    """Mean over all pairs of the distances ``between`` [n, n] of :func:`distances`."""
    count = len(between)
    return float(between.sum()) / (count * (count - 1))
