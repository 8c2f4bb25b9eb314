"""Adversarial losses on logits, per sample.

======================  =========================  ====================  ======================
``loss``                D on real                  D on fake             G on fake
======================  =========================  ====================  ======================
``log``                 softplus(−D(x))            softplus(D(G(z)))     softplus(−D(G(z)))
``least-squares``       (D(x) − 1)² / 2            D(G(z))² / 2          (D(G(z)) − 1)² / 2
======================  =========================  ====================  ======================

``log`` is the non-saturating loss of Goodfellow et al. 2014, section 3; ``least-squares``
is Mao et al. 2017, equation 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    ),
}
