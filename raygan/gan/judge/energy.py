"""Energy distance, recall and coverage of two sets of features.

x: features of G's samples, y: features of real images. All three are computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

RECALL_NEIGHBOURS, COVERAGE_NEIGHBOURS = 3, 5
"""k of recall and of coverage, as their authors have it; less where there are too few images."""


def compare(samples: Tensor, real: Tensor) -> dict[str, float]:
    """The measures of this module, of finite features [n, d] and [m, d], at least two of each."""
    across, within = distances(samples, real), distances(samples, samples)
    real_within = distances(real, real)
    return {
        "feature_energy_distance": energy_distance(across, within, real_within),
        "recall": recall(across, within),
        "coverage": coverage(across, real_within),
    }


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [n, m]; those of equal features are exactly zero."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(a.double(), b.double(), compute_mode=mode)


def energy_distance(across: Tensor, within: Tensor, real_within: Tensor) -> float:
    """2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖ (Székely & Rizzo 2013), as U-statistics: an image is not
    paired with itself. 0 on average, and sometimes below 0, for two sets of one distribution."""
    return float(2 * across.mean() - _mean_of_pairs(within) - _mean_of_pairs(real_within))


def _mean_of_pairs(within: Tensor) -> Tensor:
    n = len(within)
    return within.sum() / (n * (n - 1))


def recall(across: Tensor, within: Tensor) -> float:
    """Share of the real images that lie within the ball of at least one sample; a sample's ball
    reaches to its third-nearest sample (Kynkäänniemi et al. 2019)."""
    reach = _reach(within, RECALL_NEIGHBOURS)
    return float((across <= reach[:, None]).any(0).double().mean())


def coverage(across: Tensor, real_within: Tensor) -> float:
    """Share of the real images whose ball holds at least one sample; a real image's ball reaches to
    its fifth-nearest real image (Naeem et al. 2020)."""
    reach = _reach(real_within, COVERAGE_NEIGHBOURS)
    return float((across <= reach[None, :]).any(0).double().mean())


def _reach(within: Tensor, neighbours: int) -> Tensor:
    """The distance of each to its k-th nearest other; the nearest of all is itself, at 0."""
    return within.kthvalue(min(neighbours, len(within) - 1) + 1, dim=1).values
