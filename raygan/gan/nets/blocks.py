"""What every architecture is built of, for every norm.

=============  ============================================================================
``norm``       layers, and what follows them
=============  ============================================================================
``vanilla``    ordinary; PReLU
``bn``         ordinary, batch norm (Ioffe & Szegedy 2015); PReLU
``ln``         ordinary, layer norm over channels, rows and columns (Ba et al. 2016); PReLU
``gn``         ordinary, group norm (Wu & He 2018) of :func:`groups`; PReLU
``sn``         D: ordinary under spectral norm (Miyato et al. 2018), PReLU; G: as ``bn``
``wn``         strict weight norm; TPReLU (arXiv 1704.03971, sections 3 and 4)
``wn-affine``  weight norm with scale and bias; PReLU
=============  ============================================================================
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from raygan.gan.config import Norm
from raygan.gan.nets.convolution import Conv2d, ConvTranspose2d
from raygan.gan.nets.layers import WeightNormConv2d, WeightNormConvTranspose2d, WeightNormLinear
from raygan.gan.nets.rectifiers import PReLU, TPReLU

Pair = tuple[int, int]
NONE: Pair = (0, 0)


def is_weight_norm(norm: Norm) -> bool:
    """Whether the layers are weight-normalised."""
    return norm in ("wn", "wn-affine")


def of_generator(norm: Norm) -> Norm:
    """The norm of G: that of D, but batch norm against a D under spectral norm, as in Miyato et
    al. 2018, tables 3 and 4."""
    return "bn" if norm == "sn" else norm


def groups(channels: int) -> int:
    """Groups of ``gn``: as many, 32 at most, as are of equal size and have 16 channels or more.

    Both are the best values of Wu & He 2018, table 3; groups of few channels do worst.
    """
    counts = range(min(32, channels // 16), 1, -1)
    return next((count for count in counts if channels % count == 0), 1)


def normalisation(norm: Norm, channels: int) -> list[nn.Module]:
    """What normalises the output of a layer: nothing or one module."""
    if norm == "bn":
        return [nn.BatchNorm2d(channels)]
    if norm in ("ln", "gn"):
        return [nn.GroupNorm(1 if norm == "ln" else groups(channels), channels)]
    return []


def rectifier(norm: Norm, channels: int) -> PReLU:
    """The activation."""
    return TPReLU(channels) if norm == "wn" else PReLU(channels)


def convolution(
    norm: Norm, inputs: int, outputs: int, kernel: Pair, *, stride: int = 1, padding: Pair = NONE
) -> nn.Module:
    """[N, inputs, H, W] → [N, outputs, H', W']."""
    if is_weight_norm(norm):
        affine = norm == "wn-affine"
        return WeightNormConv2d(
            inputs, outputs, kernel, stride=stride, padding=padding, affine=affine
        )
    return Conv2d(inputs, outputs, kernel, stride, padding)


def transposed_convolution(
    norm: Norm,
    inputs: int,
    outputs: int,
    kernel: Pair,
    *,
    stride: int,
    padding: Pair,
    affine: bool = False,
) -> nn.Module:
    """[N, inputs, H, W] → [N, outputs, H', W']; ``affine`` is of weight-normalised ones."""
    if is_weight_norm(norm):
        affine = affine or norm == "wn-affine"
        return WeightNormConvTranspose2d(
            inputs, outputs, kernel, stride=stride, padding=padding, affine=affine
        )
    return ConvTranspose2d(inputs, outputs, kernel, stride, padding)


def linear(
    norm: Norm, inputs: int, outputs: int, *, affine: bool = False, gain: float = 1.0
) -> nn.Module:
    """[N, inputs] → [N, outputs]; ``affine`` and ``gain`` are of weight-normalised ones."""
    if is_weight_norm(norm):
        affine = affine or norm == "wn-affine"
        return WeightNormLinear(inputs, outputs, affine=affine, gain=gain)
    return nn.Linear(inputs, outputs)


def constrain(discriminator: nn.Module) -> None:
    """Put every layer of an ordinary D under spectral norm: W / σ(W), σ by power iteration."""
    for module in list(discriminator.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)


class NormalizedAddition(nn.Module):
    """y = (w₀ r + w₁ s) / √(w₀² + w₁²) per channel, of the residue r and the shortcut s.

    The weight-normalised addition of arXiv 1704.03971, section 5.1. The weights [2, C] start at
    (0, 1): y = s. r, s, y: [N, C, H, W].
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0], [1.0]]).repeat(1, channels))

    def forward(self, residue: Tensor, shortcut: Tensor) -> Tensor:
        weights = F.normalize(self.weight, dim=0).to(residue.dtype)
        first, second = weights.view(2, 1, -1, 1, 1).unbind()
        return torch.addcmul(residue * first, shortcut, second)


class ChannelAffine(nn.Module):
    """y = γ x + β per channel; γ starts at 1, β at 0. [N, C, H, W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale, bias = (p.view(1, -1, 1, 1).to(x.dtype) for p in (self.scale, self.bias))
        return torch.addcmul(bias, x, scale)


class Critic(nn.Module):
    """Images [N, C, H, W] in [0, 1] → logits [N]; positive means "real"."""

    layers: nn.Module
    linear: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layers(images)
        # in the order in which maps lie in memory, channels last: nothing is copied
        logits: Tensor = self.linear(maps.permute(0, 2, 3, 1).flatten(1))
        return logits.flatten()


class Painter(nn.Module):
    """Codes [N, code_size] → images [N, C, H, W] in [0, 1]."""

    linear: nn.Module
    layers: nn.Module
    map_shape: tuple[int, int, int]
    """Channels, height and width of what ``linear`` gives to ``layers``."""

    def forward(self, codes: Tensor) -> Tensor:
        flat: Tensor = self.linear(codes)
        maps = flat.view(-1, *self.map_shape).contiguous(memory_format=torch.channels_last)
        images: Tensor = self.layers(maps)
        return images.sigmoid()
