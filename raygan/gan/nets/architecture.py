"""What an architecture is: it builds G and D of a norm's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from raygan.gan.nets.levels import Shape, plan_levels
from raygan.gan.nets.norms.norm import Norm
from raygan.gan.part import Part

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig


class Architecture(Part):
    """Builds both networks for images of a shape, with the layers of a norm.

    They must keep to the shapes that are named here, treat each image by itself (but for batch
    norm), and have parameters that are drawn from PyTorch's global state.
    """

    def generator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """G: codes float32 [N, code_size] → images [N, C, H, W] in [0, 1]."""
        raise NotImplementedError

    def discriminator(self, config: TrainConfig, norm: Norm, shape: Shape) -> nn.Module:
        """D: images [N, C, H, W] in [0, 1] → logits [N]; larger means "real"."""
        raise NotImplementedError

    def smallest_map(self, config: TrainConfig, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the smallest map for images of this size.

        Raises :class:`~raygan.errors.ConfigError` if such images cannot be used.
        """
        return plan_levels(height, width, config.levels)[-1].size
