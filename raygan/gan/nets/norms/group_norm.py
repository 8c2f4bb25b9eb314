"""Group norm."""

from __future__ import annotations

from torch import nn

from raygan.gan.nets.norms.norm import Norm


class GroupNorm(Norm):
    """Group norm (Wu & He 2018); PReLU."""

    name = "gn"

    def normalisation(self, channels: int) -> list[nn.Module]:
        """Group norm of :func:`groups`, with scale and bias per channel."""
        return [nn.GroupNorm(groups(channels), channels)]


def groups(channels: int) -> int:
    """Groups of ``channels``: as many as have equal sizes and 16 channels or more, 32 at most.

    Both are the best values of Wu & He 2018, table 3; groups of few channels do worst.
    """
    counts = range(min(32, channels // 16), 1, -1)
    return next((count for count in counts if channels % count == 0), 1)
