"""Penalties on the slope of D."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(
    judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """(‖∇D(x̂)‖₂ − 1)² of each sample [N], with x̂ = mix · real + (1 − mix) · fake.

    ``judge`` is D; ``real`` and ``fake``: [N, C, H, W] in [0, 1]; ``mix``: [N] in [0, 1]. The
    gradient is that with respect to images in [0, 1], and can be differentiated once more.
    """
    between = fake.lerp(real, mix.view(-1, 1, 1, 1)).requires_grad_()
    logits = judge(between)
    (slope,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
    steepness: Tensor = torch.linalg.vector_norm(slope, dim=(1, 2, 3))
    return (steepness - 1).square()
