"""Weight norm, strict and affine."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from raygan.gan.nets.blocks import ChannelAffine, NormalizedAddition
from raygan.gan.nets.layers import WeightNormConv2d, WeightNormConvTranspose2d, WeightNormLinear
from raygan.gan.nets.norms.norm import Norm, Pair
from raygan.gan.nets.rectifiers import TPReLU


class WeightNorm(Norm):
    """Strict weight norm: no scale, no bias; TPReLU (arXiv 1704.03971, sections 3 and 4)."""

    name = "wn"

    affine: ClassVar[bool] = False
    """Whether all layers have scale and bias, and not only the last ones."""

    def activation(self, channels: int) -> nn.Module:
        """TPReLU."""
        return TPReLU(channels)

    def convolution(
        self, inputs: int, outputs: int, kernel: Pair, *, stride: int = 1, padding: Pair = (0, 0)
    ) -> nn.Module:
        """A weight-normalised convolution."""
        return WeightNormConv2d(
            inputs, outputs, kernel, stride=stride, padding=padding, affine=self.affine
        )

    def transposed_convolution(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        *,
        stride: int,
        padding: Pair,
        last: bool = False,
    ) -> nn.Module:
        """A weight-normalised transposed convolution; the last one is affine."""
        affine = self.affine or last
        return WeightNormConvTranspose2d(
            inputs, outputs, kernel, stride=stride, padding=padding, affine=affine
        )

    def linear(
        self, inputs: int, outputs: int, *, affine: bool = False, gain: float = 1.0
    ) -> nn.Module:
        """A weight-normalised linear layer."""
        return WeightNormLinear(inputs, outputs, affine=affine or self.affine, gain=gain)

    def addition(self, channels: int) -> nn.Module | None:
        """The weight-normalised addition (arXiv 1704.03971, section 5.1)."""
        return NormalizedAddition(channels)

    def image_scale(self, channels: int) -> list[nn.Module]:
        """Scale and bias, which strict layers do not have."""
        return [] if self.affine else [ChannelAffine(channels)]
