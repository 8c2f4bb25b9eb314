"""How varied G's samples are, against the training images: a generator that has collapsed makes
few different images, or one.

With x the n samples, y as many training images and d the Euclidean distance between two images:

    diversity  = mean over i ≠ j of d(xᵢ, xⱼ) / mean over i ≠ j of d(yᵢ, yⱼ)
    duplicates = share of the i whose min over j ≠ i of d(xᵢ, xⱼ) is below NEAR · mean d(yᵢ, yⱼ)
"""

from __future__ import annotations

from torch import Tensor

from raygan.data.distances import distances, mean_distance
from raygan.gan.collapse import DIVERSITY, DUPLICATES

NEAR = 0.1
"""Two samples nearer than this share of the data's mean distance are the same image to the eye."""


def variety(samples: Tensor, spread: float) -> dict[str, float]:
    """:data:`DIVERSITY` and :data:`DUPLICATES` of ``samples`` (float [n, C, H, W] in [0, 1]).

    ``spread``: the training images' mean distance (:attr:`raygan.data.ImageSet.spread`); nothing
    is said where it is 0. Diversity is not a number if a sample is not.
    """
    if len(samples) < 2 or not spread > 0:
        return {}
    between = distances(samples)
    diversity = mean_distance(between) / spread
    nearest = between.fill_diagonal_(float("inf")).amin(1)
    return {DIVERSITY: diversity, DUPLICATES: float((nearest < NEAR * spread).float().mean())}
