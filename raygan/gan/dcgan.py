"""DCGAN generator and discriminator for every norm (arXiv 1704.03971, section 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raygan.errors import ConfigError
from raygan.gan.config import Norm, TrainConfig
from raygan.gan.convolution import Conv2d, ConvTranspose2d
from raygan.gan.layers import (
    WeightNormConv2d,
    WeightNormConvTranspose2d,
    WeightNormLinear,
    subtract_shifts,
)
from raygan.gan.rectifiers import PReLU, TPReLU

KERNEL, STRIDE = (4, 4), 2

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Level(NamedTuple):
    """One halving of the map, seen from the image."""

    padding: tuple[int, int]
    """Rows and columns of padding: 1, or 2 where the half would be odd and halved again."""
    size: tuple[int, int]
    """Height and width of the smaller map."""


def plan_levels(height: int, width: int, levels: int | None) -> list[Level]:
    """Sizes and paddings of the levels, from the image inwards.

    Raises :class:`~raygan.errors.ConfigError` if a side is odd or runs out of pixels.
    """
    if height % 2 or width % 2 or min(height, width) < 2:
        raise ConfigError(
            f"images of {height}×{width} pixels cannot be used: height and width must be even; "
            "set `dataset.size` to an even size"
        )
    count = _default_levels(max(height, width)) if levels is None else levels
    planned: list[Level] = []
    size = (height, width)
    for level in range(count):
        deepest = level == count - 1
        extra = tuple(0 if deepest else (side // 2) % 2 for side in size)
        halved = (size[0] // 2 + extra[0], size[1] // 2 + extra[1])
        if halved == size:  # 2 is halved to 1 and padded to 2
            raise ConfigError(
                f"`levels` (={count}) is too many for images of {height}×{width} pixels: "
                f"nothing is left to halve after level {level}; {level + 1} at most"
            )
        size = halved
        planned.append(Level((1 + extra[0], 1 + extra[1]), size))
    return planned


def _default_levels(side: int) -> int:
    count = 0
    while side >= 8:
        side = (side + 1) // 2
        count += 1
    return max(count, 1)


def _norm_and_activation(norm: Norm, channels: int, *, normalize: bool = True) -> list[nn.Module]:
    after: list[nn.Module] = []
    if norm == "bn" and normalize:
        after.append(nn.BatchNorm2d(channels))
    after.append(TPReLU(channels) if norm == "wn" else PReLU(channels))
    return after


def _conv(norm: Norm, inputs: int, outputs: int, padding: tuple[int, int]) -> nn.Module:
    if norm in ("wn", "wn-affine"):
        return WeightNormConv2d(
            inputs, outputs, KERNEL, stride=STRIDE, padding=padding, affine=norm == "wn-affine"
        )
    return Conv2d(inputs, outputs, KERNEL, STRIDE, padding)


def _conv_transpose(
    norm: Norm, inputs: int, outputs: int, padding: tuple[int, int], *, last: bool
) -> nn.Module:
    if norm in ("wn", "wn-affine"):
        affine = last or norm == "wn-affine"
        return WeightNormConvTranspose2d(
            inputs, outputs, KERNEL, stride=STRIDE, padding=padding, affine=affine
        )
    return ConvTranspose2d(inputs, outputs, KERNEL, STRIDE, padding)


class Discriminator(nn.Module):
    """Images [N, C, H, W] in [0, 1] → logits [N]; positive means "real"."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = config.norm
        layers: list[nn.Module] = []
        inputs, outputs = channels, config.features
        levels = plan_levels(height, width, config.levels)
        for depth, level in enumerate(levels):
            layers.append(_conv(norm, inputs, outputs, level.padding))
            layers += _norm_and_activation(norm, outputs, normalize=depth > 0)
            inputs, outputs = outputs, outputs * 2
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear: nn.Module
        if norm in ("wn", "wn-affine"):
            self.linear = WeightNormLinear(units, 1, affine=True)
        else:
            self.linear = nn.Linear(units, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images)
        # in the order in which maps lie in memory, channels last: nothing is copied
        logits: Tensor = self.linear(maps.permute(0, 2, 3, 1).flatten(1))
        return logits.flatten()


class Generator(nn.Module):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]; the mirror of the discriminator."""

    def __init__(self, config: TrainConfig, shape: Shape):
        super().__init__()
        channels, height, width = shape
        norm = config.norm
        levels = plan_levels(height, width, config.levels)
        inputs = config.features * 2 ** (len(levels) - 1)
        self.map_shape = (inputs, *levels[-1].size)
        units = inputs * levels[-1].size[0] * levels[-1].size[1]
        self.linear: nn.Module
        if norm in ("wn", "wn-affine"):
            # the authors' code starts this layer at 1/100 of the usual size
            self.linear = WeightNormLinear(
                config.code_size, units, affine=norm == "wn-affine", gain=0.01
            )
        else:
            self.linear = nn.Linear(config.code_size, units)
        layers = _norm_and_activation(norm, inputs)
        for level in reversed(levels[1:]):
            layers.append(_conv_transpose(norm, inputs, inputs // 2, level.padding, last=False))
            layers += _norm_and_activation(norm, inputs // 2)
            inputs //= 2
        layers.append(_conv_transpose(norm, inputs, channels, levels[0].padding, last=True))
        subtract_shifts(layers)
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        flat: Tensor = self.linear(codes)
        maps = flat.view(-1, *self.map_shape).contiguous(memory_format=torch.channels_last)
        images: Tensor = self.layers(maps)
        return images.sigmoid()


ARCHITECTURES: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "dcgan": (Generator, Discriminator),
}
