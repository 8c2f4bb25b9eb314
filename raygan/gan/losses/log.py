"""The log loss."""

import torch.nn.functional as F
from torch import Tensor

from raygan.gan.losses.loss import Loss


class Log(Loss):
    """Non-saturating log loss (Goodfellow et al. 2014, section 3)."""

    name = "log"
    logistic = True

    def real(self, logits: Tensor) -> Tensor:
        """softplus(−D(x))."""
        return F.softplus(-logits)

    def fake(self, logits: Tensor) -> Tensor:
        """softplus(D(G(z)))."""
        return F.softplus(logits)

    def generator(self, logits: Tensor) -> Tensor:
        """softplus(−D(G(z)))."""
        return F.softplus(-logits)
