"""What architectures are built of beside the layers that their norm gives them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygan.gan.nets.kernels import EPSILON


class NormalizedAddition(nn.Module):
    """y = (w₀ r + w₁ s) / √(w₀² + w₁²) per channel, of the residue r and the shortcut s.

    The weight-normalised addition of arXiv 1704.03971, section 5.1. The weights [2, C] start at
    (0, 1): y = s. r, s, y: [N, C, H, W]. ``epsilon`` is added to w₀² + w₁².
    """

    def __init__(self, channels: int, epsilon: float = EPSILON):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.tensor([[0.0], [1.0]]).repeat(1, channels))

    def forward(self, residue: Tensor, shortcut: Tensor) -> Tensor:
        if self.epsilon > EPSILON:
            squared = self.weight.square().sum(0).add(self.epsilon)
            weights = (self.weight * squared.rsqrt()).to(residue.dtype)
        else:
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
