"""DCGAN generator and discriminator for every norm (arXiv 1704.03971, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from raygan.gan.nets import blocks
from raygan.gan.nets.architecture import Architecture
from raygan.gan.nets.layers import subtract_shifts
from raygan.gan.nets.levels import Shape, plan_levels
from raygan.gan.nets.norms.norm import Norm

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig

KERNEL, STRIDE = (4, 4), 2


class DCGAN(Architecture):
    """Strided 4×4 convolutions, one per level; channels double per level (Radford et al. 2016)."""

    name = "dcgan"

    def generator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """The mirror of the discriminator."""
        return Generator(config, norm, shape)

    def discriminator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """Convolutions down to a map below 8×8, then a linear layer."""
        return Discriminator(config, norm, shape)


def _norm_and_activation(norm: Norm, channels: int) -> list[nn.Module]:
    return [*norm.normalisation(channels), norm.activation(channels)]


class Discriminator(blocks.Critic):
    """Images [N, C, H, W] in [0, 1] → logits [N]; positive means "real"."""

    def __init__(self, config: TrainConfig, norm: Norm, shape: Shape):
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        inputs, outputs = channels, config.features_d or config.features
        levels = plan_levels(height, width, config.levels)
        for depth, level in enumerate(levels):
            layers.append(
                norm.convolution(inputs, outputs, KERNEL, stride=STRIDE, padding=level.padding)
            )
            if depth > 0:
                layers += norm.normalisation(outputs)
            layers.append(norm.activation(outputs))
            inputs, outputs = outputs, outputs * 2
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = norm.linear(units, 1, affine=True)


class Generator(blocks.Painter):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]; the mirror of the discriminator."""

    def __init__(self, config: TrainConfig, norm: Norm, shape: Shape):
        super().__init__()
        channels, height, width = shape
        levels = plan_levels(height, width, config.levels)
        inputs = config.features * 2 ** (len(levels) - 1)
        self.map_shape = (inputs, *levels[-1].size)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        # the authors' code starts this layer at 1/100 of the usual size
        self.linear = norm.linear(config.code_size, units, gain=0.01)
        layers = _norm_and_activation(norm, inputs)
        for level in reversed(levels):
            last = level is levels[0]
            outputs = channels if last else inputs // 2
            layers.append(
                norm.transposed_convolution(
                    inputs, outputs, KERNEL, stride=STRIDE, padding=level.padding, last=last
                )
            )
            if not last:
                layers += _norm_and_activation(norm, outputs)
            inputs = outputs
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)
