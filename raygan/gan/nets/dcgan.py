"""DCGAN generator and discriminator for every norm (arXiv 1704.03971, section 5.1)."""

from __future__ import annotations

from torch import nn

from raygan.gan.config import Norm, TrainConfig
from raygan.gan.nets import blocks
from raygan.gan.nets.layers import subtract_shifts
from raygan.gan.nets.levels import Shape, plan_levels

KERNEL, STRIDE = (4, 4), 2


def _norm_and_activation(norm: Norm, channels: int) -> list[nn.Module]:
    return [*blocks.normalisation(norm, channels), blocks.rectifier(norm, channels)]


class Discriminator(blocks.Critic):
    """Images [N, C, H, W] in [0, 1] → logits [N]; positive means "real"."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = config.norm
        layers: list[nn.Module] = []
        inputs, outputs = channels, config.features
        levels = plan_levels(height, width, config.levels)
        for depth, level in enumerate(levels):
            layers.append(
                blocks.convolution(
                    norm, inputs, outputs, KERNEL, stride=STRIDE, padding=level.padding
                )
            )
            if depth > 0:
                layers += blocks.normalisation(norm, outputs)
            layers.append(blocks.rectifier(norm, outputs))
            inputs, outputs = outputs, outputs * 2
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = blocks.linear(norm, units, 1, affine=True)


class Generator(blocks.Painter):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]; the mirror of the discriminator."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = blocks.of_generator(config.norm)
        levels = plan_levels(height, width, config.levels)
        inputs = config.features * 2 ** (len(levels) - 1)
        self.map_shape = (inputs, *levels[-1].size)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        # the authors' code starts this layer at 1/100 of the usual size
        self.linear = blocks.linear(norm, config.code_size, units, gain=0.01)
        layers = _norm_and_activation(norm, inputs)
        for level in reversed(levels):
            last = level is levels[0]
            outputs = channels if last else inputs // 2
            layers.append(
                blocks.transposed_convolution(
                    norm, inputs, outputs, KERNEL, stride=STRIDE, padding=level.padding, affine=last
                )
            )
            if not last:
                layers += _norm_and_activation(norm, outputs)
            inputs = outputs
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)
