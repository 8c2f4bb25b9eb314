"""ResNet generator and discriminator for every norm (arXiv 1704.03971, section 5.1).

Widths, blocks and paddings are those of the authors' network (github.com/stormraiser/
gan-weightnorm-resnet), which is of ``wn`` alone: 21 layers at 160×160 with two blocks per level.
The other norms have the same topology with ordinary layers: a plain addition, and where weights
are not normalised the norm's normalisation after each convolution, but not in G's last block nor
where D reads the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from raygan.errors import ConfigError
from raygan.gan.nets import blocks
from raygan.gan.nets.architecture import Architecture
from raygan.gan.nets.layers import subtract_shifts
from raygan.gan.nets.levels import Level, Shape, plan_levels
from raygan.gan.nets.norms.norm import Norm, Pair
from raygan.gan.nets.rectifiers import PReLU

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig

STRIDED, ORDINARY, POINT = (4, 4), (3, 3), (1, 1)
"""Kernels."""


class ResNet(Architecture):
    """Residual blocks, ``blocks`` per level (arXiv 1704.03971, section 5.1)."""

    name = "resnet"
    blocks: int = 2
    """Residual blocks per level."""

    def check_parameters(self) -> None:
        """At least one block, which halves or doubles the map."""
        if not 1 <= self.blocks <= 64:
            raise ConfigError(f"`blocks` (={self.blocks}) must be a whole number from 1 to 64")

    def generator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """From a linear layer, level by level, to the image."""
        return Generator(config, norm, shape, self.blocks)

    def discriminator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """From the image, level by level, to a linear layer."""
        return Discriminator(config, norm, shape, self.blocks)


def widths(features: int, levels: int) -> list[int]:
    """Channels of each level, from the image inwards: 1, 2, 4, 6, 8, … times ``features``."""
    return [features * max(1, 2 * level) for level in range(levels)]


class Block(nn.Module):
    """after(residue(x) + shortcut(x)), the addition weight-normalised if the layers are."""

    def __init__(
        self,
        norm: Norm,
        channels: int,
        residue: list[nn.Module],
        shortcut: list[nn.Module],
        after: list[nn.Module],
    ):
        super().__init__()
        subtract_shifts(residue)
        self.residue, self.shortcut = nn.Sequential(*residue), nn.Sequential(*shortcut)
        self.addition = norm.addition(channels)
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        residue, shortcut = self.residue(x), self.shortcut(x)
        total = residue + shortcut if self.addition is None else self.addition(residue, shortcut)
        y: Tensor = self.after(total)
        return y


def _same(norm: Norm, channels: int) -> Block:
    """A block that keeps the shape."""
    residue = [
        *_convolution(norm, channels, channels, ORDINARY, padding=(1, 1)),
        norm.activation(channels),
        *_convolution(norm, channels, channels, ORDINARY, padding=(1, 1)),
    ]
    return Block(norm, channels, residue, [], [norm.activation(channels)])


def _down(norm: Norm, inputs: int, outputs: int, level: Level, *, first: bool) -> Block:
    """A block that halves the map; the ``first`` one reads the image."""
    residue = [
        *_convolution(
            norm, inputs, outputs, STRIDED, stride=2, padding=level.padding, normalize=not first
        ),
        norm.activation(outputs),
        *_convolution(norm, outputs, outputs, ORDINARY, padding=(1, 1)),
    ]
    shortcut: list[nn.Module] = [nn.AvgPool2d(2, padding=level.extra)]
    if inputs != outputs:
        shortcut += _convolution(norm, inputs, outputs, POINT, normalize=not first)
    return Block(norm, outputs, residue, shortcut, [norm.activation(outputs)])


def _up(norm: Norm, inputs: int, outputs: int, level: Level, *, last: bool) -> Block:
    """A block that doubles the map; the ``last`` one makes the image."""
    normalize = [] if last else norm.normalisation(outputs)
    residue = [
        *_convolution(norm, inputs, inputs, ORDINARY, padding=(1, 1), normalize=not last),
        norm.activation(inputs),
        norm.transposed_convolution(inputs, outputs, STRIDED, stride=2, padding=level.padding),
        *normalize,
    ]
    shortcut: list[nn.Module] = []
    if inputs != outputs:
        shortcut += _convolution(norm, inputs, outputs, POINT, normalize=not last)
    shortcut.append(nn.Upsample(scale_factor=2))
    rows, columns = level.extra
    if rows or columns:  # cropped by what D pads
        shortcut.append(nn.ZeroPad2d((-columns, -columns, -rows, -rows)))
    after: list[nn.Module] = [norm.activation(outputs)]
    if last:
        after = norm.image_scale(outputs)
    return Block(norm, outputs, residue, shortcut, after)


def _convolution(
    norm: Norm,
    inputs: int,
    outputs: int,
    kernel: Pair,
    *,
    stride: int = 1,
    padding: Pair = (0, 0),
    normalize: bool = True,
) -> list[nn.Module]:
    layer = norm.convolution(inputs, outputs, kernel, stride=stride, padding=padding)
    return [layer, *(norm.normalisation(outputs) if normalize else [])]


class Discriminator(blocks.Critic):
    """Images [N, C, H, W] in [0, 1], which it maps to [−1, 1], → logits [N]."""

    def __init__(self, config: TrainConfig, norm: Norm, shape: Shape, per_level: int):
        super().__init__()
        channels, height, width = shape
        levels = plan_levels(height, width, config.levels)
        layers: list[nn.Module] = []
        inputs, features = channels, config.features_d or config.features
        for level, outputs in zip(levels, widths(features, len(levels)), strict=True):
            layers.append(_down(norm, inputs, outputs, level, first=level is levels[0]))
            layers += [_same(norm, outputs) for _ in range(per_level - 1)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = norm.linear(units, 1, affine=True)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 2 - 1)


class Generator(blocks.Painter):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]."""

    def __init__(self, config: TrainConfig, norm: Norm, shape: Shape, per_level: int):
        super().__init__()
        channels, height, width = shape
        levels = plan_levels(height, width, config.levels)
        inputs, *narrower = reversed([channels, *widths(config.features, len(levels))])
        self.map_shape = (inputs, *levels[-1].size)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = norm.linear(config.code_size, units, affine=True, gain=0.01)
        # the affine layer has translated already
        layers = [*norm.normalisation(inputs), PReLU(inputs)]
        for level, outputs in zip(reversed(levels), narrower, strict=True):
            layers += [_same(norm, inputs) for _ in range(per_level - 1)]
            layers.append(_up(norm, inputs, outputs, level, last=level is levels[0]))
            inputs = outputs
        self.layers = nn.Sequential(*layers)
