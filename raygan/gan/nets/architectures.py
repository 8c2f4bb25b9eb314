"""Generator and discriminator of a configuration."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from raygan.gan.config import TrainConfig
from raygan.gan.nets import blocks, dcgan, resnet
from raygan.gan.nets.levels import Shape

Build = Callable[[TrainConfig, Shape], nn.Module]

ARCHITECTURES: dict[str, tuple[Build, Build]] = {
    "dcgan": (dcgan.Generator, dcgan.Discriminator),
    "resnet": (resnet.Generator, resnet.Discriminator),
}


def build(config: TrainConfig, shape: Shape) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of ``shape``, drawn from PyTorch's global state.

    Raises :class:`~raygan.errors.ConfigError` if they cannot be built for ``shape``.
    """
    build_generator, build_discriminator = ARCHITECTURES[config.architecture]
    generator, discriminator = build_generator(config, shape), build_discriminator(config, shape)
    if config.norm == "sn":
        blocks.constrain(discriminator)
    return generator, discriminator
