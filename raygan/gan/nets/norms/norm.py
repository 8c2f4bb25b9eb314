"""What a norm is: the layers that it gives to an architecture."""

from __future__ import annotations

from torch import nn

from raygan.gan.nets.layers import Conv2d, ConvTranspose2d
from raygan.gan.nets.rectifiers import PReLU
from raygan.gan.part import Part

Pair = tuple[int, int]
"""Rows and columns."""


class Norm(Part):
    """How the layers of a network are normalised. By default: ordinary layers, PReLU, no norm.

    An architecture asks its norm for every layer, so that a new norm overrides what it changes:
    mostly :meth:`normalisation` alone.
    """

    @property
    def mixes_images(self) -> bool:
        """Whether an image's logit depends on the other images of the batch."""
        return False

    def of_generator(self) -> Norm:
        """The norm of G; this one is that of D."""
        return self

    def normalisation(self, channels: int) -> list[nn.Module]:
        """What normalises the output of a hidden layer, [N, channels, H, W] → same: modules that
        are applied in turn, before the activation."""
        del channels
        return []

    def activation(self, channels: int) -> nn.Module:
        """The activation, [N, channels, H, W] → same."""
        return PReLU(channels)

    def convolution(
        self, inputs: int, outputs: int, kernel: Pair, *, stride: int = 1, padding: Pair = (0, 0)
    ) -> nn.Module:
        """[N, inputs, H, W] → [N, outputs, H', W']."""
        return Conv2d(inputs, outputs, kernel, stride, padding)

    def transposed_convolution(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        *,
        stride: int,
        padding: Pair,
        last: bool = False,
    ) -> nn.Module:
        """[N, inputs, H, W] → [N, outputs, H', W']; ``last``: its output is the image."""
        del last
        return ConvTranspose2d(inputs, outputs, kernel, stride, padding)

    def linear(
        self, inputs: int, outputs: int, *, affine: bool = False, gain: float = 1.0
    ) -> nn.Module:
        """[N, inputs] → [N, outputs]; ``affine``: with scale and bias, whatever the others have;
        ``gain``: factor of the initial weights, where the output does not depend on it."""
        del affine, gain
        return nn.Linear(inputs, outputs)

    def addition(self, channels: int) -> nn.Module | None:
        """What adds a residue and its shortcut, both [N, channels, H, W]; None: ``+``."""
        del channels
        return None

    def image_scale(self, channels: int) -> list[nn.Module]:
        """What follows the last addition of a residual G, [N, channels, H, W] → same."""
        del channels
        return []

    def finish(self, discriminator: nn.Module) -> None:
        """Change D once it is built."""

    def check_map(self, batch_size: int, rows: int, columns: int) -> str | None:
        """Why a batch whose smallest maps have so many rows and columns cannot be normalised."""
        del batch_size, rows, columns
        return None


def batch_norm_problem(batch_size: int, rows: int, columns: int) -> str | None:
    """Why batch norm cannot be used with such maps; None if it can."""
    if batch_size * rows * columns > 1:
        return None
    return "batch norm needs more than one value per channel"
