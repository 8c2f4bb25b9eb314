"""The least-squares loss."""

from torch import Tensor

from raygan.gan.losses.loss import Loss


class LeastSquares(Loss):
    """Least squares (Mao et al. 2017, equation 9)."""

    name = "least-squares"
    boundary = 0.5

    def real(self, logits: Tensor) -> Tensor:
        """(D(x) − 1)² / 2."""
        return (logits - 1).square() / 2

    def fake(self, logits: Tensor) -> Tensor:
        """D(G(z))² / 2."""
        return logits.square() / 2

    def generator(self, logits: Tensor) -> Tensor:
        """(D(G(z)) − 1)² / 2."""
        return (logits - 1).square() / 2
