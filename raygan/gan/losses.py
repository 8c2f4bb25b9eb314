"""Adversarial losses on logits, per sample.

=================  ===================  ==================  =====================
``loss``           D on real            D on fake           G on fake
=================  ===================  ==================  =====================
``log``            softplus(−D(x))      softplus(D(G(z)))   softplus(−D(G(z)))
``least-squares``  (D(x) − 1)² / 2      D(G(z))² / 2        (D(G(z)) − 1)² / 2
``hinge``          max(0, 1 − D(x))     max(0, 1 + D(G(z))) −D(G(z))
``wgan-gp``        −D(x)                D(G(z))             −D(G(z))
=================  ===================  ==================  =====================

``log`` is the non-saturating loss of Goodfellow et al. 2014, section 3; ``least-squares``
is Mao et al. 2017, equation 9; ``hinge`` is Lim & Ye 2017 (arXiv 1705.02894), as written by
Miyato et al. 2018, equations 16 and 17; ``wgan-gp``, to whose D loss ten times
:func:`gradient_penalty` is added, is Gulrajani et al. 2017 (arXiv 1704.00028), equation 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PerSample = Callable[[Tensor], Tensor]
"""Logits [N] → losses [N]."""


@dataclass(frozen=True)
class Loss:
    """The three per-sample losses of one adversarial game."""

    real: PerSample
    fake: PerSample
    generator: PerSample
    boundary: float | None = 0.0
    """The logit between "real" and "fake"; None: logits have a meaning only by comparison."""
    penalty: float = 0.0
    """Factor of :func:`gradient_penalty` in D's loss."""


LOSSES: dict[str, Loss] = {
    "log": Loss(
        real=lambda logits: F.softplus(-logits),
        fake=lambda logits: F.softplus(logits),
        generator=lambda logits: F.softplus(-logits),
    ),
    "least-squares": Loss(
        real=lambda logits: (logits - 1).square() / 2,
        fake=lambda logits: logits.square() / 2,
        generator=lambda logits: (logits - 1).square() / 2,
        boundary=0.5,
    ),
    "hinge": Loss(
        real=lambda logits: F.relu(1 - logits),
        fake=lambda logits: F.relu(1 + logits),
        generator=lambda logits: -logits,
    ),
    "wgan-gp": Loss(
        real=lambda logits: -logits,
        fake=lambda logits: logits,
        generator=lambda logits: -logits,
        boundary=None,
        penalty=10.0,
    ),
}


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
