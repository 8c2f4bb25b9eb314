"""What an optimizer recipe is: it makes a PyTorch optimizer."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from raygan.gan.part import Part


class OptimizerRecipe(Part):
    """Makes the optimizer of one network."""

    def make(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
        """The optimizer of ``parameters``, which are all on one device.

        It keeps its learning rate in its parameter groups' ``lr``. On a GPU its step must not
        wait for the device (``capturable=True``). ``weight_decay``: factor of an L2 penalty.
        """
        raise NotImplementedError
