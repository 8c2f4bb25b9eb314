"""The architectures, one file each, and the networks of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from raygan.errors import ConfigError
from raygan.gan.nets.architecture import Architecture
from raygan.gan.nets.dcgan import DCGAN
from raygan.gan.nets.levels import Shape
from raygan.gan.nets.norms import NORMS
from raygan.gan.nets.resnet import ResNet
from raygan.recipe import Table

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig

ARCHITECTURES: Table[Architecture] = Table(
    "architecture", "architecture", Architecture, DCGAN, ResNet
)
"""All architectures."""


def build(config: TrainConfig, shape: Shape) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of ``shape``, drawn from PyTorch's global state.

    Raises :class:`~raygan.errors.ConfigError` if they cannot be built for ``shape``.
    """
    architecture = ARCHITECTURES.make(config.architecture, config.parameters)
    norm = NORMS.make(config.norm, config.parameters)
    generator = architecture.generator(config, norm.of_generator(), shape)
    discriminator = architecture.discriminator(config, norm, shape)
    norm.finish(discriminator)
    return generator, discriminator


def check_size(config: TrainConfig, height: int, width: int) -> None:
    """Refuse, with :class:`~raygan.errors.ConfigError`, images of a size that ``config`` cannot be
    trained on.

    The more levels and the smaller the batch, the more is refused.
    """
    architecture = ARCHITECTURES.make(config.architecture, config.parameters)
    norm = NORMS.make(config.norm, config.parameters)
    rows, columns = architecture.smallest_map(config, height, width)
    problem = norm.check_map(config.batch_size, rows, columns)
    if problem is not None:
        raise ConfigError(
            f"`batch_size` (={config.batch_size}) is too small for `norm: {config.norm}`: the "
            f"smallest maps of images of {height}×{width} pixels have {rows}×{columns} pixels, and "
            f"{problem}; raise `batch_size`, or lower `levels`"
        )
