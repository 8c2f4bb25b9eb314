"""RMSProp."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer, RMSprop

from raygan.errors import ConfigError
from raygan.gan.optimizers.optimizer import OptimizerRecipe


class RMSProp(OptimizerRecipe):
    """RMSProp; the defaults are those of arXiv 1704.03971, section 5.1."""

    name = "rmsprop"

    smoothing: float = 0.9
    """Decay of the mean of squared gradients."""
    epsilon: float = 1e-6
    """Added to the root of the mean of squared gradients."""

    def check_parameters(self) -> None:
        """Both are in the range in which the update is finite."""
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"`smoothing` (={self.smoothing!r}) must be from 0 to below 1")
        if not self.epsilon > 0:
            raise ConfigError(f"`epsilon` (={self.epsilon!r}) must be a positive number")

    def make(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """PyTorch's."""
        return RMSprop(
            parameters,
            lr=lr,
            alpha=self.smoothing,
            eps=self.epsilon,
            weight_decay=weight_decay,
            capturable=parameters[0].is_cuda,
        )
