"""The Wasserstein loss with gradient penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from raygan.errors import ConfigError
from raygan.gan.losses.loss import Loss

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig


class WganGp(Loss):
    """Wasserstein loss with gradient penalty (Gulrajani et al. 2017, equation 3)."""

    name = "wgan-gp"
    boundary = None

    penalty: float = 10.0
    """Factor of the gradient penalty in D's loss."""

    def check_parameters(self) -> None:
        """The penalty has an effect."""
        if not self.penalty > 0:
            raise ConfigError(f"`penalty` (={self.penalty!r}) must be a positive number")

    def check(self, config: TrainConfig) -> None:
        """Batch norm in D, shared fake images and compilation are excluded."""
        from raygan.gan.nets.norms import NORMS

        if NORMS.make(config.norm, config.parameters).mixes_images:
            raise ConfigError(
                f"`loss: wgan-gp` cannot be used with `norm: {config.norm}`: the penalty is on the "
                "gradient of each image by itself, which this norm mixes with the others' in D "
                "(Gulrajani et al. 2017, section 4); use ln or gn, or another loss"
            )
        if config.update == "simultaneous":
            raise ConfigError(
                "`loss: wgan-gp` needs `update: alternating`: D's penalty has a gradient that G's "
                "update cannot share"
            )
        if config.compile:
            raise ConfigError(
                "`loss: wgan-gp` cannot be used with `compile: true`: torch.compile does not "
                "differentiate a gradient once more, as the penalty asks"
            )

    @property
    def gradient_penalty(self) -> float:
        """Of the slope at mixtures of real and fake images."""
        return self.penalty

    def real(self, logits: Tensor) -> Tensor:
        """−D(x)."""
        return -logits

    def fake(self, logits: Tensor) -> Tensor:
        """D(G(z))."""
        return logits

    def generator(self, logits: Tensor) -> Tensor:
        """−D(G(z))."""
        return -logits
