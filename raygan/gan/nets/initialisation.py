"""The random weights with which PyTorch began in 2017."""

from __future__ import annotations

import math

import torch
from torch import nn

from raygan.gan.nets.layers import WeightNormConvTranspose2d, WeightNormLinear


def as_in_2017(network: nn.Module) -> None:
    """Draw those weights of ``network`` again that PyTorch 0.2 drew otherwise than today's.

    - Transposed convolutions, weights and biases: U(−b, b) with b = 1/√(C_in · k_h · k_w). Today
      the number of output channels takes the place of C_in.
    - Batch norm: the scale γ is U(0, 1). Today it is 1.

    And as the authors drew it: the bias of an affine weight-normalised first layer of G is
    U(−b, b), with the bound b of its weights. By default it is 0.

    All other layers of raygan's networks begin as they did (``torch/nn/modules/conv.py``,
    ``batchnorm.py`` and ``linear.py`` of PyTorch 0.2.0, August 2017). Random numbers come from
    PyTorch's global generator.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.ConvTranspose2d | WeightNormConvTranspose2d):
                inputs, _, rows, columns = module.weight.shape
                bound = 1 / math.sqrt(inputs * rows * columns)
                module.weight.uniform_(-bound, bound)
                if isinstance(module, nn.ConvTranspose2d) and module.bias is not None:
                    module.bias.uniform_(-bound, bound)
            elif isinstance(module, WeightNormLinear):
                # not of D's last layer, which has one unit
                if module.bias is not None and len(module.weight) > 1:
                    module.bias.uniform_(-module.bound, module.bound)
            elif isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_()
