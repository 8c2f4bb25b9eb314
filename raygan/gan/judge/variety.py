"""Variety: how varied G's samples are compared with the training images.

Variety is the effective number of different images among n samples, divided by that among n
training images (:func:`raygan.data.distances.effective_number`; Friedman & Dieng 2023). It is about
1 if the samples are as varied as the data. It is about k / n if G repeats k images, with noise or
without.
"""

from __future__ import annotations

from torch import Tensor

from raygan.data.distances import distances, effective_number
from raygan.data.images import ImageSet
from raygan.gan.judge.metric import Metric


class Variety(Metric):
    """Effective number of different images among the samples, divided by that among as many
    training images (:attr:`ImageSet.reference`); about 1 for samples as varied as the data.

    None if the training images do not differ. Not a number if a sample is not.
    """

    name = "variety"

    def measure(self, samples: Tensor, images: ImageSet) -> float | None:
        reference = images.reference
        if not reference.width > 0 or len(samples) < reference.count:
            return None
        between = distances(samples[: reference.count])
        return effective_number(between, reference.width) / reference.effective
