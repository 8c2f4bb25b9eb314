"""Adam."""

from __future__ import annotations

from torch import nn
from torch.optim import Adam as TorchAdam
from torch.optim import Optimizer

from raygan.errors import ConfigError
from raygan.gan.optimizers.optimizer import OptimizerRecipe


class Adam(OptimizerRecipe):
    """Adam (Kingma & Ba 2015)."""

    name = "adam"

    beta1: float = 0.5
    """Decay of the mean of gradients; 0.5: Radford et al. 2016, section 3."""
    beta2: float = 0.999
    """Decay of the mean of squared gradients."""
    epsilon: float = 1e-8
    """Added to the root of the mean of squared gradients."""

    def check_parameters(self) -> None:
        """All are in the range in which the update is finite."""
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"`{name}` (={getattr(self, name)!r}) must be from 0 to below 1")
        if not self.epsilon > 0:
            raise ConfigError(f"`epsilon` (={self.epsilon!r}) must be a positive number")

    def make(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """PyTorch's, fused on a GPU."""
        on_gpu = parameters[0].is_cuda
        return TorchAdam(
            parameters,
            lr=lr,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=weight_decay,
            capturable=on_gpu,
            fused=on_gpu or None,
        )
