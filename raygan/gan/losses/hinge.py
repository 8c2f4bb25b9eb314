"""The hinge loss."""

import torch.nn.functional as F
from torch import Tensor

from raygan.gan.losses.loss import Loss


class Hinge(Loss):
    """Hinge (Lim & Ye 2017; Miyato et al. 2018, equations 16 and 17)."""

    name = "hinge"

    def real(self, logits: Tensor) -> Tensor:
        """max(0, 1 − D(x))."""
        return F.relu(1 - logits)

    def fake(self, logits: Tensor) -> Tensor:
        """max(0, 1 + D(G(z)))."""
        return F.relu(1 + logits)

    def generator(self, logits: Tensor) -> Tensor:
        """−D(G(z))."""
        return -logits
