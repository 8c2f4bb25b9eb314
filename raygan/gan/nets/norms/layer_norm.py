"""Layer norm."""

from __future__ import annotations

from torch import nn

from raygan.gan.nets.norms.norm import Norm


class LayerNorm(Norm):
    """Layer norm over channels, rows and columns (Ba et al. 2016); PReLU."""

    name = "ln"

    def normalisation(self, channels: int) -> list[nn.Module]:
        """Layer norm with scale and bias per channel."""
        return [nn.GroupNorm(1, channels)]
