"""ResNet generator and discriminator for every norm (arXiv 1704.03971, section 5.1).

Widths, blocks and paddings are those of the authors' network (github.com/stormraiser/
gan-weightnorm-resnet), which is of ``wn`` alone: 21 layers at 160×160 with two blocks per level.
The other norms have the same topology with ordinary layers: a plain addition, and where weights
are not normalised the normalisation of :mod:`raygan.gan.nets.blocks` after each convolution, but
not in G's last block nor where D reads the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from raygan.gan.config import Norm, TrainConfig
from raygan.gan.nets import blocks
from raygan.gan.nets.blocks import Pair
from raygan.gan.nets.layers import subtract_shifts
from raygan.gan.nets.levels import Level, Shape, plan_levels
from raygan.gan.nets.rectifiers import PReLU

STRIDED, ORDINARY, POINT = (4, 4), (3, 3), (1, 1)
"""Kernels."""


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
        self.addition = blocks.NormalizedAddition(channels) if blocks.is_weight_norm(norm) else None
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
        blocks.rectifier(norm, channels),
        *_convolution(norm, channels, channels, ORDINARY, padding=(1, 1)),
    ]
    return Block(norm, channels, residue, [], [blocks.rectifier(norm, channels)])


def _down(norm: Norm, inputs: int, outputs: int, level: Level, *, first: bool) -> Block:
    """A block that halves the map; the ``first`` one reads the image."""
    residue = [
        *_convolution(
            norm, inputs, outputs, STRIDED, stride=2, padding=level.padding, normalize=not first
        ),
        blocks.rectifier(norm, outputs),
        *_convolution(norm, outputs, outputs, ORDINARY, padding=(1, 1)),
    ]
    shortcut: list[nn.Module] = [nn.AvgPool2d(2, padding=level.extra)]
    if inputs != outputs:
        shortcut += _convolution(norm, inputs, outputs, POINT, normalize=not first)
    return Block(norm, outputs, residue, shortcut, [blocks.rectifier(norm, outputs)])


def _up(norm: Norm, inputs: int, outputs: int, level: Level, *, last: bool) -> Block:
    """A block that doubles the map; the ``last`` one makes the image."""
    normalize = [] if last else blocks.normalisation(norm, outputs)
    residue = [
        *_convolution(norm, inputs, inputs, ORDINARY, padding=(1, 1), normalize=not last),
        blocks.rectifier(norm, inputs),
        blocks.transposed_convolution(
            norm, inputs, outputs, STRIDED, stride=2, padding=level.padding
        ),
        *normalize,
    ]
    shortcut: list[nn.Module] = []
    if inputs != outputs:
        shortcut += _convolution(norm, inputs, outputs, POINT, normalize=not last)
    shortcut.append(nn.Upsample(scale_factor=2))
    rows, columns = level.extra
    if rows or columns:  # cropped by what D pads
        shortcut.append(nn.ZeroPad2d((-columns, -columns, -rows, -rows)))
    after: list[nn.Module] = [blocks.rectifier(norm, outputs)]
    if last:  # strict layers have neither scale nor bias
        after = [blocks.ChannelAffine(outputs)] if norm == "wn" else []
    return Block(norm, outputs, residue, shortcut, after)


def _convolution(
    norm: Norm,
    inputs: int,
    outputs: int,
    kernel: Pair,
    *,
    stride: int = 1,
    padding: Pair = blocks.NONE,
    normalize: bool = True,
) -> list[nn.Module]:
    layer = blocks.convolution(norm, inputs, outputs, kernel, stride=stride, padding=padding)
    return [layer, *(blocks.normalisation(norm, outputs) if normalize else [])]


class Discriminator(blocks.Critic):
    """Images [N, C, H, W] in [0, 1], which it maps to [−1, 1], → logits [N]."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = config.norm
        levels = plan_levels(height, width, config.levels)
        layers: list[nn.Module] = []
        inputs = channels
        for level, outputs in zip(levels, widths(config.features, len(levels)), strict=True):
            layers.append(_down(norm, inputs, outputs, level, first=level is levels[0]))
            layers += [_same(norm, outputs) for _ in range(config.blocks - 1)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = blocks.linear(norm, units, 1, affine=True)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 2 - 1)


class Generator(blocks.Painter):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = blocks.of_generator(config.norm)
        levels = plan_levels(height, width, config.levels)
        inputs, *narrower = reversed([channels, *widths(config.features, len(levels))])
        self.map_shape = (inputs, *levels[-1].size)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear = blocks.linear(norm, config.code_size, units, affine=True, gain=0.01)
        # the affine layer has translated already
        layers = [*blocks.normalisation(norm, inputs), PReLU(inputs)]
        for level, outputs in zip(reversed(levels), narrower, strict=True):
            layers += [_same(norm, inputs) for _ in range(config.blocks - 1)]
            layers.append(_up(norm, inputs, outputs, level, last=level is levels[0]))
            inputs = outputs
        self.layers = nn.Sequential(*layers)
