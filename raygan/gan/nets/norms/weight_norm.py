"""Weight norm, strict and affine."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from raygan.errors import ConfigError
from raygan.gan.nets.blocks import ChannelAffine, NormalizedAddition
from raygan.gan.nets.kernels import EPSILON
from raygan.gan.nets.layers import WeightNormConv2d, WeightNormConvTranspose2d, WeightNormLinear
from raygan.gan.nets.norms.norm import Norm, Pair
from raygan.gan.nets.rectifiers import TPReLU


class WeightNorm(Norm):
    """Strict weight norm: no scale, no bias; TPReLU (arXiv 1704.03971, sections 3 and 4)."""

    name = "wn"

    affine: ClassVar[bool] = False
    """Whether all layers have scale and bias, and not only the last ones."""
    norm_epsilon: float = EPSILON
    """Added to ‖w‖² of each filter; the authors' code: 1e-6."""

    def check_parameters(self) -> None:
        """ε keeps ‖w‖ away from 0."""
        if not 0 < self.norm_epsilon < 1:
            raise ConfigError(
                f"`norm_epsilon` (={self.norm_epsilon!r}) must be a number above 0 and below 1"
            )

    def activation(self, channels: int) -> nn.Module:
        """TPReLU."""
        return TPReLU(channels)

    def convolution(
        self, inputs: int, outputs: int, kernel: Pair, *, stride: int = 1, padding: Pair = (0, 0)
    ) -> nn.Module:
        """A weight-normalised convolution."""
        return WeightNormConv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            affine=self.affine,
            epsilon=self.norm_epsilon,
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
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            affine=affine,
            epsilon=self.norm_epsilon,
        )

    def linear(
        self, inputs: int, outputs: int, *, affine: bool = False, gain: float = 1.0
    ) -> nn.Module:
        """A weight-normalised linear layer."""
        return WeightNormLinear(
            inputs, outputs, affine=affine or self.affine, gain=gain, epsilon=self.norm_epsilon
        )

    def addition(self, channels: int) -> nn.Module | None:
        """The weight-normalised addition (arXiv 1704.03971, section 5.1)."""
        return NormalizedAddition(channels, self.norm_epsilon)

    def image_scale(self, channels: int) -> list[nn.Module]:
        """Scale and bias, which strict layers do not have."""
        return [] if self.affine else [ChannelAffine(channels)]
