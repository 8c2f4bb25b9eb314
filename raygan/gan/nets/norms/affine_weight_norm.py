"""Weight norm whose layers all have scale and bias."""

from __future__ import annotations

from torch import nn

from raygan.gan.nets.norms.weight_norm import WeightNorm
from raygan.gan.nets.rectifiers import PReLU


class AffineWeightNorm(WeightNorm):
    """Weight norm with scale and bias in every layer; PReLU (arXiv 1704.03971, section 3)."""

    name = "wn-affine"
    affine = True

    def activation(self, channels: int) -> nn.Module:
        """PReLU: the layers translate."""
        return PReLU(channels)
