"""Penalties on the slope of D."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raygan.errors import ConfigError

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig


def check_penalty(config: TrainConfig, key: str) -> None:
    """Refuse what excludes a penalty on D's slope, which ``key`` of the YAML asks for.

    Raises :class:`~raygan.errors.ConfigError` that names the keys and what to do.
    """
    from raygan.gan.nets.norms import NORMS

    if NORMS.make(config.norm, config.parameters).mixes_images:
        raise ConfigError(
            f"`{key}` cannot be used with `norm: {config.norm}`: its penalty is on the gradient of "
            "each image by itself, which this norm mixes with the others' in D (Gulrajani et al. "
            f"2017, section 4); use ln or gn, or remove `{key}`"
        )
    if config.update == "simultaneous":
        raise ConfigError(
            f"`{key}` needs `update: alternating`: D's penalty has a gradient that G's update "
            "cannot share"
        )
    if config.compile:
        raise ConfigError(
            f"`{key}` cannot be used with `compile: true`: torch.compile does not differentiate a "
            "gradient once more, as its penalty asks"
        )


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


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """‖∇D(x)‖² / 2 of each real image x [N] (Mescheder et al. 2018, equation 9, with γ = 1).

    ``logits`` [N]: D's of ``real`` [N, C, H, W], which requires a gradient. The slope can be
    differentiated once more.
    """
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)) / 2
