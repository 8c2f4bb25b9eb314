"""The Wasserstein loss with gradient penalty."""

from __future__ import annotations

from torch import Tensor

from raygan.errors import ConfigError
from raygan.gan.losses.loss import Loss


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
