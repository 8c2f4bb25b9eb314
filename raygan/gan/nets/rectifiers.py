"""PReLU, and its translated form (arXiv 1704.03971, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygan.gan.nets.kernels import RectifyCPU, rectifies_by_hand


class PReLU(nn.Module):
    """PReLU_λ(x) per channel: x if x > 0, else λx; λ starts at 0.25. [N, C, H, W] → same."""

    def __init__(self, channels: int):
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        slope = self.slope.to(x.dtype)
        if rectifies_by_hand(x):
            rectified: Tensor = RectifyCPU.apply(x, slope, None)
            return rectified
        return F.prelu(x, slope)


class TPReLU(PReLU):
    """Translated PReLU: PReLU_λ(x − α) + α per channel (arXiv 1704.03971, section 4).

    λ (``slope``) starts at 0.25 and is kept in [0, 1] by :func:`clamp_slopes`; α (``shift``)
    starts at 0.
    """

    translated = False
    """Whether the layer before has subtracted α already."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        slope, shift = self.slope.to(x.dtype), self.shift.to(x.dtype)
        column = shift.view(1, -1, 1, 1)
        t = x if self.translated else x - column
        if rectifies_by_hand(x):
            rectified: Tensor = RectifyCPU.apply(t, slope, shift)
            return rectified
        return F.prelu(t, slope) + column


def clamped_slopes(network: nn.Module) -> list[Tensor]:
    """The λ of all TPReLU layers: what :func:`clamp_slopes` keeps in [0, 1]."""
    return [m.slope.data for m in network.modules() if isinstance(m, TPReLU)]


def clamp_slopes(slopes: list[Tensor]) -> None:
    """Project every λ to [0, 1], in place; to be called after each update."""
    for slope in slopes:
        slope.clamp_(0.0, 1.0)
